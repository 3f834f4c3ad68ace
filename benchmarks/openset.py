"""Unknown objects: a fifth of the items is left out of the gallery; identification and false accepts are measured.

    python benchmarks/openset.py                 # both data sets; vectors are cached in runs/openset
    python benchmarks/openset.py --only demo
    python benchmarks/openset.py --split val     # a test run: groceries of the split that rules are fitted on

The items are left out in three random draws. Rules are fitted without them, as for a bundle packed from the known
items. Groceries need runs/grocery of benchmarks/grocery.py (--grocery) and its data; their embedder was trained on all
81 items, including those left out. The demo also renders items that no training used: they are queried as unknown, then
enrolled from five pictures. Writes benchmarks/results/openset.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from edge.build import load_models  # noqa: E402
from edge.bundle.bundle import read_bundle  # noqa: E402
from edge.config.schema import EngineConfig  # noqa: E402
from edge.gallery.generation import read_gallery  # noqa: E402
from edge.gallery.item_vectors import shrink_to_centroid  # noqa: E402
from edge.gallery.store import read_category  # noqa: E402
from edge.imaging.image import read_image, set_threads  # noqa: E402
from edge.inference.stages import Stages, load_stages  # noqa: E402
from edge.kiosk.enrolment import exemplars  # noqa: E402
from edge.kiosk.taught_embeddings import embed_views  # noqa: E402
from edge.manifest.embedder import EmbedderModel, OpenSet  # noqa: E402
from edge.recognition.decision import categories_to_search, decide  # noqa: E402
from edge.recognition.loaded_models import LoadedModels  # noqa: E402
from edge.recognition.recognise_image import extract_features  # noqa: E402
from edge.telemetry.timing import Timings  # noqa: E402
from edge.types import Category, FloatArray, Hit, Image  # noqa: E402
from quantize.open_set.fit_thresholds import fit_thresholds  # noqa: E402
from quantize.open_set.leave_items_out import ScoredCrop, leave_items_out  # noqa: E402
from quantize.open_set.score_crops import best_score_by_item  # noqa: E402
from quantize.probes.choose_probes import GalleryVectors  # noqa: E402
from trainer.evaluation.open_set import (  # noqa: E402
    QueryResult,
    calibration_error_of,
    identified_at,
    reliability,
    separation,
)

SEEDS = (0, 1, 2)
SHARE = 0.2
NEW_ITEMS, TAUGHT_PICTURES, QUERIES = 4, 5, 8  # new items of each category; pictures and queries of each new item
FITTED_SEED, TAUGHT_SEED = 7, 6  # seeds of new items to fit rules on, and of others to query and teach
LEARNT_FROM = (1, 10)  # seed and count of the items that an embedder may have been trained on
THRESHOLD = 0.5  # threshold of the classifier, as shipped
WITH_NEW = "fitted on new items, too, 5 % of the unknown"
Rules = dict[str, OpenSet]


@dataclass(frozen=True, slots=True)
class World:
    """Crops to fit on, query crops, and the gallery they are searched in."""

    items: dict[str, list[str]]  # by category
    fitted: list[ScoredCrop]
    queries: list[ScoredCrop]
    shipped: Rules
    new: Sequence[ScoredCrop] = ()  # more crops to fit on: of items in neither gallery nor training


def main() -> None:
    """Measure both data sets and write the report."""
    from benchmarks.grocery import machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["demo", "grocery"], help="measure only this data set")
    parser.add_argument(
        "--grocery",
        type=Path,
        default=ROOT / "runs/grocery",
        help="folder of benchmarks/grocery.py; default: %(default)s",
    )
    parser.add_argument("--split", default="test", help="split of the groceries that are queried; default: %(default)s")
    arguments = parser.parse_args()
    set_threads(1)
    out = ROOT / "benchmarks/results/openset.json"
    report: dict[str, Any] = json.loads(out.read_text()) if out.is_file() else {}
    if arguments.only != "grocery":
        report["demo"] = demo()
    if arguments.only != "demo":
        (model,) = read_bundle(arguments.grocery / "bundle").manifest.embedders
        cache = ROOT / f"runs/openset/{arguments.grocery.name}.npz"
        if not cache.is_file():
            embed_grocery(arguments.grocery, cache)
        report["grocery"] = evaluate(grocery(cache, model, model.gathering, arguments.split))
        as_they_are = evaluate(grocery(cache, model, 0.0, arguments.split))
        del as_they_are["bundle as it ships"]  # its rules are for galleries with its own gathering
        report["grocery, vectors not gathered"] = as_they_are
    report |= {"share_left_out": SHARE, "seeds": list(SEEDS), "machine": machine(), "date": date.today().isoformat()}  # noqa: DTZ011
    print(json.dumps(report, indent=1))
    if arguments.split == "test":
        out.write_text(json.dumps(report, indent=1) + "\n")


def evaluate(world: World) -> dict[str, Any]:
    """Measure every rule on the same draws: as shipped, as fitted, and fitted to accept 5 % of unknown objects."""
    query_results: dict[str, list[list[QueryResult]]] = {}
    for seed in SEEDS:
        names = sorted({item for listed in world.items.values() for item in listed})
        left = set(np.random.default_rng(seed).choice(names, round(SHARE * len(names)), replace=False).tolist())
        known = {category: [item for item in listed if item not in left] for category, listed in world.items.items()}
        present = {category: listed for category, listed in known.items() if listed}
        mine = [without(crop, world.items, left) for crop in world.fitted if crop.item not in left]
        predictions = leave_items_out(mine, present)
        new = [without(crop, world.items, left) for crop in world.new]
        with_new = leave_items_out([*mine, *new], present)
        for name, rules in (
            ("bundle as it ships", world.shipped),
            ("fitted, as sure as answers at large", rules_of(fit_thresholds(predictions, list(world.items)))),
            ("fitted, 5 % of the unknown", rules_of(fit_thresholds(predictions, list(world.items), 0.05))),
            *([(WITH_NEW, rules_of(fit_thresholds(with_new, list(world.items), 0.05)))] if world.new else []),
        ):
            queries = [without(crop, world.items, left) for crop in world.queries]
            query_results.setdefault(name, []).append([query_result(crop, known, rules, left) for crop in queries])
    return {name: table(draws) for name, draws in query_results.items()}


def rules_of(fits: dict[str, Any]) -> Rules:
    return {category: one.open_set for category, one in fits.items()}


def without(crop: ScoredCrop, items: dict[str, list[str]], left: set[str]) -> ScoredCrop:
    """Return the scores of a crop in a gallery without some items."""
    kept = {name: [i for i, item in enumerate(items[name]) if item not in left] for name in crop.scores}
    return replace(crop, scores={name: crop.scores[name][rows] for name, rows in kept.items() if rows})


def query_result(crop: ScoredCrop, items: dict[str, list[str]], rules: Rules, left: set[str]) -> QueryResult:
    """Return what a device predicts, and the probability of the nearest item."""
    hits = {}
    for name, scores in crop.scores.items():
        order = np.argsort(-scores, kind="stable")[:5]
        hits[name] = [Hit(items[name][i], items[name][i], float(scores[i])) for i in order]
    decision = decide(crop.categories, hits, rules, THRESHOLD)
    anyway = {name: rule.model_copy(update={"threshold": -1.0}) for name, rule in rules.items()}
    nearest = decide(crop.categories, hits, anyway).match
    return QueryResult(
        crop.item,
        crop.item not in left and any(crop.item in listed for listed in items.values()),
        decision.match.item_id if decision.match else None,
        nearest.item_id if nearest else None,
        nearest.probability if nearest else float("-inf"),
        nearest.probability if nearest else None,
    )


def table(draws: list[list[QueryResult]]) -> dict[str, Any]:
    """Return means over the draws, each draw's value, and bootstrap intervals over pictures."""
    measures: dict[str, Callable[[Sequence[QueryResult]], float]] = {
        "identified": lambda some: share_of(some, known=True, outcome="identified"),
        "wrong": lambda some: share_of(some, known=True, outcome="wrong"),
        "false_accept": lambda some: share_of(some, known=False, outcome="wrong"),
        "identified_at_far_0.05": lambda some: float(identified_at(some, 0.05).mean()),
        "auroc": separation,
        "nearest_is_right": lambda some: float(np.mean([v.nearest == v.true_item for v in some if v.known])),
        "expected_calibration_error": lambda some: calibration_error_of(reliability(some)),
    }
    report: dict[str, Any] = {
        "known": [sum(v.known for v in draw) for draw in draws],
        "unknown": [sum(not v.known for v in draw) for draw in draws],
    }
    for name, measure in measures.items():
        each = [measure(draw) for draw in draws]
        rng = np.random.default_rng(0)
        resampled = [
            np.mean([measure([draw[i] for i in rng.integers(len(draw), size=len(draw))]) for draw in draws])
            for _ in range(100)
        ]
        report[name] = {
            "mean": round(float(np.mean(each)), 4),
            "each": [round(value, 4) for value in each],
            "interval": [round(float(edge), 4) for edge in np.quantile(resampled, [0.025, 0.975])],
        }
    return report


def share_of(query_results: Sequence[QueryResult], *, known: bool, outcome: str) -> float:
    chosen = [one.outcome == outcome for one in query_results if one.known == known]
    return float(np.mean(chosen)) if chosen else 0.0


def score_crop(stages: Stages, galleries: dict[str, GalleryVectors], item: str, picture: Image) -> ScoredCrop:
    """Score one crop with the models."""
    box = [(0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))]
    named = stages.classifier.rank_categories(stages.classifier.classify(picture, box, Timings())[0])
    categories = categories_to_search(named, THRESHOLD, stages.embedders)
    scores = {}
    for category in categories:
        if category.name in galleries:
            vector = stages.embedders[category.name].embed(picture, box, Timings())[0]
            gallery = galleries[category.name]
            scores[category.name] = best_score_by_item(vector, gallery, sorted(set(gallery.items)))
    own = next((name for name, gallery in galleries.items() if item in gallery.items), "")
    return ScoredCrop(own, item, categories, scores)


def grocery(cache: Path, model: EmbedderModel, gathering: float, split: str) -> World:
    """Return shop photos scored by the INT8 bundle; rules are fitted on `val`."""
    data = np.load(cache)
    labels, fine, splits = data["labels"].tolist(), data["fine"], data["split"]
    category_of = dict(zip(fine.tolist(), data["coarse"].tolist(), strict=True))
    items = {name: sorted(i for i, c in category_of.items() if c == name) for name in sorted(set(category_of.values()))}
    vectors = data["vectors"] / np.linalg.norm(data["vectors"], axis=1, keepdims=True)
    listed = np.isin(splits, ["train", "iconic"])
    galleries = {}
    for name in items:
        rows = listed & (data["coarse"] == name)
        galleries[name] = GalleryVectors(
            shrink_to_centroid(vectors[rows], fine[rows].tolist(), gathering), tuple(fine[rows])
        )

    def scored(of: str) -> list[ScoredCrop]:
        crops = []
        for i in np.flatnonzero(splits == of):
            order = np.argsort(-data["probs"][i], kind="stable")
            ranked = [Category(labels[k], float(data["probs"][i][k])) for k in order]
            categories = categories_to_search(ranked, THRESHOLD, dict.fromkeys(items, 0))
            scores = {c.name: best_score_by_item(vectors[i], galleries[c.name], items[c.name]) for c in categories}
            crops.append(ScoredCrop(category_of[fine[i]], str(fine[i]), categories, scores))
        return crops

    return World(items, scored("val"), scored(split), model.open_set)


def embed_grocery(work: Path, cache: Path) -> None:
    """Classify and embed every photo once, with the forms that ship."""
    data = Path(os.environ.get("FINESIGHT_DATA", ROOT / "../shared/data")).resolve()
    bundle = read_bundle(work / "bundle")
    stages = load_stages(bundle.folder, bundle.manifest, "onnxruntime")
    (embedder,) = set(stages.embedders.values())
    rows = list(csv.DictReader((data / "grocery/index.csv").open()))
    probabilities, vectors = [], []
    for row in rows:
        picture = read_image(data / row["path"])
        box = [(0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))]
        probabilities.append(stages.classifier.classify(picture, box, Timings())[0])
        vectors.append(embedder.embed(picture, box, Timings())[0])
    cache.parent.mkdir(parents=True, exist_ok=True)
    columns = {key: [row[key] for row in rows] for key in ("split", "coarse", "fine", "path")}
    labels = np.array(stages.classifier.model.labels)
    np.savez(cache, probs=np.stack(probabilities), vectors=np.stack(vectors), labels=labels, **columns)


def demo() -> dict[str, Any]:
    """Measure unseen rendered crops with the shipped demo bundle, then items that no training used."""
    from trainer.synthetic.items import catalogue

    bundle, generation = read_bundle(ROOT / "demo/bundle"), read_gallery(ROOT / "demo/gallery")
    models = load_models(ROOT / "demo/bundle", ROOT / "demo/gallery", EngineConfig(backend="onnxruntime"))
    stages, galleries = models.stages, {}
    for model in bundle.manifest.embedders:
        for category in model.categories:
            held = read_category(generation.path(category), model.space_id, model.dim)
            rows = held.vectors_i8.astype(np.float32) * held.scales[:, None]
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            galleries[category] = GalleryVectors(rows, tuple(held.item_ids[i] for i in held.row_item))
    items = {category: sorted(set(gallery.items)) for category, gallery in galleries.items()}
    shipped = {name: rule for model in bundle.manifest.embedders for name, rule in model.open_set.items()}
    new = [score_crop(stages, galleries, i.item_id, shot) for i in new_items(FITTED_SEED) for shot in shots(i, 5, 907)]
    fitted = [score_crop(stages, galleries, item.item_id, shot) for item in catalogue() for shot in shots(item, 3, 901)]
    queries = [
        score_crop(stages, galleries, item.item_id, shot) for item in catalogue() for shot in shots(item, 6, 902)
    ]
    report = evaluate(World(items, fitted, queries, shipped, new))
    rules = {
        "bundle as it ships": shipped,
        "fitted, as sure as answers at large": rules_of(fit_thresholds(leave_items_out(fitted, items), list(items))),
        "fitted, 5 % of the unknown": rules_of(fit_thresholds(leave_items_out(fitted, items), list(items), 0.05)),
        WITH_NEW: rules_of(fit_thresholds(leave_items_out(fitted + new, items), list(items), 0.05)),
    }
    for name, rows_of in (("new_items", exemplars), ("new_items_views", np.concatenate)):
        report[name] = enrolment(models, galleries, rules, rows_of)
    report["new_items_looks_as_they_are"] = enrolment(
        models, galleries, rules, lambda pictures: np.stack([views[0] for views in pictures])
    )
    return report


def shots(item: Any, count: int, seed: int) -> list[Image]:
    """Render crops of an item, as a detector would cut them."""
    from trainer.synthetic.crop import crop
    from trainer.synthetic.items import catalogue

    drawn = []
    for number in range(count):
        rng = np.random.default_rng([seed, sum(map(ord, item.item_id)), len(item.label), number])
        drawn.append(crop(item, catalogue(), rng, int(rng.integers(150, 177))))
    return drawn


def new_items(seed: int) -> list[Any]:
    """Return items that no training used, not even the items invented for training."""
    from trainer.synthetic.items import invent_items

    return invent_items(seed, NEW_ITEMS, taken=invent_items(*LEARNT_FROM))


def enrolment(
    models: LoadedModels,
    galleries: dict[str, GalleryVectors],
    rules: dict[str, Rules],
    rows_of: Callable[[list[FloatArray]], FloatArray],
) -> dict[str, Any]:
    """Query new items before they are taught, and after each is taught from five pictures; the others with all taught.

    Args:
        models: models of the demo.
        galleries: galleries of its items.
        rules: rules to compare, by name.
        rows_of: gives the gallery vectors of an item from the vectors of its views, by picture.
    """
    from trainer.synthetic.items import catalogue

    stages = models.stages
    before: dict[str, list[bool]] = {name: [] for name in rules}
    after: dict[str, list[bool]] = {name: [] for name in rules}
    known: dict[str, list[bool]] = {name: [] for name in rules}
    nearest: list[bool] = []
    everything = dict(galleries)

    def query(
        held: dict[str, GalleryVectors], item_id: str, picture: Image, accepted: dict[str, list[bool]]
    ) -> QueryResult:
        crop = score_crop(stages, held, item_id, picture)
        items = {name: sorted(set(gallery.items)) for name, gallery in held.items()}
        for name, chosen in rules.items():
            result = query_result(crop, items, chosen, set())
            predicted = result.predicted_item
            accepted[name].append(predicted is not None if held is galleries else predicted == item_id)
        return result

    for item in new_items(TAUGHT_SEED):
        vectors: dict[str, list[FloatArray]] = {}
        for picture in shots(item, TAUGHT_PICTURES, 905):
            for category in extract_features(models, picture, Timings(), also=item.category).vectors:
                vectors.setdefault(category, []).append(embed_views(stages.embedders[category], picture))
        taught = {category: rows_of(rows) for category, rows in vectors.items()}
        extended = with_rows(galleries, item.item_id, taught)
        everything = with_rows(everything, item.item_id, taught)
        for picture in shots(item, QUERIES, 906):
            query(galleries, item.item_id, picture, before)
            nearest.append(query(extended, item.item_id, picture, after).nearest == item.item_id)
    for item in catalogue():
        for picture in shots(item, 3, 902):
            query(everything, item.item_id, picture, known)
    from benchmarks.grocery import interval

    return {
        "items": NEW_ITEMS * len(galleries),
        "looks": TAUGHT_PICTURES,
        "pictures": len(nearest),
        "nearest_is_right": {"mean": round(float(np.mean(nearest)), 4), "interval": interval(nearest)},
        "found": {name: {"mean": round(float(np.mean(v)), 4), "interval": interval(v)} for name, v in after.items()},
        "others_identified_with_all_taught": {name: round(float(np.mean(v)), 4) for name, v in known.items()},
        "accepted_before_it_was_taught": {
            name: {"mean": round(float(np.mean(v)), 4), "interval": interval(v)} for name, v in before.items()
        },
    }


def with_rows(
    galleries: dict[str, GalleryVectors], item_id: str, rows: dict[str, FloatArray]
) -> dict[str, GalleryVectors]:
    """Return the galleries with one more item."""
    more = {
        category: GalleryVectors(
            np.concatenate([galleries[category].vectors, found]), galleries[category].items + (item_id,) * len(found)
        )
        for category, found in rows.items()
    }
    return {**galleries, **more}


if __name__ == "__main__":
    main()
