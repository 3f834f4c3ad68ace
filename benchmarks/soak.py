"""Soak test with faults: cameras that die, a frozen camera, a broker that restarts.

    python benchmarks/soak.py --minutes 60

Four RTSP cameras (640x360, 5 frames/s). Once a minute one of the first two is killed for 5 s; the third keeps running;
the fourth shows one picture only, which the device must report as frozen. Every 5 minutes the broker stops for 10 s. A
subscriber with a persistent session scores the events: every track with a `new` event must end, and every id counts
once. Writes benchmarks/results/soak.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
WARM_UP_S = 600.0
SAMPLE_S = 5.0
CAMERA_AWAY_S = 5.0
BROKER_AWAY_S = 10.0
CALM_AT_THE_END_S = 60.0  # without faults, so that everything can reconnect


def main() -> None:
    """Run the device, score the events, write the report."""
    from benchmarks import rig

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="duration; default: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks/results/soak.json", help="report to write; default: %(default)s"
    )
    arguments = parser.parse_args()
    rig.write_report(soak(60 * arguments.minutes) | {"minutes": arguments.minutes}, arguments.out)


def soak(seconds: float) -> dict[str, Any]:
    """Run a device for this long, and inject faults."""
    from benchmarks import rig
    from edge.demo.subscriber import Subscriber
    from edge.messaging.settings import MqttSettings
    from tests.integration.mosquitto import Mosquitto, free_port
    from tests.integration.rtsp_server import RtspServer

    work = ROOT / "runs/soak"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    rig.install_demo(work / "state")
    clip = rig.encode_clip(ROOT / "runs", 640, 360, 5, 120)
    samples: list[dict[str, float]] = []
    restarts: list[tuple[str, float]] = []  # camera, Unix time of its return
    broker_restarts = 0
    with ExitStack() as stack:
        broker = stack.enter_context(Mosquitto(work / "broker"))
        servers = {f"cam{i}": stack.enter_context(RtspServer(f"encoded:{clip}")) for i in range(3)}
        photos = work / "still"
        photos.mkdir()
        shutil.copy(ROOT / "docs/images/demo-contact-sheet.png", photos)
        still = RtspServer(f"photos:{photos}", fps=5, size=(640, 360), seconds=seconds + 600)
        servers["still"] = stack.enter_context(still)
        settings = MqttSettings(client_id="soak-benchmark", host="127.0.0.1", port=broker.port, version="5")
        subscriber = stack.enter_context(Subscriber(settings, "finesight/bench/rig/#", resume=True))
        cameras = {name: server.url for name, server in servers.items()}
        config = rig.write_config(work, broker.port, cameras, free_port())
        started = time.monotonic()
        next_kill, next_broker, victim = started + 60, started + 300, 0
        calm_from = started + seconds - CALM_AT_THE_END_S
        with rig.device(config, work / "device.log") as process:
            while time.monotonic() - started < seconds:
                time.sleep(SAMPLE_S)
                if next_kill <= time.monotonic() < calm_from:
                    name = f"cam{victim % 2}"
                    servers[name].kill()
                    time.sleep(CAMERA_AWAY_S)
                    servers[name].start()
                    restarts.append((name, time.time()))
                    next_kill, victim = next_kill + 60, victim + 1
                if next_broker <= time.monotonic() < calm_from:
                    broker.stop()
                    time.sleep(BROKER_AWAY_S)
                    broker.start()
                    next_broker, broker_restarts = next_broker + 300, broker_restarts + 1
                if time.monotonic() - started > min(WARM_UP_S, seconds / 4):
                    samples.append(rig.resource_usage(process.pid))
        time.sleep(2.0)  # the broker delivers queued messages
        messages = []
        while not subscriber.messages.empty():
            messages.append(subscriber.messages.get())
    return score(messages, samples, restarts) | {"broker_restarts": broker_restarts}


def score(messages: list[Any], samples: list[dict[str, float]], restarts: list[tuple[str, float]]) -> dict[str, Any]:
    """Score the messages that the subscriber received, and the resource use of the device."""
    from benchmarks import rig

    events: dict[str, dict[str, Any]] = {}
    repeated = 0
    online: list[tuple[str, float]] = []
    states: dict[str, set[str]] = {}
    for message in messages:
        camera, leaf = message.topic.split("/")[-2:]
        if leaf == "events":
            event = json.loads(message.payload)
            repeated += event["id"] in events
            events.setdefault(event["id"], event)
        elif leaf == "status":
            state = json.loads(message.payload)["state"]
            states.setdefault(camera, set()).add(state)
            if state == "online":
                online.append((camera, datetime.fromisoformat(json.loads(message.payload)["since"]).timestamp()))
    new_tracks = {(e["camera"], e["track_id"]) for e in events.values() if e["type"] == "new"}
    ended = {(e["camera"], e["track_id"]) for e in events.values() if e["type"] == "end"}
    waits = [min((at - back for name, at in online if name == camera and at > back), default=float("inf"))
             for camera, back in restarts]  # fmt: skip
    return {
        "events": len(events),
        "tracks": len(new_tracks),
        "tracks_without_end": len(new_tracks - ended),
        "historical": sum(event["historical"] for event in events.values()),
        "ids_repeated": repeated,
        "camera_restarts": len(restarts),
        "back_online_s": {
            "longest": round(max(waits), 2),
            "p95": round(sorted(waits)[len(waits) * 95 // 100], 2),
            "median": round(sorted(waits)[len(waits) // 2], 2),
        },
        "states": {camera: sorted(found) for camera, found in sorted(states.items())},
        "resident_mib": {"first": round(samples[0]["resident_mib"], 1), "last": round(samples[-1]["resident_mib"], 1)},
        "resident_mib_by_minute": [round(sample["resident_mib"], 1) for sample in samples[:: round(60 / SAMPLE_S)]],
        "resident_mib_per_hour": round(rig.slope_per_hour(samples, "resident_mib"), 2),
        "threads": [min(s["threads"] for s in samples), max(s["threads"] for s in samples)],
        "threads_per_hour": round(rig.slope_per_hour(samples, "threads"), 2),
        "files": [min(s["files"] for s in samples), max(s["files"] for s in samples)],
        "files_per_hour": round(rig.slope_per_hour(samples, "files"), 2),
        "cores": round(
            (samples[-1]["processor_s"] - samples[0]["processor_s"]) / (samples[-1]["at_s"] - samples[0]["at_s"]), 3
        ),
    }


if __name__ == "__main__":
    main()
