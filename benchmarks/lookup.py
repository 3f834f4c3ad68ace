"""Latency of a look-up over HTTP: a JPEG picture of one megapixel, on a kiosk with a running camera.

    python benchmarks/lookup.py [--requests 200]

Writes benchmarks/results/lookup.json.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
WIDTH, HEIGHT = 1152, 868  # one megapixel


def main() -> None:
    """Measure the requests and write the report."""
    from benchmarks import rig
    from edge.capture.open_source import open_source
    from edge.config.camera_url import parse_source
    from edge.imaging.image import encode_image, resize
    from tests.integration.mosquitto import Mosquitto, free_port
    from tests.integration.rtsp_server import RtspServer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200, help="number of requests; default: %(default)s")
    arguments = parser.parse_args()
    frame = open_source(parse_source(f"file://{rig.DEMO / 'stream.mp4'}")).read(5.0).image_rgb
    picture = encode_image(resize(frame, WIDTH, HEIGHT, "area"), ".jpg")
    work = ROOT / "runs/lookup"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    rig.install_demo(work / "state")
    clip = rig.encode_clip(ROOT / "runs", 640, 360, 5, 120)
    kiosk_port, health_port = free_port(), free_port()
    took_ms: list[float] = []
    statuses: Counter[int] = Counter()
    with ExitStack() as stack:
        broker = stack.enter_context(Mosquitto(work / "broker"))
        server = stack.enter_context(RtspServer(f"encoded:{clip}"))
        more = f"kiosk: {{camera: counter, port: {kiosk_port}}}"
        config = rig.write_config(work, broker.port, {"counter": server.url}, health_port, more)
        config.write_text(config.read_text().replace("gstreamer}", "gstreamer, framing: whole_frame}"))
        stack.enter_context(rig.device(config, work / "device.log"))
        for number in range(arguments.requests + 10):
            connection = _connect(kiosk_port)
            started = time.perf_counter()
            connection.request("POST", "/v1/lookup", picture, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            body = response.read()
            if number >= 10:  # after the warm-up
                took_ms.append(1e3 * (time.perf_counter() - started))
                statuses[response.status] += 1
            connection.close()
    report = {
        "picture": f"{WIDTH}x{HEIGHT} JPEG, {len(picture)} bytes",
        "answer": json.loads(body),
        "statuses": dict(statuses),
        "took": rig.summary(took_ms),
    }
    rig.write_report(report, ROOT / "benchmarks/results/lookup.json")


def _connect(port: int) -> http.client.HTTPConnection:
    """Open a new connection, as other programs do; wait until the kiosk listens."""
    deadline = time.monotonic() + 20
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.connect()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return connection


if __name__ == "__main__":
    main()
