"""All embedding methods in one table: same pictures, same small backbone, similar compute, three seeds.

    python benchmarks/methods.py                # renders data, trains what is missing, writes the table; hours
    python benchmarks/methods.py --for-s 300    # starts no training after 300 s; a started one is finished
    python benchmarks/methods.py --table        # only writes the table of the finished runs

Training uses 20 synthetic bottles and jars, 40 crops each; 8 others are never in training. `seen`: 20 new renders of
each item, searched among 10 of its training crops. `unseen`: 50 renders of each other item, searched among 10 others of
it. `auroc`: known against unknown objects by the similarity of the nearest of the 20 items. Every training starts from
the trunk of the classifier of its seed and takes about the same CPU time: a method with region-confusion images gets
half the epochs. Writes benchmarks/results/methods.json. The teacher needs ImageNet weights in ../shared/data or
$FINESIGHT_DATA.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import shutil
import sys
import time
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import method_list  # noqa: E402
from benchmarks.grocery import machine  # noqa: E402
from dataset_formats.records import Sample  # noqa: E402
from edge.inference.preprocess import to_canvas  # noqa: E402
from edge.manifest.embedder import Head  # noqa: E402
from edge.manifest.model import Preprocess  # noqa: E402
from trainer.data.crops import predict  # noqa: E402
from trainer.data.dataset import read_samples  # noqa: E402
from trainer.data.pictures import load_pictures  # noqa: E402
from trainer.embedder_recipe import EmbedderRecipe  # noqa: E402
from trainer.loop.training_loop import keep_freed_memory  # noqa: E402
from trainer.metrics import map_at_r, rank, recall_at, similarity  # noqa: E402
from trainer.models.backbone import create_trunk  # noqa: E402
from trainer.models.networks import ModelCard, load_model  # noqa: E402
from trainer.models.scda_network import FreeEmbedder  # noqa: E402
from trainer.recipe import ClassifierRecipe  # noqa: E402
from trainer.synthetic.write_dataset import write_dataset  # noqa: E402
from trainer.tasks.classifier import train_classifier  # noqa: E402
from trainer.tasks.embedder import train_embedders  # noqa: E402
from trainer.tasks.shrink_embedder import truncate_vectors  # noqa: E402

SEEDS = (0, 1, 2)
CATEGORIES = ("bottle", "jar")

Vectors = dict[str, np.ndarray]  # by set: seen_query, seen_gallery, unseen_query, unseen_gallery


def main() -> None:
    """Make data, train, evaluate, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs/methods", help="folder for data and results; default: %(default)s"
    )
    parser.add_argument("--for-s", type=float, default=float("inf"), help="start no training after this many seconds")
    parser.add_argument("--table", action="store_true", help="only write the table")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    if not arguments.table:
        logging.disable(logging.WARNING)
        keep_freed_memory()
        torch.set_num_threads(1)
        make_data(work)
        end = time.monotonic() + arguments.for_s
        first = [
            (seed, name) for seed in SEEDS for name in method_list.CORE
        ]  # the rows that the recommended defaults are based on
        for seed, name in [*first, *((seed, name) for seed in SEEDS for name in method_list.METHODS)]:
            if time.monotonic() > end:
                sys.exit(f"{name}, seed {seed}: not started, time is up")
            evaluate_once(work, name, seed)
    write_table(work)


def make_data(work: Path) -> None:
    """Write the crops, and one index for the seen and one for the unseen items."""
    if (work / "data/seen.csv").is_file():
        return
    index = write_dataset(work / "data", 7, 0, 40, 0, workers=1)
    rows = list(csv.DictReader(index.open()))
    for name in ("unseen", "seen"):
        with (work / f"data/{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(row for row in rows if row["category"] in CATEGORIES and group_of(row["item"]) == name)


def group_of(item: str) -> str:
    """Return the group of an item: every third is unseen, whatever its family."""
    return "unseen" if int(item[-2:]) % 3 == 2 else "seen"


def evaluate_once(work: Path, name: str, seed: int) -> None:
    """Train a method with a seed and measure it, unless that is done."""
    method, slug = method_list.METHODS[name], "".join(c if c.isalnum() else "-" for c in name)
    done = work / "rows" / f"{slug}-{seed}.json"
    if done.is_file():
        return
    trunk = trained_trunk(work, seed)
    if method.untrained:
        card, vectors = untrained_vectors(work, trunk, method.untrained)
    else:
        recipe = recipe_of(work, method, seed, trunk)
        started = time.process_time()
        out = work / "run"
        shutil.rmtree(out, ignore_errors=True)
        card = train_embedders(recipe, out)[0]
        trained_s = time.process_time() - started
        vectors = embed(work, load_model(out)[0], card)
    row = {"method": name, "seed": seed, "parts": parts_of(work, name, card, vectors)}
    if not method.untrained:
        row |= {
            "train_cpu_s": round(trained_s, 1),
            "parameters": sum(p.numel() for p in load_model(out)[0].parameters()),
        }
    done.parent.mkdir(exist_ok=True)
    done.write_text(json.dumps(row, indent=1))
    print(f"{name}, seed {seed}: {row['parts']['whole']}", flush=True)


def trained_trunk(work: Path, seed: int) -> Path:
    """Train the classifier of a seed, from which every training of that seed starts."""
    out = work / f"trunk-{seed}"
    if not (out / "model.json").is_file():
        recipe = ClassifierRecipe(
            kind="classifier",
            seed=seed,
            data=seen(work),
            input=method_list.PICTURES,
            backbone=method_list.WHOLE,
            augment=method_list.MILD,
            optimiser=schedule(20) | {"batch": 64, "lr": 4e-3},
        )
        train_classifier(recipe, out)
    return out


def recipe_of(work: Path, method: method_list.Method, seed: int, trunk: Path) -> EmbedderRecipe:
    """Return the recipe of a method; everything else is the same for all."""
    changes = dict(method.changes)
    if "teacher" in changes:
        changes["teacher"] = trained_teacher(work)
    changes["optimiser"] = schedule(changes.get("optimiser", 1) * method_list.EPOCHS // method.passes)
    shared = {
        "data": seen(work),
        "input": method_list.PICTURES,
        "augment": method_list.MILD,
        "init_from": trunk,
        "backbone": method_list.BACKBONE,
    }
    return EmbedderRecipe(kind="embedder", seed=seed, **(method_list.SHARED | shared | changes))


def trained_teacher(work: Path) -> Path:
    """Train a larger network with vectors of another length, from ImageNet weights."""
    out = work / "teacher"
    if not (out / "model.json").is_file():
        weights = Path(os.environ.get("FINESIGHT_DATA", ROOT / "../shared/data")) / "weights"
        pretrained = method_list.TEACHER | {"pretrained": str(weights / "mobilenetv2_100_in1k.safetensors")}
        recipe = EmbedderRecipe(
            kind="embedder",
            data=seen(work),
            input=method_list.PICTURES,
            augment=method_list.MILD,
            backbone=pretrained,
            optimiser=schedule(method_list.EPOCHS) | {"trunk_lr": 0.3},
            **(method_list.SHARED | method_list.PLAIN | {"dim": 256}),
        )
        train_embedders(recipe, out)
    return out


def seen(work: Path) -> dict[str, Any]:
    """Return the training data; there is no validation, so nothing is selected on it."""
    return {"index": work / "data/seen.csv", "val_splits": [], "gallery_splits": []}


def schedule(epochs: int) -> dict[str, Any]:
    """Return the schedule of a training."""
    return {
        "epochs": epochs,
        "batch": 28,
        "lr": 2e-3,
        "warmup": 0.1,
        "evaluate_every": epochs,
        "device": "cpu",
        "threads": 1,
    }


class Average(torch.nn.Module):
    """Average pool of a trunk's map, of unit length."""

    def __init__(self, trunk: torch.nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, 3, h, w) to (n, channels)."""
        return torch.nn.functional.normalize(self.trunk(x)[-1].mean(dim=(2, 3)), dim=1)


def untrained_vectors(work: Path, trunk: Path, variant: str) -> tuple[ModelCard, Vectors]:
    """Return vectors of the classifier's trunk without further training."""
    network, card = load_model(trunk)
    if variant == "average":
        return card, embed(work, Average(network.trunk), card)
    maps = create_trunk(card.backbone, [8, 16] if variant != "scda" else [16])
    maps.network.load_state_dict(network.trunk.network.state_dict())
    return card, embed(work, FreeEmbedder(maps.eval(), variant), card)


def embed(work: Path, module: torch.nn.Module, card: ModelCard) -> Vectors:
    """Return vectors of the four sets of pictures."""
    module.eval()
    return {name: predict(module, canvases, card.preprocess) for name, canvases in canvases_of(work).items()}


@cache
def canvases_of(work: Path) -> Vectors:
    """Return the four sets of pictures, preprocessed."""
    spec = Preprocess(**{key: method_list.PICTURES[key] for key in ("width", "height", "resize")}, interpolation="area")
    canvases = {}
    for known in ("seen", "unseen"):
        for role in ("query", "gallery"):
            pictures = load_pictures(samples_of(work, f"{known}_{role}"), None)
            canvases[f"{known}_{role}"] = np.stack([to_canvas(spec, image)[0] for image in pictures.images])
    return canvases


@cache
def samples_of(work: Path, name: str) -> list[Sample]:
    """Return the gallery (the first ten training crops of each item) or the queries (other crops)."""
    known, role = name.split("_")
    listed = read_samples(work / f"data/{known}.csv")
    if role == "gallery":
        return [s for s in listed if int(s.path.stem) < 10]
    return [s for s in listed if s.split != "train" or (known == "unseen" and int(s.path.stem) >= 10)]


def parts_of(work: Path, name: str, card: ModelCard, vectors: Vectors) -> dict[str, dict[str, float]]:
    """Measure the whole vector, and the parts of it that a smaller variant would have."""
    parts = {"whole": measure(work, vectors)}
    cuts: dict[str, tuple[list[str], int | None]] = {}
    if name.startswith("MFFG guarded") and card.joint == "concat" and len(card.heads) == 3:
        for kept in ("class", "local", "outline", "class+local", "class+outline", "local+outline"):
            cuts[kept] = (kept.split("+"), None)
        thirds = {key: np.split(rows, 3, axis=1) for key, rows in vectors.items()}
        summed = {key: sum(third) for key, third in thirds.items()}
        parts["summed afterwards"] = measure(
            work, {k: v / np.linalg.norm(v, axis=1, keepdims=True) for k, v in summed.items()}
        )
    if name in {"Matryoshka", "plain pooling, softmax"}:
        cuts |= {f"first {dim}": (["class"], dim) for dim in method_list.SHORTER}
    heads: list[Head] = card.heads
    for key, (kept, dim) in cuts.items():
        parts[key] = measure(work, {k: truncate_vectors(v, heads, kept, dim) for k, v in vectors.items()})
    return parts


def measure(work: Path, vectors: Vectors) -> dict[str, float]:
    """Return Recall@1 and MAP@R of both groups of items, and the AUROC of known against unknown."""
    row: dict[str, float] = {"dim": vectors["seen_query"].shape[1]}
    top = {}
    for known in ("seen", "unseen"):
        query, gallery = f"{known}_query", f"{known}_gallery"
        similar = similarity(vectors[query], vectors[gallery])
        items, others = ([s.item for s in samples_of(work, name)] for name in (query, gallery))
        ranked = rank(similar, items, others)
        row[f"{known}_recall_1"] = float(recall_at(ranked, 1).mean())
        row[f"{known}_map_r"] = float(map_at_r(ranked).mean())
        top[known] = similarity(vectors[query], vectors["seen_gallery"]).max(axis=1)
    order = np.searchsorted(np.sort(top["unseen"]), top["seen"], side="left")
    ties = np.searchsorted(np.sort(top["unseen"]), top["seen"], side="right") - order
    row["auroc"] = float((order + 0.5 * ties).mean() / len(top["unseen"]))
    return {key: round(value, 4) for key, value in row.items()}


def write_table(work: Path) -> None:
    """Write mean and deviation over the seeds of every method and of every part of it."""
    rows = [json.loads(path.read_text()) for path in sorted((work / "rows").glob("*.json"))]
    table = []
    for name in method_list.METHODS:
        mine = [row for row in rows if row["method"] == name]
        for part in mine[0]["parts"] if mine else []:
            values = [row["parts"][part] for row in mine]
            entry: dict[str, Any] = {"method": name, "part": part, "seeds": [row["seed"] for row in mine]}
            if "train_cpu_s" in mine[0] and part == "whole":
                entry |= {"train_cpu_s": round(float(np.mean([row["train_cpu_s"] for row in mine])), 1)}
                entry |= {"parameters": mine[0]["parameters"]}
            for key in values[0]:
                found = [value[key] for value in values]
                spread = {"mean": round(float(np.mean(found)), 4)}
                if len(found) > 1:
                    spread["sd"] = round(float(np.std(found, ddof=1)), 4)
                entry[key] = found[0] if key == "dim" else spread
            table.append(entry)
    report = {
        "queries": {known: len(samples_of(work, f"{known}_query")) for known in ("seen", "unseen")},
        "items": {known: len({s.item for s in samples_of(work, f"{known}_query")}) for known in ("seen", "unseen")},
        "epochs": {"one look": method_list.EPOCHS, "two looks": method_list.EPOCHS // 2},
        "table": table, "date": date.today().isoformat(), "machine": machine(),  # noqa: DTZ011
    }  # fmt: skip
    (ROOT / "benchmarks/results/methods.json").write_text(json.dumps(report, indent=1) + "\n")
    for entry in table:
        numbers = [f"{v['mean']:.3f}±{v.get('sd', float('nan')):.3f}" for v in entry.values() if isinstance(v, dict)]
        print(f"{entry['method']} | {entry['part']} | {entry['dim']} | {' | '.join(numbers)}")


if __name__ == "__main__":
    main()
