"""Checkout evaluation: how well a bundle reads the shopping lists of rendered scenes, in three levels of clutter.

The measures are those of RPC (Wei et al. 2019).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.build import load_models
from edge.bundle.bundle import read_bundle
from edge.config.schema import EngineConfig
from edge.errors import TrainError
from edge.gallery.generation import read_gallery
from edge.gallery.item_vectors import shrink_items_to_centroid
from edge.gallery.search import build_index
from edge.gallery.store import CategoryItems, read_category
from edge.inference.postprocess import iou_matrix
from edge.recognition.decision import categories_to_search
from edge.recognition.loaded_models import LoadedModels
from edge.telemetry.timing import Timings
from edge.types import Box, Category, Decision, FloatArray, Image
from trainer.evaluation.open_set import QueryResult, certainty_of, outcomes
from trainer.metrics import Boxes, bootstrap, detection_map
from trainer.recipe import LEAST_VISIBLE
from trainer.synthetic.items import Item, catalogue
from trainer.synthetic.scene import Scene, scene

LEVELS = {"easy": (2, 4), "medium": (5, 7), "hard": (8, 10)}  # objects of a scene, roughly
SIZE_PX = (640, 360)
_MATCH_IOU = 0.5

Counts = NDArray[np.int64]  # (pictures, items)


@dataclass(frozen=True, slots=True)
class DetectedObject:
    """An object that the detector found."""

    box_px: Box
    score: float
    categories: list[Category]  # categories to search
    vectors: dict[str, FloatArray]  # by category


def render_scenes(level: str, count: int, seed: int, items: tuple[Item, ...]) -> Iterator[Scene]:
    """Render the scenes of a level; the same seed gives the same scenes."""
    low, high = LEVELS[level]
    for number in range(count):
        rng = np.random.default_rng([seed, list(LEVELS).index(level), number])
        yield scene(rng, items, *SIZE_PX, count=int(rng.integers(low, high + 1)))


def evaluate_checkout(
    bundle: Path, gallery: Path, count: int, seed: int, left_out: Collection[str], engine: EngineConfig
) -> dict[str, Any]:
    """Read the shopping list of every scene and measure its accuracy.

    Args:
        bundle: folder of a bundle with a detector.
        gallery: folder of its gallery generation.
        count: scenes of each level.
        seed: seed of the scenes.
        left_out: items left out of the gallery for the outcomes; lists are read with the whole gallery.
        engine: settings of the engine that runs the bundle.

    Returns:
        by level: cAcc, ACD, mCCD, mCIoU, mAP, and the outcomes of known and unknown objects.

    Raises:
        TrainError: the bundle has no detector, or its gallery holds none of the synthetic items.
        BundleError, GalleryError, EngineError: bundle or gallery is unusable.
    """
    models = load_models(bundle, gallery, engine)
    if models.stages.detector is None:
        raise TrainError(f"{bundle}: the bundle has no detector; --checkout needs one")
    gallery_items = _item_ids(bundle, gallery)
    items = tuple(item for item in catalogue() if item.item_id in gallery_items.get(item.category, ()))
    if not items:
        raise TrainError(f"{gallery}: the gallery holds none of the synthetic items; --checkout renders only those")
    models_reduced = replace(models, indexes=_indexes_without(bundle, gallery, left_out))
    return {
        level: _evaluate_level(level, count, seed, items, models, models_reduced, set(left_out)) for level in LEVELS
    }


def choose_left_out(bundle: Path, gallery: Path, share: float, seed: int) -> list[str]:
    """Draw the share of a gallery's items to leave out.

    Raises:
        BundleError, GalleryError: bundle or gallery is unusable.
    """
    listed = sorted(item for items in _item_ids(bundle, gallery).values() for item in items)
    return list(np.random.default_rng(seed).choice(listed, round(share * len(listed)), replace=False))


def detect_objects(models: LoadedModels, image_rgb: Image) -> list[DetectedObject]:
    """Find, classify and embed the objects of one picture.

    Raises:
        EngineError: a model failed.
    """
    stages, timings = models.stages, Timings()
    if stages.detector is None:
        return []
    (found,) = stages.detector.detect([image_rgb], timings)
    detected = []
    for one in found:
        categories = [Category(name, 1.0) for name in stages.embedders]
        if stages.classifier is not None:
            rows = stages.classifier.classify(image_rgb, [one.box_px], timings)
            named = stages.classifier.rank_categories(rows[0])
            categories = categories_to_search(named, models.category_threshold, stages.embedders)
        wanted = [category.name for category in categories if category.name in stages.embedders]
        vectors = {name: stages.embedders[name].embed(image_rgb, [one.box_px], timings)[0] for name in wanted}
        detected.append(DetectedObject(one.box_px, one.score, categories, vectors))
    return detected


def decide_object(models: LoadedModels, detected: DetectedObject) -> Decision:
    """Decide which item an object is, by the gallery of these models."""
    return models.decide(detected.categories, models.search(detected.vectors))


def _evaluate_level(
    level: str,
    count: int,
    seed: int,
    items: tuple[Item, ...],
    models: LoadedModels,
    models_reduced: LoadedModels,
    left_out: set[str],
) -> dict[str, Any]:
    names = [item.item_id for item in items]
    found_lists, true_lists, found_boxes, true_boxes = [], [], [], []
    query_results: list[QueryResult] = []
    missed: Counter[bool] = Counter()
    for rendered in render_scenes(level, count, seed, items):
        detected = detect_objects(models, rendered.image_rgb)
        shown = [one for one in rendered.objects if one.visible_fraction >= LEAST_VISIBLE]
        answers = [decide_object(models, one).match for one in detected]
        found_lists.append(Counter(match.item_id for match in answers if match))
        true_lists.append(Counter(one.item_id for one in shown))
        boxes = np.array([one.box_px for one in detected], np.float32).reshape(-1, 4)
        found_boxes.append(Boxes(boxes, np.array([one.score for one in detected], np.float32)))
        true_boxes.append(np.array([one.box_px for one in shown], np.float32).reshape(-1, 4))
        box_of = _match_boxes(boxes, true_boxes[-1])
        for number, one in enumerate(shown):
            known, place = one.item_id not in left_out, box_of.get(number)
            if place is None:
                missed[known] += 1
                continue
            match = decide_object(models_reduced, detected[place]).match
            answer = match.item_id if match else None
            query_results.append(QueryResult(one.item_id, known, answer, answer, certainty_of(match) if match else 0.0))
    found, true = count_items(found_lists, names), count_items(true_lists, names)
    exact, distance = checkout_accuracy(found, true), counting_distance(found, true)
    return {
        "scenes": count,
        "objects": int(true.sum()),
        "cAcc": {"mean": float(exact.mean()), "interval": list(bootstrap(exact, seed))},
        "ACD": {"mean": float(distance.mean()), "interval": list(bootstrap(distance, seed))},
        "mCCD": mean_category_distance(found, true),
        "mCIoU": mean_category_iou(found, true),
        **detection_map(found_boxes, true_boxes),
        "known": outcomes(query_results, known=True, missed=missed[True]),
        "unknown": outcomes(query_results, known=False, missed=missed[False]),
    }


def _match_boxes(boxes: FloatArray, truth: FloatArray) -> dict[int, int]:
    """Match boxes, best first, to true objects: true index to box index, each true object once."""
    box_of: dict[int, int] = {}
    if len(boxes) and len(truth):
        overlap = iou_matrix(boxes, truth)
        for place in range(len(boxes)):
            best = int(overlap[place].argmax())
            if overlap[place, best] >= _MATCH_IOU:
                box_of[best] = place
                overlap[:, best] = -1.0
    return box_of


def _read_categories(bundle: Path, gallery: Path) -> Iterator[tuple[str, CategoryItems]]:
    manifest, generation = read_bundle(bundle, verify=False).manifest, read_gallery(gallery, verify=False)
    for model in manifest.embedders:
        for category in model.categories:
            if category in generation.categories:
                items = read_category(generation.path(category), model.space_id, model.dim)
                yield category, shrink_items_to_centroid(items, model.gathering)


def _item_ids(bundle: Path, gallery: Path) -> Mapping[str, tuple[str, ...]]:
    return {category: tuple(items.item_ids) for category, items in _read_categories(bundle, gallery)}


def _indexes_without(bundle: Path, gallery: Path, left_out: Collection[str]) -> dict[str, Any]:
    """Build the search indexes of a gallery without some items."""
    indexes = {}
    for category, items in _read_categories(bundle, gallery):
        kept = [i for i, item in enumerate(items.item_ids) if item not in left_out]
        rows = np.isin(items.row_item, kept)
        if not rows.any():
            continue
        position = np.full(len(items.item_ids), -1, np.int32)
        position[kept] = np.arange(len(kept))
        fewer = replace(
            items,
            item_ids=tuple(items.item_ids[i] for i in kept),
            labels=tuple(items.labels[i] for i in kept),
            negative=items.negative[kept],
            vectors_i8=items.vectors_i8[rows],
            scales=items.scales[rows],
            row_item=position[items.row_item[rows]],
        )
        indexes[category] = build_index(fewer)
    return indexes


def count_items(lists: Sequence[Mapping[str, int]], items: Sequence[str]) -> Counts:
    """Turn shopping lists into rows of counts, one column per item; other items are ignored."""
    return np.array([[one.get(item, 0) for item in items] for one in lists], np.int64).reshape(len(lists), len(items))


def checkout_accuracy(found: Counts, true: Counts) -> NDArray[np.float64]:
    """Return 1 for each picture whose counts are all right, else 0; the mean is cAcc."""
    return np.asarray((found == true).all(axis=1), np.float64)


def counting_distance(found: Counts, true: Counts) -> NDArray[np.float64]:
    """Return by how many objects the list of each picture is wrong; the mean is ACD."""
    return np.asarray(np.abs(found - true).sum(axis=1), np.float64)


def mean_category_distance(found: Counts, true: Counts) -> float:
    """Return mCCD: the distance of each item over its true objects, averaged over the items that are shown."""
    shown = true.sum(axis=0)
    wrong = np.abs(found - true).sum(axis=0)
    return float((wrong[shown > 0] / shown[shown > 0]).mean()) if (shown > 0).any() else 0.0


def mean_category_iou(found: Counts, true: Counts) -> float:
    """Return mCIoU: the lesser over the greater count of each item, averaged over the items shown or found."""
    less, more = np.minimum(found, true).sum(axis=0), np.maximum(found, true).sum(axis=0)
    return float((less[more > 0] / more[more > 0]).mean()) if (more > 0).any() else 1.0
