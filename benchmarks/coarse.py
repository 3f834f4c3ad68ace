"""The published classifier compared with the project's own: 43 categories of groceries, same trunk, pictures, epochs.

    python benchmarks/coarse.py                        # small pictures and few epochs: minutes on one core
    python benchmarks/coarse.py --px 224 --epochs 100  # as published: SGD stops early

Rows: the project's recipe; the published one (configs/train/published-classifier.yaml); the published one in colour.
All start from the same ImageNet MobileNetV2. An interrupted run resumes. Only the last step uses `test`. Needs
../shared/data or $FINESIGHT_DATA. Writes benchmarks/results/coarse.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.grocery import machine  # noqa: E402
from trainer.data.crops import predict  # noqa: E402
from trainer.data.dataset import choose, read_samples  # noqa: E402
from trainer.data.pictures import load_canvases  # noqa: E402
from trainer.loop.training_loop import keep_freed_memory  # noqa: E402
from trainer.metrics import bootstrap  # noqa: E402
from trainer.models.networks import load_model  # noqa: E402
from trainer.recipe import load_recipe  # noqa: E402
from trainer.tasks.classifier import train_classifier  # noqa: E402

RECIPES = {
    "project": ("benchmarks/recipes/grocery-classifier.yaml", []),
    "published": ("configs/train/published-classifier.yaml", []),
    "published, in colour": ("configs/train/published-classifier.yaml", ["input.grey=false"]),
}


def main() -> None:
    """Train missing classifiers, evaluate all, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs/coarse", help="folder for data and results; default: %(default)s"
    )
    parser.add_argument("--px", type=int, default=96, help="side of the input in pixels; default: %(default)s")
    parser.add_argument("--epochs", type=int, default=4, help="largest number of epochs; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the trainings; default: %(default)s")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    keep_freed_memory()
    data = Path(os.environ.get("FINESIGHT_DATA", ROOT / "../shared/data")).resolve()
    shared = [
        f"data.index={data}/grocery/index.csv", f"data.root={data}", "data.train_splits=[train, iconic]",
        "data.gallery_splits=[iconic]", f"seed={arguments.seed}", "backbone.name=mobilenetv2_100",
        f"backbone.pretrained={data}/weights/mobilenetv2_100_in1k.safetensors", "backbone.options={pad_type: ''}",
        "backbone.strides=null", "backbone.frozen_stages=3", f"optimiser.epochs={arguments.epochs}",
        "optimiser.batch=32",
        f"input.width={arguments.px}", f"input.height={arguments.px}", "input.train_width=null",
        "input.train_height=null", "input.crop_margin=0.0", "input.mean=[0.5, 0.5, 0.5]", "input.std=[0.5, 0.5, 0.5]",
    ]  # fmt: skip
    rows = []
    for name, (recipe, own) in RECIPES.items():
        out = arguments.work.resolve() / name.replace(", ", "-").replace(" ", "-")
        if not (out / "model.json").is_file():
            train_classifier(load_recipe(ROOT / recipe, shared + own), out)
        rows.append({"recipe": name} | evaluate(out, data))
        print(json.dumps(rows[-1]), flush=True)
        write(rows, arguments)


def write(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Write the table."""
    report = {
        "rows": rows,
        "px": arguments.px,
        "epochs_at_most": arguments.epochs,
        "seed": arguments.seed,
        "date": date.today().isoformat(),  # noqa: DTZ011
        "machine": machine(),
    }
    (ROOT / "benchmarks/results/coarse.json").write_text(json.dumps(report, indent=1) + "\n")


def evaluate(run: Path, data: Path) -> dict[str, Any]:
    """Return the accuracy on `val` and `test`, and the cost of the training."""
    model, card = load_model(run)
    history = list(csv.DictReader((run / "metrics.csv").open()))
    row: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "epochs": len(history),
        "seconds": round(sum(float(line["seconds"]) for line in history)),
    }
    listed = read_samples(data / "grocery/index.csv", data)
    for split in ("val", "test"):
        samples, canvases, _ = load_canvases(choose(listed, [split]), card.preprocess)
        predicted = [card.labels[i] for i in predict(model, canvases, card.preprocess).argmax(axis=1)]
        pairs = zip(predicted, samples, strict=True)
        correct = np.array([name == sample.category for name, sample in pairs], np.float64)
        row[split] = {
            "accuracy": round(float(correct.mean()), 4),
            "interval": [round(v, 4) for v in bootstrap(correct)],
            "images": len(correct),
        }
    return row


if __name__ == "__main__":
    main()
