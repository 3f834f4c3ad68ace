"""Within-item whitening and per-side means: groceries of `val`, each searched with a map fitted without its item.

    python benchmarks/whitening.py untuned            # pooled features of the published weights
    python benchmarks/whitening.py general            # of an untrained `edge-train learn`, which whitens in its head
    python benchmarks/whitening.py head --seed 1      # a projection of these features, trained on half of the items
    python benchmarks/whitening.py tuned --seed 1     # an embedder trained on half of the items, minutes

Whole photos of the Grocery Store data set, 12 (or 3) `train` photos of each item as gallery and to fit on; `catalogue`
searches the iconic pictures and fits on the photos. `head` and `tuned` report the items of the training apart.
Each row: Recall@1 of all items together, before and after, and the area under the curve that separates pictures of
items in the gallery from those of a fifth that was left out of it (and of the fit). Adds its rows to
benchmarks/results/whitening.json. Needs ../shared/data or $FINESIGHT_DATA. Groceries are small here (96 or 128 px).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.grocery import machine  # noqa: E402
from benchmarks.results_file import write_results  # noqa: E402
from benchmarks.shared_data import DATA, WEIGHTS, groceries, write_csv  # noqa: E402
from dataset_formats.decode import read_picture  # noqa: E402
from edge.gallery.item_vectors import shrink_to_centroid  # noqa: E402
from edge.imaging.image import trim  # noqa: E402
from edge.inference.postprocess import unit_rows  # noqa: E402
from edge.inference.preprocess import to_canvas  # noqa: E402
from edge.manifest.model import Preprocess  # noqa: E402
from quantize.bundle.fit_whitening import LabelledVectors, fit_map, measure_gain  # noqa: E402
from trainer.data.crops import predict  # noqa: E402
from trainer.embedder_recipe import EmbedderRecipe  # noqa: E402
from trainer.evaluation.model_chain import _Pooled  # noqa: E402
from trainer.evaluation.open_set import area_under_curve  # noqa: E402
from trainer.models.backbone import create_trunk  # noqa: E402
from trainer.models.networks import load_model  # noqa: E402
from trainer.tasks.embedder import train_embedders  # noqa: E402
from trainer.tasks.general_embedder import make_general_embedder  # noqa: E402

RESULTS = ROOT / "benchmarks/results/whitening.json"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MANY, FEW = 12, 3  # photos of an item
GATHERING = 0.5  # as bundles ship
HEAD, STEPS, SCALE = 256, 200, 16.0  # of the trained projection


def main() -> None:
    """Measure one embedder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("embedder", choices=["untuned", "general", "head", "tuned"])
    parser.add_argument("--px", type=int, default=128, help="width and height of the input; default: %(default)s")
    parser.add_argument("--epochs", type=int, default=8, help="of the tuned embedder; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the half, the training, folds; default: %(default)s")
    parser.add_argument("--only", default="", help="galleries whose name holds this; the other rows stay")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/whitening", help="default: %(default)s")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    listed = samples()
    tuned = half_of(listed, arguments.seed) if arguments.embedder in ("head", "tuned") else frozenset()
    if arguments.embedder == "head":
        untuned = argparse.Namespace(**{**vars(arguments), "embedder": "untuned", "seed": 0})
        vectors = project(embed(untuned, listed, frozenset()), listed, tuned, arguments.seed)
    else:
        vectors = embed(arguments, listed, tuned)
    labelled = {
        split: LabelledVectors(
            vectors[rows], np.array([listed[i]["fine"] for i in rows]), np.full(len(rows), split == "iconic")
        )
        for split in ("train", "val", "iconic")
        if (rows := [i for i, one in enumerate(listed) if one["split"] == split])
    }
    about = {"embedder": arguments.embedder, "seed": arguments.seed, "px": arguments.px}
    about |= {"epochs": arguments.epochs} if arguments.embedder == "tuned" else {}
    for row in measure(labelled, tuned, arguments.seed, arguments.only):
        write([about | row])  # one by one, so that a stopped run keeps what it measured


def samples() -> list[dict[str, str]]:
    """List up to MANY photos of each item that `val` shows, its `val` photos and all iconic pictures."""
    every = groceries()
    shown, count = {one["fine"] for one in every if one["split"] == "val"}, Counter[str]()
    listed = []
    for one in every:
        if one["split"] == "train" and one["fine"] in shown:
            count[one["fine"]] += 1
        if one["split"] in ("val", "iconic") or (
            one["split"] == "train" and one["fine"] in shown and count[one["fine"]] <= MANY
        ):
            listed.append(one)
    return listed


def half_of(listed: list[dict[str, str]], seed: int) -> frozenset[str]:
    """Return half of the items that `val` shows."""
    names = sorted({one["fine"] for one in listed if one["split"] == "val"})
    return frozenset(np.random.default_rng(seed).permutation(names)[: len(names) // 2].tolist())


def embed(arguments: argparse.Namespace, listed: list[dict[str, str]], tuned: frozenset[str]) -> np.ndarray:
    """Return unit vectors of the samples, cached: (n, dim)."""
    cache = arguments.work / f"{arguments.embedder}-{arguments.px}-{arguments.seed}.npy"
    if cache.is_file():
        return np.load(cache)
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.embedder == "untuned":
        size = arguments.px
        spec = Preprocess(width=size, height=size, resize="letterbox", interpolation="area", mean=MEAN, std=STD)
        module: torch.nn.Module = _Pooled(create_trunk("mobilenetv2_100", [], str(WEIGHTS))).eval()
    else:
        run = arguments.work / f"{arguments.embedder}-{arguments.seed}"
        shutil.rmtree(run, ignore_errors=True)
        recipe = recipe_of(arguments, listed, tuned)
        if tuned:
            train_embedders(recipe, run)
        else:
            make_general_embedder(recipe, run)
        module, card = load_model(run)
        spec = card.preprocess
    vectors = unit_rows(np.concatenate([predict(module, chunk, spec) for chunk in canvases(listed, spec)]))
    np.save(cache, vectors)
    return vectors


def project(vectors: np.ndarray, listed: list[dict[str, str]], tuned: frozenset[str], seed: int) -> np.ndarray:
    """Train a projection to HEAD numbers with a cosine softmax over the tuned items, and apply it to all vectors."""
    torch.manual_seed(seed)
    rows = [i for i, one in enumerate(listed) if one["split"] == "train" and one["fine"] in tuned]
    names = sorted({listed[i]["fine"] for i in rows})
    x, y = torch.from_numpy(vectors[rows]), torch.tensor([names.index(listed[i]["fine"]) for i in rows])
    head, centres = torch.nn.Linear(x.shape[1], HEAD), torch.nn.Parameter(torch.randn(len(names), HEAD))
    optimiser = torch.optim.Adam([*head.parameters(), centres], lr=1e-3)
    unit = torch.nn.functional.normalize
    for _ in range(STEPS):
        loss = torch.nn.functional.cross_entropy(SCALE * unit(head(x)) @ unit(centres).T, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return unit_rows(head(torch.from_numpy(vectors)).numpy())


def canvases(listed: list[dict[str, str]], spec: Preprocess) -> Iterator[np.ndarray]:
    """Yield the inputs of the samples, iconic ones trimmed, 64 at a time."""
    for start in range(0, len(listed), 64):
        images = []
        for one in listed[start : start + 64]:
            image = read_picture(DATA / one["path"])[0]
            images.append(trim(image, spec.crop_margin) if one["split"] == "iconic" else image)
        yield np.stack([to_canvas(spec, image)[0] for image in images])


def recipe_of(arguments: argparse.Namespace, listed: list[dict[str, str]], tuned: frozenset[str]) -> EmbedderRecipe:
    """Return the recipe of the defaults, and write its index: the items of the training, or for `general` all."""
    index = arguments.work / f"{arguments.embedder}-{arguments.seed}.csv"
    rows = [
        (DATA / one["path"], one["split"], "grocery", one["fine"])
        for one in listed
        if one["split"] in ("train", "val") and (one["fine"] in tuned or not tuned)
    ]
    write_csv(index, ("path", "split", "category", "item"), rows)
    size = {"width": arguments.px, "height": arguments.px, "mean": MEAN, "std": STD}
    return EmbedderRecipe.model_validate(
        {
            "kind": "embedder",
            "seed": arguments.seed,
            "data": {"index": str(index), "gallery_splits": []},
            "input": size,
            "backbone": {"name": "mobilenetv2_100", "pretrained": str(WEIGHTS)},
            "optimiser": {"epochs": max(1, arguments.epochs), "evaluate_every": max(1, arguments.epochs)},
            "dim": 384,
        }
    )


def measure(
    labelled: dict[str, LabelledVectors], tuned: frozenset[str], seed: int, only: str
) -> Iterator[dict[str, object]]:
    """Yield a row for each gallery and group of items."""
    train, held_out, iconic = labelled["train"], labelled["val"], labelled["iconic"]
    few = train.select(first_of_each(train.items, FEW))
    groups = {"all": np.ones(len(held_out.items), bool)}
    if tuned:
        inside = np.isin(held_out.items, list(tuned))
        groups = {"tuned": inside, "never tuned": ~inside}
    for name, chosen in groups.items():
        queries = held_out.select(chosen)
        for gallery_name, gallery, fitted_on in (
            (f"{MANY} photos", train, train),
            (f"{FEW} photos", few, few),
            ("catalogue", iconic, joined(iconic, train)),
        ):
            if only not in gallery_name:
                continue
            gathering = 0.0 if gallery_name == "catalogue" else GATHERING
            gain = measure_gain(fitted_on, gallery, queries, gathering, seed)
            assert gain is not None
            before, after = separations(fitted_on, gallery, queries, gathering, seed)
            row = {"items": name, "gallery": gallery_name, **gain.row()}
            row |= {"auroc": round(before, 4), "auroc_whitened": round(after, 4)}
            print(row, flush=True)
            yield row


def separations(
    fitted_on: LabelledVectors, gallery: LabelledVectors, queries: LabelledVectors, gathering: float, seed: int
) -> tuple[float, float]:
    """Return the AUROC of known against left-out items, each fifth of them left out once, before and after."""
    names = np.unique(queries.items)
    fold_of = dict(zip(names.tolist(), np.random.default_rng(seed).permutation(len(names)) % 5, strict=True))
    fold = np.array([fold_of[item] for item in queries.items.tolist()])
    scores: dict[bool, list[list[np.ndarray]]] = {False: [[], []], True: [[], []]}
    for number in range(5):
        out = [item for item, one in fold_of.items() if one == number]
        kept, rest = (one.select(~np.isin(one.items, out)) for one in (gallery, fitted_on))
        mapped = fit_map(rest)
        for whitened in (False, True):
            q, g = queries.vectors, kept.vectors
            if whitened:
                q, g = mapped.map(q), mapped.map(g, plain=kept.plain.tolist())
            best = (q @ shrink_to_centroid(g, kept.items.tolist(), gathering).T).max(axis=1).astype(np.float64)
            scores[whitened][0].append(best[fold != number])
            scores[whitened][1].append(best[fold == number])
    return tuple(area_under_curve(*(np.concatenate(part) for part in scores[w])) for w in (False, True))


def joined(*parts: LabelledVectors) -> LabelledVectors:
    """Join labelled vectors."""
    return LabelledVectors(
        *(np.concatenate([getattr(one, name) for one in parts]) for name in ("vectors", "items", "plain"))
    )


def first_of_each(items: np.ndarray, count: int) -> np.ndarray:
    """Return which rows are among the first of their item: (n,) bool."""
    seen = Counter[str]()
    kept = []
    for item in items.tolist():
        seen[item] += 1
        kept.append(seen[item] <= count)
    return np.array(kept)


def write(rows: list[dict[str, object]]) -> None:
    """Replace the same rows in the report."""
    report = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"rows": []}
    keys = ("embedder", "seed", "items", "gallery")
    own = {tuple(row[key] for key in keys) for row in rows}
    kept = [row for row in report["rows"] if tuple(row[key] for key in keys) not in own]
    report = {"machine": machine(), "date": date.today().isoformat(), "rows": kept + rows}  # noqa: DTZ011 as the others
    write_results(RESULTS, report)


if __name__ == "__main__":
    main()
