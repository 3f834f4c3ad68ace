"""Re-identification and attributes on rendered vehicles, and what the protocol alone does on photos of groceries.

    python benchmarks/vehicles.py   # about 10 processor-minutes; a stopped one goes on where it was

Fills the tables `veri` (40 rendered vehicles, 4 cameras) and `retrieval-protocol` (32 items of the grocery photos, 10
photos of each) with three seeds, small: MobileNetV2 from ImageNet weights, 96 px, few epochs. Then varies how fast a
near item's vote falls with distance. Writes benchmarks/results/vehicles.json. Needs photos and weights in
../shared/data or $FINESIGHT_DATA.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.grocery import machine  # noqa: E402
from benchmarks.results_file import read_table, write_results  # noqa: E402
from benchmarks.shared_data import BACKBONE, DATA, TRUNK, WEIGHTS, groceries_by_item, require, write_csv  # noqa: E402
from dataset_formats.records import Sample  # noqa: E402
from edge.gallery import attributes  # noqa: E402
from edge.inference.postprocess import unit_rows  # noqa: E402
from edge.types import Hit  # noqa: E402
from trainer.data.dataset import read_samples  # noqa: E402
from trainer.metrics import calibration_error  # noqa: E402
from trainer.synthetic.write_vehicles import write_vehicles  # noqa: E402
from trainer.tables.table import Request  # noqa: E402
from trainer.tables.untuned_vectors import untuned_vectors  # noqa: E402

WORK, RESULTS = ROOT / "runs/vehicles", ROOT / "benchmarks/results/vehicles.json"
VEHICLES, PER_CAMERA, ITEMS, PER_SPLIT, PX, EPOCHS = 40, 2, 32, 5, 96, 6
SHARPNESS = (0.01, 0.02, 0.05, 0.1, 0.2)
TABLES = ("veri", "retrieval-protocol")
_TOP = 5


def main() -> None:
    """Fill both tables, vary the vote, and write what was measured."""
    require(WEIGHTS)
    cars, groceries = WORK / "rendered", WORK / "groceries.csv"
    if not (cars / "index.csv").is_file():
        write_vehicles(cars, 5, VEHICLES, PER_CAMERA, progress=False)
    _write_groceries(groceries)
    with ThreadPoolExecutor(2) as pool:  # one thread for each: two share their cores badly
        list(pool.map(_fill, TABLES, (cars, groceries)))
    report = {
        "vehicles": VEHICLES, "cameras": 4, "pictures_by_each": PER_CAMERA, "grocery_items": ITEMS,
        "grocery_photos": 2 * PER_SPLIT, "px": PX, "epochs": EPOCHS,
        "tables": {name: read_table(WORK / name) for name in TABLES},
        "votes": _votes(cars, groceries),
        "machine": machine(),
        "date": date.today().isoformat(),  # noqa: DTZ011
    }  # fmt: skip
    write_results(RESULTS, report)
    print("\n".join((WORK / name / "table.md").read_text() for name in TABLES))
    print(json.dumps(report["votes"], indent=1))


def _fill(name: str, data: Path) -> None:
    given = {"--data": data, "-o": WORK / name, "--pixels": PX, "--epochs": EPOCHS}
    words = [str(word) for pair in given.items() for word in pair]
    command = [sys.executable, "-m", "trainer.cli", "table", name, *words, *TRUNK]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)


def _write_groceries(path: Path) -> None:
    """Write an index of the first items with enough photos, the same number of each in train and in test."""
    by_item = groceries_by_item()
    items = [item for item, of in by_item.items() if len(of) >= 2 * PER_SPLIT][:: 2 if len(by_item) > 64 else 1]
    rows = []
    for item in items[:ITEMS]:
        for number, row in enumerate(by_item[item][: 2 * PER_SPLIT]):
            split = "train" if number < PER_SPLIT else "test"
            rows.append((DATA / row["path"], split, "grocery", item, row["coarse"], row["family"]))
    write_csv(path, ("path", "split", "category", "item", "attribute:coarse", "attribute:family"), rows)


def _votes(cars: Path, groceries: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return how often attributes of items that a gallery lacks are right, and their calibration, by sharpness."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, data in ("rendered vehicles", cars), ("groceries", groceries):
        request = Request(data, WORK, backbone=BACKBONE, weights=str(WEIGHTS), pixels=PX)
        vectors, samples = untuned_vectors(request, [s for s in read_samples(data) if s.split != "query"], PX)
        found[name] = {}
        for sharpness in SHARPNESS:
            attributes.SHARPNESS = sharpness  # type: ignore[misc]
            found[name][str(sharpness)] = _right(unit_rows(vectors), samples)
    return found


def _right(vectors: np.ndarray, samples: list[Sample]) -> dict[str, float]:
    items = np.array([one.item for one in samples])
    names = sorted(set(items.tolist()))
    known = {one.item: dict(one.attributes) for one in samples}
    right: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    similar = vectors @ vectors.T
    best = np.stack([similar[:, items == name].max(axis=1) for name in names], axis=1)
    for row, sample in enumerate(samples):
        scores = np.where(np.array(names) == sample.item, -np.inf, best[row])
        hits = [Hit(names[i], names[i], float(scores[i])) for i in np.argsort(-scores)[:_TOP]]
        for one in attributes.vote(hits, known):
            right[one.name].append((one.value == known[sample.item][one.name], one.confidence))
    measured = {}
    for name, answers in sorted(right.items()):
        truth, confidence = np.array([a for a, _ in answers]), np.array([c for _, c in answers], np.float32)
        measured |= {f"{name} right": float(truth.mean()), f"{name} ECE": calibration_error(confidence, truth)}
    return measured


if __name__ == "__main__":
    main()
