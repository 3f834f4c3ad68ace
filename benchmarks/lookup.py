"""Look-ups over HTTP, before and after: a JPEG of one megapixel, on a kiosk with a running camera.

    python benchmarks/lookup.py [--before FOLDER] [--rounds 7]

Runs the kiosk of this checkout and, with --before, that of another one, in alternation: each round sends every kiosk
the same look-ups, first one at a time, then from 16 clients at once. Processor time is that of the device's process,
less what its camera costs at rest. Writes benchmarks/results/lookup.json.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
SIZES = {"1152x868": 60, "4032x3024": 6}  # one and twelve megapixels; requests of one client in a round
CLIENTS, LOAD_S, REST_S = 16, 4.0, 3.0
WARM_UP_S = 4.0
PAUSE_S = 0.25  # between two requests for the page during the load


@dataclass
class Kiosk:
    """A running device with a kiosk, and what was measured of it."""

    pid: int
    port: int
    health_port: int
    answer: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, list[float]] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)

    def add(self, name: str, value: float) -> None:
        """Add what one round measured."""
        self.measured.setdefault(name, []).append(value)

    def processor_s(self) -> float:
        """Return the processor time of the device's process so far (clock_getcpuclockid)."""
        return time.clock_gettime(~self.pid << 3 | 2)

    def frames(self) -> dict[str, float]:
        """Return what the device counted of its frames, and the seconds it spent on them."""
        connection = http.client.HTTPConnection("127.0.0.1", self.health_port, timeout=10)
        connection.request("GET", "/metrics")
        totals: Counter[str] = Counter()
        for line in connection.getresponse().read().decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name.startswith(("finesight_frames_recognised_total", "finesight_frames_dropped_total")):
                totals[name.partition("{")[0].removeprefix("finesight_frames_").removesuffix("_total")] += float(value)
            elif name.startswith("finesight_stage_seconds_sum") and not any(
                f'stage="{other}' in name for other in ("lookup", "capture_to", "publish")
            ):
                totals["stage_s"] += float(value)
        connection.close()
        return dict(totals)


def main() -> None:
    """Measure the kiosks and write the report."""
    from benchmarks import rig
    from edge.capture.open_source import open_source
    from edge.config.camera_url import parse_source
    from edge.imaging.image import encode_image, resize
    from tests.integration.mosquitto import Mosquitto
    from tests.integration.rtsp_server import RtspServer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout, to compare with; default: none")
    parser.add_argument("--rounds", type=int, default=7, help="number of alternations; default: %(default)s")
    arguments = parser.parse_args()
    frame = open_source(parse_source(f"file://{rig.DEMO / 'stream.mp4'}")).read(5.0).image_rgb
    pictures = {}
    for size in SIZES:
        width, height = map(int, size.split("x"))
        pictures[size] = encode_image(resize(frame, width, height, "area"), ".jpg")
    work = ROOT / "runs/lookup"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    clip = rig.encode_clip(ROOT / "runs", 640, 360, 5, 120)
    roots = {"before": arguments.before, "after": ROOT}
    with ExitStack() as stack:
        broker = stack.enter_context(Mosquitto(work / "broker"))
        camera = stack.enter_context(RtspServer(f"encoded:{clip}"))
        kiosks = {
            name: start(stack, root, work / name, broker.port, camera.url)
            for name, root in roots.items()
            if root is not None
        }
        for kiosk in kiosks.values():
            look_up(kiosk, pictures["1152x868"], 10)  # a warm-up
        time.sleep(WARM_UP_S)  # of the camera
        for number in range(arguments.rounds):
            for kiosk in list(kiosks.values())[:: 1 if number % 2 else -1]:
                measure(kiosk, pictures)
        report: dict[str, Any] = {
            "pictures": {size: len(picture) for size, picture in pictures.items()},
            "answer": kiosks["after"].answer,
            **{name: summary(kiosk) for name, kiosk in kiosks.items()},
        }
        if "before" in kiosks:
            report["after / before"] = {
                name: round(value / report["before"][name], 3)
                for name, value in report["after"].items()
                if isinstance(value, float) and report["before"].get(name)
            }
    rig.write_report(report, ROOT / "benchmarks/results/lookup.json")


def start(stack: ExitStack, root: Path, work: Path, broker_port: int, camera_url: str) -> Kiosk:
    """Start the device of a checkout."""
    from benchmarks import rig
    from tests.integration.mosquitto import free_port

    work.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(root)}
    install = (
        "import sys; from pathlib import Path; from benchmarks.rig import install_demo; install_demo(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", install, work / "state"], cwd=root, env=environment, check=True)
    port, health_port = free_port(), free_port()
    more = f"kiosk: {{camera: counter, port: {port}}}"
    config = rig.write_config(work, broker_port, {"counter": camera_url}, health_port, more)
    config.write_text(config.read_text().replace("gstreamer}", "gstreamer, framing: whole_frame}"))
    process = stack.enter_context(rig.device(config, work / "device.log", root))
    return Kiosk(process.pid, port, health_port)


def measure(kiosk: Kiosk, pictures: dict[str, bytes]) -> None:
    """Measure one kiosk for one round."""
    before_s, before, started_s = kiosk.processor_s(), kiosk.frames(), time.monotonic()
    time.sleep(REST_S)
    at_rest = (kiosk.processor_s() - before_s) / (time.monotonic() - started_s)
    kiosk.add("at rest: cores", at_rest)
    add_frames(kiosk, "at rest", before, time.monotonic() - started_s)
    for size, requests in SIZES.items():
        before_s, started_s = kiosk.processor_s(), time.monotonic()
        took_ms = look_up(kiosk, pictures[size], requests)
        used_s = kiosk.processor_s() - before_s - at_rest * (time.monotonic() - started_s)
        kiosk.add(f"{size}, 1 client: processor ms", 1e3 * used_s / requests)
        add_latencies(kiosk, f"{size}, 1 client", took_ms)
    load(kiosk, pictures["1152x868"], at_rest)


def load(kiosk: Kiosk, picture: bytes, at_rest: float) -> None:
    """Send look-ups from many clients at once, and ask for the page and the health meanwhile."""
    took_ms: list[float] = []
    statuses: Counter[int] = Counter()
    before_s, before, started_s = kiosk.processor_s(), kiosk.frames(), time.monotonic()
    end_s = started_s + LOAD_S

    def client() -> None:
        while time.monotonic() < end_s:
            status, elapsed_ms, _ = ask(kiosk.port, "/v1/lookup", picture)
            statuses[status] += 1
            if status == 200:
                took_ms.append(elapsed_ms)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    others_ms: dict[str, list[float]] = {"page": [], "health": []}
    while time.monotonic() < end_s:
        others_ms["page"].append(ask(kiosk.port, "/")[1])
        others_ms["health"].append(ask(kiosk.health_port, "/healthz")[1])
        time.sleep(PAUSE_S)
    for thread in threads:
        thread.join()
    elapsed_s = time.monotonic() - started_s
    used_s = kiosk.processor_s() - before_s - at_rest * elapsed_s
    kiosk.statuses += statuses
    name = f"{CLIENTS} clients"
    kiosk.add(f"{name}: answers/s", len(took_ms) / elapsed_s)
    kiosk.add(f"{name}: refused", statuses[503])
    kiosk.add(f"{name}: processor ms", 1e3 * used_s / max(1, len(took_ms)))
    add_latencies(kiosk, name, took_ms)
    for what, elapsed_ms in others_ms.items():
        kiosk.add(f"{name}: {what}, longest ms", max(elapsed_ms))
    add_frames(kiosk, name, before, elapsed_s)


def look_up(kiosk: Kiosk, picture: bytes, requests: int) -> list[float]:
    """Send look-ups one at a time; return the milliseconds of each."""
    took_ms = []
    for _ in range(requests):
        status, elapsed_ms, body = ask(kiosk.port, "/v1/lookup", picture)
        if status != 200:
            sys.exit(f"a look-up failed with status {status}: {body!r}")
        took_ms.append(elapsed_ms)
        kiosk.answer = json.loads(body)
    return took_ms


def ask(port: int, path: str, body: bytes | None = None) -> tuple[int, float, bytes]:
    """Send one request on a new connection, as other programs do; return status, milliseconds and body."""
    deadline_s = time.monotonic() + 20
    while True:
        started_s = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST" if body else "GET", path, body, {"Content-Type": "image/jpeg"} if body else {})
            response = connection.getresponse()
            return response.status, 1e3 * (time.perf_counter() - started_s), response.read()
        except ConnectionRefusedError:  # the kiosk is starting
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.1)
        finally:
            connection.close()


def add_latencies(kiosk: Kiosk, name: str, took_ms: list[float]) -> None:
    """Add the latencies of one round."""
    from edge.telemetry.timing import percentile

    for percent in (50, 95):
        kiosk.add(f"{name}: p{percent} ms", percentile(sorted(took_ms), percent))


def add_frames(kiosk: Kiosk, name: str, before: dict[str, float], elapsed_s: float) -> None:
    """Add what became of the camera's frames since `before`."""
    now = kiosk.frames()
    recognised, dropped, stage_s = (
        now.get(key, 0) - before.get(key, 0) for key in ("recognised", "dropped", "stage_s")
    )
    kiosk.add(f"{name}: frames/s recognised", recognised / elapsed_s)
    kiosk.add(f"{name}: frames dropped", dropped)
    kiosk.add(f"{name}: ms a frame", 1e3 * stage_s / max(1.0, recognised))


def summary(kiosk: Kiosk) -> dict[str, Any]:
    """Return the medians over the rounds; of what must not happen, the sum."""
    report: dict[str, Any] = {}
    for name, values in kiosk.measured.items():
        is_sum = name.endswith(("refused", "dropped"))
        report[name] = int(sum(values)) if is_sum else float(round(median(values), 2))
    return report | {"rounds": len(kiosk.measured["at rest: cores"]), "statuses of the load": dict(kiosk.statuses)}


if __name__ == "__main__":
    main()
