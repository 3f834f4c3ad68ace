"""Recall of a new embedder's vectors in the old embedder's gallery, by how the new one was trained.

    python benchmarks/compatible.py --seed 0   # renders data, trains four embedders, evaluates them; run for each seed
    python benchmarks/compatible.py            # combines the seeds

The old embedder learns 40 of 70 synthetic items from 16 crops each, the new one 55 from 32 crops each; neither learns
the other 15. The seed chooses the items. A query is a crop that neither saw, searched among all 14 items of its
category. Writes runs/compatible/ and benchmarks/results/compatible.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
WORK = ROOT / "runs/compatible"
# Numbers for each item; GALLERY_CROPS are training crops in the gallery, besides the catalogue pictures.
CROPS, CATALOGUE_PICTURES, GALLERY_CROPS = 32, 6, 8
FAMILIES = ((0, 5), (5, 5), (10, 4))  # first number and size of each family of a category
EPOCHS = {"old": 20, "new": 12}  # 220 and 370 steps
NEW = {
    "independent": {},
    "fine-tuned": {"init_from": "old"},
    "compatible": {"compatible_with": "old"},
}
RECIPE = {
    "kind": "embedder",
    "input": {"width": 64, "height": 64, "resize": "letterbox"},
    "backbone": {"name": "mobilenetv4_conv_small_050", "pretrained": "none", "strides": [8]},
    "heads": ["class"],
    "dim": 64,
    "width": 64,
    "grid": 3,
    "scale": 16.0,
    "decorrelation": 0.1,
    "label_smoothing": 0.0,
    "dropout": 0.0,
    "centre_lr": 1.0,
    "images_per_class": 4,
    "augment": {
        "scale": [0.87, 1.14],
        "shift": 0.07,
        "stretch": 0.05,
        "rotate_deg": 4.0,
        "perspective": 0.015,
        "flip": False,
        "blur": 0.2,
        "erase": 0.0,
    },
    "optimiser": {"batch": 56, "lr": 3e-3, "warmup": 0.1, "evaluate_every": 100, "device": "cpu", "threads": 1},
}


def main() -> None:
    """Measure one seed, or combine the seeds that were measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="seed to measure; without it, combine the measured seeds")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        measure(arguments.seed)
    else:
        collect()


def parts_of(seed: int, items: list[str]) -> dict[str, str]:
    """Choose the items that only the new embedder learns, and those that neither learns: one of each family."""
    parts = dict.fromkeys(items, "old")
    for item in items:
        category, number = item.rsplit("-", 1)
        for first, size in FAMILIES:
            if int(number) == first + (seed + 3) % size:
                parts[f"{category}-{number}"] = "never"
            elif int(number) == first + (seed + 4) % size:
                parts[f"{category}-{number}"] = "added"
    return parts


def measure(seed: int) -> None:
    """Train the old and the new embedders, and search the queries of each in the gallery of each."""
    from trainer.embedder_recipe import EmbedderRecipe
    from trainer.synthetic.write_dataset import write_dataset
    from trainer.tasks.embedder import train_embedders

    data, folder = WORK / "data", WORK / f"seed-{seed}"
    if not (data / "index.csv").exists():
        write_dataset(data, 5, scenes=0, crops_per_item=CROPS, catalogue_pictures=CATALOGUE_PICTURES)
    rows = list(csv.DictReader((data / "index.csv").open()))
    parts = parts_of(seed, sorted({row["item"] for row in rows}))
    folder.mkdir(parents=True, exist_ok=True)
    half = [row for row in rows if row["split"] != "train" or _number(row) < CROPS // 2]
    of_old = [row for row in half if parts[row["item"]] == "old"]
    of_new = [row for row in rows if parts[row["item"]] != "never"]
    write_table(folder / "old.csv", of_old)
    write_table(folder / "new.csv", of_new)
    for name, changes in {"old": {}, **NEW}.items():
        which = "old" if name == "old" else "new"
        recipe = EmbedderRecipe(
            **RECIPE | {"optimiser": RECIPE["optimiser"] | {"epochs": EPOCHS[which]}},
            data={"index": folder / f"{which}.csv", "root": data},
            seed=seed,
            **{key: folder / value for key, value in changes.items()},
        )
        uninterrupted, started = not (folder / name).exists(), time.process_time()
        if not (folder / name / "model.json").exists():
            train_embedders(recipe, folder / name)
        if uninterrupted:
            (folder / name / "cpu_s").write_text(f"{time.process_time() - started:.1f}")
    timed = [path for name in ("old", *NEW) if (path := folder / name / "cpu_s").exists()]
    took_s = {path.parent.name: float(path.read_text()) for path in timed}  # seconds of uninterrupted trainings
    result = {"seed": seed, "cpu_s": took_s, "found": evaluate(folder, data, rows, parts)}
    (folder / "result.json").write_text(json.dumps(result))
    print(json.dumps(summary([result]), indent=1))


def evaluate(
    folder: Path, data: Path, rows: list[dict[str, str]], parts: dict[str, str]
) -> dict[str, dict[str, list[int]]]:
    """Return by part and pair of embedders whether each query's nearest gallery picture is of its item."""
    from dataset_formats.records import Sample
    from trainer.data.crops import predict
    from trainer.data.pictures import load_canvases
    from trainer.models.networks import load_model

    def read(chosen: list[dict[str, str]]) -> tuple[list[Sample], np.ndarray]:
        samples = [Sample(data / row["path"], row["split"], row["category"], row["item"]) for row in chosen]
        listed, canvases, _ = load_canvases(samples, spec, ["catalogue"])
        return listed, canvases

    spec = load_model(folder / "old")[1].preprocess
    queries, query_canvases = read([row for row in rows if row["split"] in {"val", "test"}])
    gallery, gallery_canvases = read(
        [r for r in rows if r["split"] == "catalogue" or (r["split"] == "train" and _number(r) < GALLERY_CROPS)]
    )
    vectors = {
        name: [predict(load_model(folder / name)[0], canvases, spec) for canvases in (query_canvases, gallery_canvases)]
        for name in ("old", *NEW)
    }
    pairs = {"old/old": ("old", "old")}
    pairs |= {f"{name}/{other}": (name, other) for name in NEW for other in ("old", name)}
    categories, items = (np.array([getattr(s, key) for s in gallery]) for key in ("category", "item"))
    found: dict[str, dict[str, list[int]]] = {part: {} for part in ("old", "added", "never")}
    for title, (query_embedder, gallery_embedder) in pairs.items():
        similar = vectors[query_embedder][0] @ vectors[gallery_embedder][1].T
        for sample, row in zip(queries, similar, strict=True):
            nearest = items[np.where(categories == sample.category, row, -2.0).argmax()]
            found[parts[sample.item]].setdefault(title, []).append(int(nearest == sample.item))
    return found


def collect() -> None:
    """Combine the seeds and write the report."""
    from benchmarks import rig

    results = [json.loads(path.read_text()) for path in sorted(WORK.glob("seed-*/result.json"))]
    rig.write_report(summary(results), ROOT / "benchmarks/results/compatible.json")


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return Recall@1 by part of the items: mean, each seed, and the change of new queries from old ones."""
    table: dict[str, Any] = {}
    for part, of in {"old": ["old"], "added": ["added"], "never": ["never"], "all": ["old", "added", "never"]}.items():
        found = {
            title: [np.concatenate([result["found"][one][title] for one in of]) for result in results]
            for title in results[0]["found"]["old"]
        }
        rows = {title: recall(by_seed) for title, by_seed in found.items()}
        before = np.concatenate(found["old/old"]).mean()
        for name in NEW:
            crossed, own = (np.concatenate(found[f"{name}/{other}"]).mean() for other in ("old", name))
            change = np.concatenate(found[f"{name}/old"]).astype(float) - np.concatenate(found["old/old"])
            rows[f"{name}/old"] |= {
                "more_than_old_old": round(float(change.mean()), 4),
                "more_than_old_old_95": interval(change),
                "update_gain": round(float((crossed - before) / (own - before)), 3) if own > before else None,
            }
        table[part] = {"queries": sum(len(one) for one in found["old/old"]), **rows}
    return {
        "seeds": [result["seed"] for result in results],
        "items": {"old": 40, "added": 15, "never": 15},
        "recipe": RECIPE,
        "epochs": EPOCHS,
        "cpu_s": [result["cpu_s"] for result in results],
        "recall_at_1": table,
    }


def recall(by_seed: list[np.ndarray]) -> dict[str, Any]:
    """Return the mean, its interval over all queries, and the mean of each seed."""
    every = np.concatenate(by_seed).astype(float)
    return {
        "mean": round(float(every.mean()), 4),
        "interval_95": interval(every),
        "by_seed": [round(float(one.mean()), 4) for one in by_seed],
    }


def interval(values: np.ndarray) -> list[float]:
    """Return the 95 % bootstrap interval of the mean over queries."""
    rng = np.random.default_rng(0)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(1000)]
    return [round(float(v), 4) for v in np.quantile(means, [0.025, 0.975])]


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    """Write an index of some of the rows."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _number(row: dict[str, str]) -> int:
    return int(Path(row["path"]).stem)


if __name__ == "__main__":
    main()
