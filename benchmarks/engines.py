"""ONNX Runtime compared with OpenVINO, and FP32 with INT8, on every model of a bundle.

    python benchmarks/engines.py [BUNDLE]        # default: demo/bundle, which holds both forms

One thread, one picture, alternating engines. The measure is wall time, because OpenVINO may compute in another thread,
so run it on an idle machine. `differs` is the largest difference from ONNX Runtime's FP32 output, relative to the
largest value of that output. Writes benchmarks/results/engines.json.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Measure every model and write the report."""
    from benchmarks.grocery import machine
    from edge.bundle.bundle import read_bundle
    from edge.inference.engine import open_engine
    from quantize.latency import RUNS, interleaved_ms

    bundle = read_bundle(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "demo/bundle")
    models = [bundle.manifest.detector, bundle.manifest.classifier, *bundle.manifest.embedders]
    report: dict[str, object] = {}
    for model in filter(None, models):
        spec = model.preprocess
        shape = (spec.height, spec.width, 3) if spec.layout == "nhwc" else (3, spec.height, spec.width)
        batch = np.random.default_rng(0).integers(0, 255, (1, *shape)).astype(spec.dtype)
        forms = [(b, t) for t in ("fp32", "ort-u8") if t in model.files for b in ("onnxruntime", "openvino")]
        engines = [open_engine(bundle.folder / model.files[target], backend) for backend, target in forms]
        taken = interleaved_ms(engines, batch, clock_s=time.perf_counter)
        want = np.asarray(engines[0].run(batch)[0], np.float32)
        rows = {}
        for (backend, target), engine, ms in zip(forms, engines, taken, strict=True):
            differs = np.abs(np.asarray(engine.run(batch)[0], np.float32) - want).max() / np.abs(want).max()
            rows[f"{backend} {target}"] = {"ms": round(ms, 3), "differs": round(float(differs), 5)}
        name = Path(model.files["fp32"]).stem.removesuffix(".fp32")
        report[name] = {"input": list(shape), **rows}
        print(f"{name:20} " + "  ".join(f"{form} {row['ms']:.2f} ms" for form, row in rows.items()))
    report |= {
        "runs": RUNS,
        "onnxruntime": version("onnxruntime"),
        "openvino": version("openvino"),
        "bundle": bundle.manifest.bundle_id,
        "date": date.today().isoformat(),  # noqa: DTZ011
        "machine": machine(),
    }
    (ROOT / "benchmarks/results/engines.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
