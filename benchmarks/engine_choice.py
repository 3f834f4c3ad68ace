"""How often the short trial of `edge bundle prove` chooses what a full measurement would.

    python benchmarks/engine_choice.py [--runs 1000] [--trials 5] [BUNDLE ...]

Without bundles: demo/bundle, and one of MobileNetV2 (224 px, random weights) and YOLOX-nano, in FP32 and ORT-U8,
calibrated on the demo's probe pictures. Each bundle is tried several times, as at an activation. Then every engine and
form that passed runs 1,000 times on one picture and 250 times on four crops, in turn, ten runs at a time, on each CPU
in turn. The measure of both is CPU time; the full measurement is judged by the median and by the fastest tenth. A
decision is right if what was chosen is at most 5 % slower than the best. Writes benchmarks/results/engine_choice.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("FINESIGHT_DATA", ROOT.parent / "shared/data"))
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from benchmarks.grocery import machine  # noqa: E402
from edge.bundle.bundle import Bundle, read_bundle  # noqa: E402
from edge.bundle.choose_engines import TrialOptions, choose_engines  # noqa: E402
from edge.bundle.judge import Judge  # noqa: E402
from edge.bundle.trial_process import TrialProcess  # noqa: E402
from edge.bundle.trial_times import fast_ms  # noqa: E402
from edge.inference.engine_choice import EngineChoice, Model, models_of  # noqa: E402
from edge.manifest.stages import DetectorModel  # noqa: E402

_SLICE = 10
_ROWS = 4
_RIGHT = 1.05


def main() -> None:
    """Measure every bundle and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="*", type=Path)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/engine_choice.json")
    arguments = parser.parse_args()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folders = arguments.bundles or [ROOT / "demo/bundle", larger_networks(Path(scratch))]
        for folder in folders:
            bundle = read_bundle(folder)
            rows[bundle.manifest.bundle_id] = measure(bundle, arguments.trials, arguments.runs)
    counts = {kind: Counter(verdict for row in rows.values() for verdict in verdicts(row, kind)) for kind in _MEASURES}
    report = {
        "right": {kind: f"{count[True]} of {count.total()}" for kind, count in counts.items()},
        "bundles": rows,
        "runs": arguments.runs,
        "load_average": os.getloadavg(),
        "onnxruntime": version("onnxruntime"),
        "openvino": version("openvino"),
        "date": date.today().isoformat(),  # noqa: DTZ011
        "machine": machine(),
    }
    print(report["right"])
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


_MEASURES = {"median": lambda ms: float(np.median(ms)), "fastest_tenth": fast_ms}


def measure(bundle: Bundle, trials: int, runs: int) -> dict[str, Any]:
    """Try a bundle several times, measure it in full, and compare."""
    choices, seconds = [], []
    for number in range(trials):
        started = time.monotonic(), time.process_time()
        choices.append(choose_engines(bundle.folder, bundle.manifest, TrialOptions()))
        seconds.append(round(time.monotonic() - started[0], 1))
        print(f"{bundle.manifest.bundle_id}: trial {number + 1}, {seconds[-1]} s", flush=True)
    models = {}
    for name, model in models_of(bundle.manifest).items():
        scores = in_full(bundle, name, model, choices[0], runs)
        chosen = [f"{one.models[name].backend} {one.models[name].form}" for one in choices]
        out = {str(one): one.problem for one in choices[0].models[name].tried if one.problem}
        models[name] = {"chosen": chosen, "full_ms": scores, "out": out}
        print(name, models[name], flush=True)
    return {"trial_s": seconds, "models": models}


def in_full(bundle: Bundle, name: str, model: Model, choice: EngineChoice, runs: int) -> dict[str, dict[str, float]]:
    """Return the score of every engine and form that passed, by measure."""
    judge = Judge(bundle.folder, bundle.manifest)
    passed = [one for one in choice.models[name].tried if one.problem is None]
    batches = [(1, runs)] if isinstance(model, DetectorModel) else [(1, runs), (_ROWS, runs // 4)]
    taken: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        processes = {name: stack.enter_context(TrialProcess(name)) for name in {one.backend for one in passed}}
        engines = {
            str(one): processes[one.backend].open(bundle.folder / model.every_file[one.form], 1, model.max_batch, None)
            for one in passed
        }
        for rows, wanted in batches:
            batch = judge.batch(model, rows)
            for turn in range(-(-wanted // _SLICE)):
                for pair, engine in engines.items():
                    taken.setdefault((pair, rows), []).extend(engine.time_ms(batch, _SLICE, on_cpu=turn))
    return {
        measure: {
            pair: round(sum(score(taken[pair, rows]) / rows for rows, _ in batches) / len(batches), 4)
            for pair in engines
        }
        for measure, score in _MEASURES.items()
    }


def verdicts(row: dict[str, Any], kind: str) -> Iterator[bool]:
    """Yield for each decision whether it was right."""
    for model in row["models"].values():
        scores = model["full_ms"][kind]
        yield from (scores[one] <= min(scores.values()) * _RIGHT for one in model["chosen"])


def larger_networks(folder: Path) -> Path:
    """Write a bundle of MobileNetV2 and YOLOX-nano, without probes."""
    from benchmarks.int8_speed import exported
    from edge.imaging.image import read_image
    from edge.inference.preprocess import to_batch, to_canvas
    from edge.manifest.model import Preprocess
    from edge.manifest.stages import ClassifierModel
    from quantize.forms import calibrate, ort_u8

    out = folder / "networks"
    out.mkdir()
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    classifier = ClassifierModel(
        files={"fp32": "mobilenetv2.fp32.onnx", "ort-u8": "mobilenetv2.ort-u8.onnx"},
        input_name="image",
        output_names=["logits"],
        preprocess=Preprocess(width=224, height=224, resize="letterbox", **imagenet),
        labels=[str(number) for number in range(1000)],
        max_batch=8,
    )
    detector = DetectorModel(
        files={"fp32": "yolox.fp32.onnx", "ort-u8": "yolox.ort-u8.onnx"},
        input_name="images",
        output_names=["output"],
        preprocess=Preprocess(width=416, height=416, resize="letterbox", layout="nchw", dtype="float32", colour="bgr"),
        decoder="yolox",
        strides=[8, 16, 32],
        labels=[str(number) for number in range(80)],
        score_threshold=0.3,
    )
    shutil.copyfile(exported("mobilenetv2_100", folder / "exported.onnx"), out / classifier.files["fp32"])
    shutil.copyfile(DATA / "weights/yolox_nano_coco_416.onnx", out / detector.files["fp32"])
    pictures = [read_image(path) for path in sorted((ROOT / "demo/bundle/probes").iterdir())]
    for model in (classifier, detector):
        batches = [to_batch(model.preprocess, [to_canvas(model.preprocess, picture)[0]]) for picture in pictures]
        prepared = folder / "prepared.onnx"
        ort_u8.prepare(out / model.files["fp32"], prepared)
        histograms = calibrate.collect_histograms(prepared, batches)
        ranges = {name: histogram.range(100.0) for name, histogram in histograms.items()}
        means = {name: h.channel_means for name, h in histograms.items() if h.channel_means is not None}
        ort_u8.write_int8(prepared, ranges, means, out / model.files["ort-u8"], saturates=True)
    files = [
        {"path": path.name, "size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted(out.iterdir())
    ]
    manifest = {
        "schema": 1,
        "bundle_id": "larger-networks",
        "sequence": 1,
        "created_at": "2026-01-01T00:00:00Z",
        "runtimes": ["fp32"],
        "files": files,
        "detector": detector.model_dump(mode="json"),
        "classifier": classifier.model_dump(mode="json"),
    }
    (out / "bundle.json").write_text(json.dumps(manifest))
    return out


if __name__ == "__main__":
    main()
