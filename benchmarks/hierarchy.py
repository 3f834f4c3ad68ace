"""Hierarchical recognition (category, then its own embedder) against one flat embedder: accuracy and time.

    python benchmarks/hierarchy.py        # after reproduce_demo.sh; uses its runs and bundle, trains the flat embedder

The flat embedder has the demo's recipe and size, starts from the same classifier's trunk, and learns all 70 items for
as many steps as the five embedders together. All run as FP32 through the device's own stages on one thread, on the
crops of the `test` split, which no training and no threshold used. The galleries hold `train` and `catalogue`. Writes
benchmarks/results/hierarchy.json.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.grocery import machine  # noqa: E402
from dataset_formats.records import Sample  # noqa: E402
from edge.bundle.bundle import read_bundle  # noqa: E402
from edge.gallery.item_vectors import shrink_to_centroid  # noqa: E402
from edge.gallery.search import Index, build_index  # noqa: E402
from edge.gallery.store import CategoryItems, quantise  # noqa: E402
from edge.imaging.image import read_image, set_threads, trim  # noqa: E402
from edge.inference.engine import open_engine  # noqa: E402
from edge.inference.stages import Embedder, load_stages  # noqa: E402
from edge.recognition.decision import categories_to_search, decide  # noqa: E402
from edge.telemetry.timing import Timings  # noqa: E402
from edge.types import Box, Image  # noqa: E402
from quantize.export import export_fp32  # noqa: E402
from quantize.network_spec import model_entry  # noqa: E402
from trainer.data.dataset import read_samples  # noqa: E402
from trainer.embedder_recipe import EmbedderRecipe  # noqa: E402
from trainer.metrics import bootstrap  # noqa: E402
from trainer.models.networks import load_model  # noqa: E402
from trainer.recipe import load_recipe  # noqa: E402
from trainer.tasks.embedder import train_embedders  # noqa: E402

BUNDLE, FLAT = ROOT / "runs/bundle", ROOT / "runs/hierarchy/flat"
GALLERY_SPLITS, QUERY_SPLIT = ("catalogue", "train"), "test"
GATHERING = 0.5  # gathering of both galleries, as in bundles
Answer = tuple[str, str]  # category and item


@dataclass(frozen=True, slots=True)
class Query:
    """One query crop."""

    image_rgb: Image
    box_px: list[Box]
    sample: Sample


def main() -> None:
    """Train the flat embedder if missing, evaluate both, write the report."""
    set_threads(1)
    samples = read_samples(ROOT / "runs/synthetic/index.csv")
    recipe = flat_recipe()
    if not (FLAT / "model.json").is_file():
        train_embedders(recipe, FLAT)
    queries = [read_query(sample) for sample in samples if sample.split == QUERY_SPLIT]
    known = [sample for sample in samples if sample.split in GALLERY_SPLITS]
    methods = {"hierarchical": hierarchical(known), "flat": flat(known)}
    rows, correct = {}, {}
    for name, answer in methods.items():
        answers = [answer(query) for query in queries]  # also warms up
        correct[name] = np.asarray(
            [item == query.sample.item for (_, item), query in zip(answers, queries, strict=True)]
        )
        category = [found == query.sample.category for (found, _), query in zip(answers, queries, strict=True)]
        rows[name] = {
            "item_right": share(correct[name]),
            "category_right": round(float(np.mean(category)), 4),
            "item_right_by_category": by_category(correct[name], queries),
            "ms": milliseconds(answer, queries),
        }
        print(name, json.dumps(rows[name]), flush=True)
    difference = correct["hierarchical"].astype(float) - correct["flat"]
    report = {
        "queries": len(queries),
        "items": len({sample.item for sample in samples}),
        "parameters": {"one_embedder": parameters(FLAT), "classifier": parameters(ROOT / "runs/classifier")},
        "flat_epochs": recipe.optimiser.epochs,
        **rows,
        "hierarchical_less_flat": share(difference),
        "machine": machine(),
        "date": date.today().isoformat(),  # noqa: DTZ011
    }
    (ROOT / "benchmarks/results/hierarchy.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report["hierarchical_less_flat"]))


def flat_recipe() -> EmbedderRecipe:
    """Return the demo's recipe for all categories, with the steps of its five embedders: pictures times epochs."""
    demo = load_recipe(ROOT / "configs/train/demo-embedder.yaml")
    assert isinstance(demo, EmbedderRecipe)
    categories = read_bundle(BUNDLE, verify=False).manifest.classifier.labels
    epochs = round(float(np.mean([demo.for_category(category).optimiser.epochs for category in categories])))
    return demo.model_copy(
        update={
            "one_per_category": False,
            "each": {},
            "init_from": ROOT / "runs/classifier",
            "optimiser": demo.optimiser.model_copy(update={"epochs": epochs, "threads": 1}),
        }
    )


def hierarchical(known: Sequence[Sample]) -> Callable[[Query], Answer]:
    """Recognise as a device: classify, embed for the likely categories, search their galleries, decide."""
    manifest = read_bundle(BUNDLE, verify=False).manifest
    stages = load_stages(BUNDLE, manifest, "onnxruntime", precision="fp32")
    rules = {
        name: rule.model_copy(update={"threshold": -1.0, "min_margin": 0.0})
        for model in manifest.embedders
        for name, rule in model.open_set.items()
    }
    listed = defaultdict(list)
    for sample in known:
        listed[sample.category].append(sample)
    indexes = {name: index_of(stages.embedders[name], some) for name, some in listed.items()}

    def answer(query: Query) -> Answer:
        (scores,) = stages.classifier.classify(query.image_rgb, query.box_px, Timings())
        likely = categories_to_search(stages.classifier.rank_categories(scores), 0.0, stages.embedders)
        hits = {}
        for one in likely:
            vector = stages.embedders[one.name].embed(query.image_rgb, query.box_px, Timings())
            hits[one.name] = indexes[one.name].search(vector, 2)[0]
        decision = decide(likely, hits, rules)
        return decision.category.name, decision.match.item_id

    return answer


def flat(known: Sequence[Sample]) -> Callable[[Query], Answer]:
    """Recognise with one embedder and one gallery of all items."""
    onnx = ROOT / "runs/hierarchy/flat.fp32.onnx"
    spec = export_fp32(FLAT, onnx)
    embedder = Embedder(model_entry(spec, {"fp32": onnx.name}, "fp32", ""), open_engine(onnx))
    index = index_of(embedder, known)
    category_of = {sample.item: sample.category for sample in known}

    def answer(query: Query) -> Answer:
        item = index.search(embedder.embed(query.image_rgb, query.box_px, Timings()), 2)[0][0].item_id
        return category_of[item], item

    return answer


def index_of(embedder: Embedder, known: Sequence[Sample]) -> Index:
    """Return the index of some pictures, as a device searches it."""
    margin = embedder.model.preprocess.crop_margin
    vectors = []
    for sample in known:
        picture = read_image(sample.path)
        picture = trim(picture, margin) if sample.split == "catalogue" else picture
        vectors.append(embedder.embed(picture, [whole(picture)], Timings())[0])
    names = sorted({sample.item for sample in known})
    row_item = np.asarray([names.index(sample.item) for sample in known], np.int32)
    rows, scales = quantise(shrink_to_centroid(np.stack(vectors), row_item, GATHERING))
    ids, negative = tuple(names), np.zeros(len(names), np.bool_)
    return build_index(CategoryItems(ids, ids, negative, rows, scales, row_item, tuple(embedder.model.heads)))


def read_query(sample: Sample) -> Query:
    """Read the query of a sample."""
    picture = read_image(sample.path)
    return Query(picture, [whole(picture)], sample)


def whole(picture: Image) -> Box:
    """Return the box of a whole picture."""
    return (0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))


def milliseconds(answer: Callable[[Query], Answer], queries: Sequence[Query]) -> dict[str, float]:
    """Return the percentiles of the time per query, including preprocessing and search."""
    spent = []
    for query in queries[:: max(1, len(queries) // 300)]:
        started = time.perf_counter()
        answer(query)
        spent.append((time.perf_counter() - started) * 1e3)
    return {"p50": round(float(np.median(spent)), 2), "p95": round(float(np.percentile(spent, 95)), 2)}


def by_category(correct: np.ndarray, queries: Sequence[Query]) -> dict[str, float]:
    """Return the accuracy of each category."""
    shown = np.asarray([query.sample.category for query in queries])
    return {str(name): round(float(correct[shown == name].mean()), 4) for name in np.unique(shown)}


def share(values: Any) -> dict[str, Any]:
    """Return a mean with its 95 % bootstrap interval over queries."""
    low, high = bootstrap(np.asarray(values, np.float64))
    return {"mean": round(float(np.mean(values)), 4), "interval": [round(low, 4), round(high, 4)]}


def parameters(run: Path) -> int:
    """Return the number of parameters of a trained network."""
    return sum(one.numel() for one in load_model(run)[0].parameters())


if __name__ == "__main__":
    main()
