"""Helpers of the runtime benchmarks: an encoded clip, a running device, its resource use, the report file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
DEMO = ROOT / "demo"


def encode_clip(folder: Path, width: int, height: int, fps: int, seconds: int) -> Path:
    """Encode the demo's stream, scaled and repeated to the given length, as H.264 with a key frame every 2 s."""
    path = folder / f"clip-{width}x{height}-{fps}-{seconds}s.mp4"
    if path.exists():
        return path
    shown_s = 20  # length of the demo's stream
    parts = [
        f"filesrc location={DEMO / 'stream.mp4'} ! decodebin ! videoconvert ! videoscale ! videorate ! "
        f"video/x-raw,format=I420,width={width},height={height},framerate={fps}/1 ! queue ! clips."
        for _ in range(-(-seconds // shown_s))
    ]
    encoder = f"x264enc tune=zerolatency speed-preset=veryfast pass=quant quantizer=23 key-int-max={2 * fps}"
    line = f"concat name=clips ! {encoder} ! h264parse ! mp4mux ! filesink location={path}.part {' '.join(parts)}"
    _play(line)
    path.with_suffix(".mp4.part").rename(path)
    return path


def _play(line: str) -> None:
    """Run a GStreamer pipeline to its end."""
    import gi

    gi.require_version("Gst", "1.0")
    from gi.repository import Gst

    Gst.init(None)
    pipeline = Gst.parse_launch(line)
    pipeline.set_state(Gst.State.PLAYING)
    ended = Gst.MessageType.EOS | Gst.MessageType.ERROR
    message = pipeline.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, ended)
    pipeline.set_state(Gst.State.NULL)
    if message.type == Gst.MessageType.ERROR:
        sys.exit(f"{line}: {message.parse_error()[0].message}")


def install_demo(state: Path) -> None:
    """Install and activate the demo's bundle and gallery."""
    from edge.bundle import slots
    from edge.bundle.install import install_bundle, install_gallery

    slot = install_bundle(DEMO / "bundle", state)
    slots.activate(state, slot, install_gallery(DEMO / "gallery", state))


def write_config(folder: Path, broker_port: int, cameras: dict[str, str], health_port: int, more: str = "") -> Path:
    """Write the configuration of a device with these cameras, given as name to URL."""
    lines = [
        "site: bench",
        "device: rig",
        f"state_dir: {folder / 'state'}",
        f"mqtt: {{host: 127.0.0.1, port: {broker_port}}}",
        f"health: {{port: {health_port}}}",
        more,
        "cameras:",
        *(f"  {name}: {{source: '{url}', backend: gstreamer}}" for name, url in cameras.items()),
    ]
    path = folder / "device.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


@contextmanager
def device(config: Path, log: Path, root: Path = ROOT) -> Iterator[subprocess.Popen[bytes]]:
    """Run `edge run` of a checkout, and terminate it at the end."""
    with log.open("wb") as output:
        command = [sys.executable, "-m", "edge", "run", "-c", str(config)]
        process = subprocess.Popen(command, cwd=root, stderr=output, env={**os.environ, "PYTHONPATH": str(root)})
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def resource_usage(pid: int) -> dict[str, float]:
    """Return resident MiB, threads, open files and CPU seconds of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return {
        "at_s": time.monotonic(),
        "resident_mib": int(status["VmRSS"].split()[0]) / 1024,
        "threads": int(status["Threads"]),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "processor_s": (int(ticks[11]) + int(ticks[12])) / 100,
    }


def slope_per_hour(samples: list[dict[str, float]], key: str) -> float:
    """Return the least-squares slope of a resource over time."""
    import numpy as np

    at_h = np.array([sample["at_s"] for sample in samples]) / 3600
    return float(np.polyfit(at_h - at_h[0], [sample[key] for sample in samples], 1)[0])


def write_report(report: dict[str, Any], out: Path) -> None:
    """Print a report and write it with machine and date."""
    from benchmarks.grocery import machine

    text = json.dumps(report | {"date": date.today().isoformat(), "machine": machine()}, indent=1)  # noqa: DTZ011
    print(text)
    out.write_text(text + "\n")


def summary(milliseconds: list[float]) -> dict[str, Any]:
    """Return count and percentiles."""
    from edge.telemetry.timing import percentile

    ascending = sorted(milliseconds)
    return {"count": len(ascending)} | {
        f"p{p}_ms": round(percentile(ascending, p), 1) if ascending else None for p in (50, 95, 99)
    }
