"""Processor time of reading a camera's H.264 in 1080p and 4K: as it comes, and scaled down by `max_px`.

    git worktree add /tmp/before COMMIT && ln -s "$PWD/.venv" /tmp/before/.venv
    python benchmarks/capture.py [--before /tmp/before] [--rounds 5]

The demo's stream, enlarged and encoded in advance, as a file: nothing but the decoder sets the pace. Milliseconds of
the whole process for each frame, medians; `capture` decodes, scales, converts and copies, `device` also detects, tracks
and recognises with the demo's bundle. The checkouts take turns. Writes benchmarks/results/capture.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
SIZES = {"1080p": (1920, 1080), "4K": (3840, 2160)}
VARIANTS: tuple[tuple[str, int | None], ...] = (
    ("gstreamer", None),
    ("gstreamer", 1280),
    ("gstreamer", 640),
    ("opencv", None),
    ("opencv", 640),
)
FPS, FRAMES, WARM_UP = 5, 25, 5


def main() -> None:
    """Measure the checkouts in turn and write the report."""
    from benchmarks import rig

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout to measure beside this one")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each checkout; default: %(default)s")
    arguments = parser.parse_args()
    work = ROOT / "runs/capture"
    work.mkdir(parents=True, exist_ok=True)
    clips = {name: str(rig.encode_clip(work, *size, FPS, 20)) for name, size in SIZES.items()}
    checkouts = {"before": arguments.before, "after": ROOT} if arguments.before else {"after": ROOT}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in checkouts}
    for _ in range(arguments.rounds):
        for name, checkout in checkouts.items():
            command = [sys.executable, str(Path(__file__).resolve()), "child", json.dumps(clips)]
            environment = os.environ | {"PYTHONPATH": str(checkout)}
            done = subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, check=True)
            for case, value in json.loads(done.stdout).items():
                found[name].setdefault(case, []).append(value)
    report = {
        name: {case: round(statistics.median(values), 1) for case, values in cases.items()}
        for name, cases in found.items()
    }
    rig.write_report({"unit": "ms of processor time per frame", **report}, ROOT / "benchmarks/results/capture.json")


def child(clips: dict[str, str]) -> None:
    """Measure every variant that the checkout knows, and print the milliseconds."""
    sys.path[0] = os.environ["PYTHONPATH"]
    from edge.capture.frame_source import CaptureOptions
    from edge.imaging import image

    image.set_threads(1)
    recognise = _recogniser()
    knows_max_px = hasattr(CaptureOptions(), "max_px")
    found = {}
    for size, clip in clips.items():
        for backend, max_px in VARIANTS:
            if max_px is not None and not knows_max_px:
                continue
            options = CaptureOptions(max_px=max_px) if max_px is not None else CaptureOptions()
            case = f"{size} {backend}" + (f" max_px {max_px}" if max_px is not None else "")
            found[f"{case}: capture"] = _measure(clip, backend, options, lambda *_: None)
            found[f"{case}: device"] = _measure(clip, backend, options, recognise)
    print(json.dumps(found))


def _measure(clip: str, backend: Any, options: Any, recognise: Any) -> float:
    from edge.capture.open_source import open_source
    from edge.config.camera_url import parse_source

    with closing(open_source(parse_source(f"file://{clip}"), backend, options)) as source:
        for number in range(WARM_UP + FRAMES):
            if number == WARM_UP:
                began_s = time.process_time()
            picture = None
            while picture is None:
                picture = source.read(5.0)
            recognise(number, picture)
        return 1e3 * (time.process_time() - began_s) / FRAMES


def _recogniser() -> Any:
    from edge.build import load_models
    from edge.config.schema import CameraConfig, EngineConfig, RecognitionConfig
    from edge.telemetry.counters import Counters
    from edge.types import Frame

    try:
        from edge.frame_loop import build_pipeline
    except ImportError:  # an older checkout
        from edge.build import build_pipeline  # type: ignore[attr-defined,no-redef]
    models = load_models(ROOT / "demo/bundle", ROOT / "demo/gallery", EngineConfig(backend="onnxruntime"))
    camera = CameraConfig(source="file:///clip.mp4")
    pipeline = build_pipeline(models, RecognitionConfig(looks_per_s=6), {"cam": camera}, Counters())

    def recognise(number: int, picture: Any) -> None:
        at_s = number / FPS
        frame = Frame("cam", number, picture.image_rgb, int(1e9 * at_s), at_s, "file", at_s)
        pipeline.process(frame, pipeline.detect([frame])[0])

    return recognise


if __name__ == "__main__":
    child(json.loads(sys.argv[2])) if sys.argv[1:2] == ["child"] else main()
