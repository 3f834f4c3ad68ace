"""Several RTSP cameras on one device: latency from camera to subscriber, fairness, memory and CPU time.

    python benchmarks/cameras.py                       # 1 camera 1280x720 at 15, then 8 cameras 640x360 at 5 frames/s
    python benchmarks/cameras.py --seconds 120

Cameras play the demo's stream as H.264, encoded in advance, over RTSP on loopback. Latency runs from the capture time
of a picture (by RTCP, or its arrival before the first sender report) to the subscriber, on the clock of one machine.
With RTCP it includes the configured jitter buffer (latency_ms, 100 by default). Writes benchmarks/results/cameras.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import urllib.request
from collections import defaultdict
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
WARM_UP_S = 10.0


def main() -> None:
    """Measure both set-ups and write the report."""
    from benchmarks import rig

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="seconds of each set-up; default: %(default)s")
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "benchmarks/results/cameras.json",
        help="report to write; default: %(default)s",
    )
    arguments = parser.parse_args()
    report: dict[str, Any] = {}
    for count, width, height, fps in ((1, 1280, 720, 15), (8, 640, 360, 5)):
        name = f"{count} x {width}x{height} at {fps} frames/s"
        report[name] = measure(count, width, height, fps, arguments.seconds)
    rig.write_report(report | {"seconds": arguments.seconds}, arguments.out)


def measure(count: int, width: int, height: int, fps: int, seconds: int) -> dict[str, Any]:
    """Measure one set-up."""
    from benchmarks import rig
    from edge.demo.subscriber import Subscriber
    from edge.messaging.settings import MqttSettings
    from tests.integration.mosquitto import Mosquitto, free_port
    from tests.integration.rtsp_server import RtspServer

    work = ROOT / "runs/cameras"
    work.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(work / "state", ignore_errors=True)
    rig.install_demo(work / "state")
    clip = rig.encode_clip(work, width, height, fps, seconds + 40)
    health_port = free_port()
    with ExitStack() as stack:
        broker = stack.enter_context(Mosquitto(work / "broker"))
        servers = [stack.enter_context(RtspServer(f"encoded:{clip}")) for _ in range(count)]
        settings = MqttSettings(client_id="cameras-benchmark", host="127.0.0.1", port=broker.port)
        subscriber = stack.enter_context(Subscriber(settings, "finesight/bench/rig/+/events"))
        cameras = {f"cam{i}": server.url for i, server in enumerate(servers)}
        config = rig.write_config(work, broker.port, cameras, health_port)
        process = stack.enter_context(rig.device(config, work / "device.log"))
        time.sleep(WARM_UP_S)
        started, before = time.time(), rig.resource_usage(process.pid)
        time.sleep(seconds)
        after = rig.resource_usage(process.pid)
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{health_port}/metrics", timeout=5).read().decode()
        received = []
        while not subscriber.messages.empty():
            received.append(subscriber.messages.get())
    latencies: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    offset = time.time() - time.monotonic()
    published_at_end = 0
    for message in received:
        event = json.loads(message.payload)
        if event["type"] == "end" or datetime.fromisoformat(event["captured_at"]).timestamp() < started:
            continue
        if (
            "capture_to_decision" not in event["latency_ms"]
        ):  # the track left before its first event: it was published at its end
            published_at_end += 1
            continue
        captured = datetime.fromisoformat(event["captured_at"]).timestamp()
        latencies[event["time_source"]][event["camera"]].append(1e3 * (message.received_ns / 1e9 + offset - captured))
        latencies["device"][event["camera"]].append(event["latency_ms"]["capture_to_decision"])
    return {
        "camera_to_subscriber": {
            source: {"all": rig.summary([ms for values in by_camera.values() for ms in values])}
            | {camera: rig.summary(values) for camera, values in sorted(by_camera.items()) if count > 1}
            for source, by_camera in latencies.items()
            if source != "device"
        },
        "arrival_to_decision": rig.summary([ms for values in latencies["device"].values() for ms in values]),
        "told_at_end": published_at_end,
        "frames": {
            key: {
                line.partition('camera="')[2].partition('"')[0]: float(line.rpartition(" ")[2])
                for line in metrics.splitlines()
                if line.startswith(f"finesight_{key}_total{{")
            }
            for key in ("frames_recognised", "frames_dropped", "looks")
        },
        "cores": round((after["processor_s"] - before["processor_s"]) / seconds, 3),
        "resident_mib": round(after["resident_mib"], 1),
    }


if __name__ == "__main__":
    main()
