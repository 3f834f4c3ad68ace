"""Batching: milliseconds per row of each model of the demo bundle, by batch size.

    python benchmarks/batches.py

Each model runs in the form that ships, on ONNX Runtime, with one thread and with two. Times are medians; batch sizes
alternate. Writes benchmarks/results/batches.json.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
SIZES = (1, 2, 4, 8)
ROUNDS = 200


def main() -> None:
    """Measure every model and write the report."""
    from benchmarks import rig
    from edge.bundle.bundle import read_bundle
    from edge.inference.engine import open_engine

    bundle = read_bundle(rig.DEMO / "bundle")
    manifest = bundle.manifest
    models = {"detector": manifest.detector, "classifier": manifest.classifier}
    models |= {"embedder " + model.categories[0]: model for model in manifest.embedders}
    report = {}
    for name, model in models.items():
        path = bundle.folder / model.files[model.ship]
        report[name] = {"ships": model.ship, "input": f"{model.preprocess.width}x{model.preprocess.height}"}
        for threads in (1, 2):
            engine = open_engine(path, "onnxruntime", threads, max_batch=max(SIZES))
            report[name][f"{threads} threads, ms per row"] = per_row_ms(engine, model.preprocess)
    rig.write_report({"rounds": ROUNDS, "models": report}, ROOT / "benchmarks/results/batches.json")


def per_row_ms(engine: object, spec: object) -> dict[str, float]:
    """Return the median time per row for each batch size."""
    rng = np.random.default_rng(0)
    batches = {n: rng.integers(0, 256, (n, spec.height, spec.width, 3)).astype(np.uint8) for n in SIZES}
    took_ms: dict[int, list[float]] = {n: [] for n in SIZES}
    for turn in range(ROUNDS + 5):
        for n, batch in batches.items():
            started = time.perf_counter()
            engine.run(batch)
            if turn >= 5:
                took_ms[n].append(1000 * (time.perf_counter() - started))
    return {str(n): round(statistics.median(times) / n, 3) for n, times in took_ms.items()}


if __name__ == "__main__":
    main()
