"""What surrounds the models: processor time of whole frames over that of the bare engines, before and after a change.

    git worktree add /tmp/before COMMIT && ln -s "$PWD/.venv" /tmp/before/.venv
    python benchmarks/frame_path.py --before /tmp/before [--cases demo 720p 1080p yolox] [--blocks 7]

`before` is another checkout; without it only this one is measured. Each checkout runs in a process of its own, on one
thread, and the two take turns block by block. A block is one pass over a clip, by a new pipeline, in stream time, with
the rules of configs/demo.yaml: `process` is the thread's processor time in `Pipeline.process`, decoding and scaling of
the clip excluded. `engines` is the same for the bare engines: each call that ONNX Runtime received in a first pass of
that checkout, again on its ready input. So both run the same models equally often, and the ratio is what the frame path
costs. `overhead` is process minus engines of one frame, in medians over the blocks.

Cases: the demo's stream at 640x360, 720p and 1080p, and YOLOX-nano with the demo's other models on a real video of
bottles (data). Writes benchmarks/results/frame_path.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("FINESIGHT_DATA", ROOT / "../shared/data")).resolve()
CASES = {"demo": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080), "yolox": (640, 360)}
YOLOX_FRAMES = 80
OBJECTS = 3  # in the frames whose overhead is reported


def main() -> None:
    """Measure both checkouts in alternation and write the report."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.rig import write_report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout to measure beside this one")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--blocks", type=int, default=7, help="passes of each checkout over each clip; default: 7")
    arguments = parser.parse_args()
    checkouts = {"before": arguments.before, "after": ROOT} if arguments.before else {"after": ROOT}
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        yolox = yolox_bundle(Path(folder)) if "yolox" in arguments.cases else None
        for case in arguments.cases:
            workers = {name: Worker(checkout.resolve(), case, yolox) for name, checkout in checkouts.items()}
            passes: dict[str, list[dict[str, list[int]]]] = {name: [] for name in workers}
            for _ in range(arguments.blocks):
                for name, worker in workers.items():
                    passes[name].append(worker.measure())
            for worker in workers.values():
                worker.close()
            report[case] = {name: summary(blocks) for name, blocks in passes.items()}
            print(case, json.dumps(report[case]), flush=True)
    if arguments.before and set(arguments.cases) == set(CASES):
        write_report(report, ROOT / "benchmarks/results/frame_path.json")


def summary(blocks: list[dict[str, list[int]]]) -> dict[str, float | int]:
    """Return the medians over the blocks of one checkout."""
    process, engines = (
        [median(frame) for frame in zip(*(b[k] for b in blocks), strict=True)] for k in ("process", "engines")
    )
    busy = sorted(p - e for p, e, n in zip(process, engines, blocks[0]["objects"], strict=True) if n >= OBJECTS)
    return {
        "process_over_engines": round(median(sum(b["process"]) / sum(b["engines"]) for b in blocks), 3),
        "process_ms": round(sum(process) / len(process) / 1e6, 3),
        "engines_ms": round(sum(engines) / len(engines) / 1e6, 3),
        "overhead_p50_ms": round(busy[len(busy) // 2] / 1e6, 3),
        "overhead_p95_ms": round(busy[int(0.95 * len(busy))] / 1e6, 3),
        "frames_with_three_objects": len(busy),
        "engine_runs": blocks[0]["runs"][0],
    }


class Worker:
    """A process of one checkout that measures one block at a time."""

    def __init__(self, checkout: Path, case: str, yolox: Path | None) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", case, str(yolox or "")]
        environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, cwd=checkout, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def measure(self) -> dict[str, list[int]]:
        """Return nanoseconds of each frame of one block, as a whole and in the bare engines, and its objects."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("block\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        return json.loads(line) if line else sys.exit("a worker failed; its error is above")

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def yolox_bundle(folder: Path) -> Path:
    """Return the demo's bundle with YOLOX-nano as its detector."""
    model = DATA / "weights/yolox_nano_coco_416.onnx"
    if not model.is_file():
        sys.exit(f"{model} is missing; set FINESIGHT_DATA to the folder that holds it, or leave the case out")
    bundle = folder / "bundle"
    shutil.copytree(ROOT / "demo/bundle", bundle)
    manifest = json.loads((bundle / "bundle.json").read_text())
    name = "models/yolox.fp32.onnx"
    shutil.copyfile(model, bundle / name)
    data = model.read_bytes()
    manifest["files"].append({"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    labels = ["bottle" if i == 39 else f"coco-{i}" for i in range(80)]
    size = {"width": 416, "height": 416, "resize": "letterbox", "layout": "nchw", "dtype": "float32", "colour": "bgr"}
    model_file = {"files": {"fp32": name}, "ship": "fp32", "max_batch": 1, "input_name": "images"}
    rules = {"keep_labels": ["bottle"], "score_threshold": 0.25, "iou_threshold": 0.5}
    decoder = {"output_names": ["output"], "decoder": "yolox", "strides": [8, 16, 32], "labels": labels}
    manifest["detector"] = model_file | {"preprocess": size} | decoder | rules
    manifest["scene_probes"] = []
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    return bundle


def work(case: str, yolox: str) -> None:
    """Measure one block of a case whenever a line comes in; in the checkout that PYTHONPATH names."""
    import cv2
    import numpy as np

    from edge.build import load_models
    from edge.config.yaml_file import load_config
    from edge.inference.onnxruntime_engine import OnnxRuntimeEngine
    from edge.recognition.pipeline import Pipeline
    from edge.telemetry.counters import Counters
    from edge.types import Frame

    cv2.setNumThreads(1)
    config = load_config(ROOT / "configs/demo.yaml", {})
    camera = next(iter(config.cameras.values()))
    engine = config.engine.model_copy(update={"threads": 1})
    models = load_models(Path(yolox) if case == "yolox" else ROOT / "demo/bundle", ROOT / "demo/gallery", engine)
    video = DATA / "video/bottle-detection.mp4" if case == "yolox" else ROOT / "demo/stream.mp4"
    pictures, fps = decoded(video, YOLOX_FRAMES if case == "yolox" else 10**9)
    shown_ns = [0]
    calls: list[tuple[int, Any, Any]] = []
    now = [0]

    def one_pass() -> tuple[list[int], list[int]]:
        pipeline = Pipeline(models, {"clip": camera}, config.recognition, Counters(), lambda: shown_ns[0])
        spent, objects = [], []
        for index, picture in enumerate(pictures):
            image_rgb = picture
            if (picture.shape[1], picture.shape[0]) != CASES[case]:
                image_rgb = cv2.resize(picture, CASES[case], interpolation=cv2.INTER_CUBIC)
            now[0], shown_ns[0] = index, round(1e9 * (index + 1) / fps)
            frame = Frame("clip", index, image_rgb, shown_ns[0], shown_ns[0] / 1e9, "file", index / fps)
            started_ns = time.thread_time_ns()
            result = pipeline.process(frame)
            spent.append(time.thread_time_ns() - started_ns)
            objects.append(len(result.objects))
        return spent, objects

    run = OnnxRuntimeEngine._run  # noqa: SLF001

    def recorded(self: Any, batch: Any) -> Any:
        calls.append((now[0], self, np.array(batch)))
        return run(self, batch)

    OnnxRuntimeEngine._run = recorded  # type: ignore[method-assign]  # noqa: SLF001
    one_pass()
    OnnxRuntimeEngine._run = run  # type: ignore[method-assign]  # noqa: SLF001
    for _ in sys.stdin:
        process, objects = one_pass()
        engines = [0] * len(pictures)
        for index, one, batch in calls:
            session, feeds = one._session, {one.input_name: batch}  # noqa: SLF001
            started_ns = time.thread_time_ns()
            session.run(None, feeds)
            engines[index] += time.thread_time_ns() - started_ns
        answer = {"process": process, "engines": engines, "objects": objects, "runs": [len(calls)]}
        print(json.dumps(answer), flush=True)


def decoded(video: Path, most: int) -> tuple[list[Any], float]:
    """Return the frames of a video, RGB, and its frames per second."""
    import cv2

    capture = cv2.VideoCapture(str(video))
    frames = []
    while len(frames) < most and (found := capture.read())[0]:
        frames.append(cv2.cvtColor(found[1], cv2.COLOR_BGR2RGB))
    return frames, capture.get(cv2.CAP_PROP_FPS)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
    else:
        main()
