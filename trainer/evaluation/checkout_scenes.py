"""A bundle at the till: it reads the shopping lists of rendered scenes, in three levels of clutter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.build import open_serving_from
from edge.bundle.bundle import read_bundle
from edge.config.schema import EngineConfig
from edge.errors import TrainError
from edge.gallery.generation import read_gallery
from edge.gallery.item_vectors import gathered_items
from edge.gallery.search import build_index
from edge.gallery.store import CategoryItems, read_category
from edge.inference.postprocess import iou_matrix
from edge.recognition.decision import categories_to_search
from edge.recognition.loaded_models import Serving
from edge.telemetry.timing import Timings
from edge.types import Box, Category, Decision, FloatArray, Image
from trainer.evaluation import shopping_list as checkout
from trainer.evaluation.open_set import Verdict, outcomes
from trainer.metrics import Boxes, bootstrap, detection_map
from trainer.recipe import LEAST_VISIBLE
from trainer.synthetic.items import Item, catalogue
from trainer.synthetic.scene import Scene, scene

LEVELS = {"easy": (2, 4), "medium": (5, 7), "hard": (8, 10)}  # objects of a scene, about
SIZE_PX = (640, 360)
_MATCH_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Seen:
    """One object that the detector found."""

    box_px: Box
    score: float
    categories: list[Category]  # worth a search
    vectors: dict[str, FloatArray]  # by category


def render(level: str, count: int, seed: int, items: tuple[Item, ...]) -> Iterator[Scene]:
    """Scenes of a level; the same seed gives the same ones."""
    low, high = LEVELS[level]
    for number in range(count):
        rng = np.random.default_rng([seed, list(LEVELS).index(level), number])
        yield scene(rng, items, *SIZE_PX, count=int(rng.integers(low, high + 1)))


def judge_bundle(
    bundle: Path, gallery: Path, count: int, seed: int, left_out: Collection[str], engine: EngineConfig
) -> dict[str, Any]:
    """Read the shopping list of every scene.

    Args:
        bundle: folder, with a detector.
        gallery: folder of its generation.
        count: scenes of each level.
        seed: of the scenes.
        left_out: items taken out of the gallery for the outcomes; lists are read with all of them.
        engine: that runs the bundle.

    Returns:
        by level: cAcc, ACD, mCCD, mCIoU, mAP, and the outcomes of known and unknown objects.

    Raises:
        TrainError: the bundle has no detector, or its gallery none of the synthetic items.
        BundleError, GalleryError, EngineError: bundle or gallery is unusable.
    """
    serving = open_serving_from(bundle, gallery, engine)
    if serving.stages.detector is None:
        raise TrainError(f"{bundle}: found no detector, expected one to find what is to be paid")
    held = _items_of(bundle, gallery)
    items = tuple(item for item in catalogue() if item.item_id in held.get(item.category, ()))
    if not items:
        raise TrainError(f"{gallery}: found none of the synthetic items, expected some of the scenes' things")
    reduced = replace(serving, indexes=_without(bundle, gallery, left_out))
    return {level: _judge_level(level, count, seed, items, serving, reduced, set(left_out)) for level in LEVELS}


def left_out_of(bundle: Path, gallery: Path, share: float, seed: int) -> list[str]:
    """The items of a gallery that are left out: a share of them, drawn by seed.

    Raises:
        BundleError, GalleryError: bundle or gallery is unusable.
    """
    listed = sorted(item for items in _items_of(bundle, gallery).values() for item in items)
    return list(np.random.default_rng(seed).choice(listed, round(share * len(listed)), replace=False))


def look(serving: Serving, image_rgb: Image) -> list[Seen]:
    """Find, classify and embed the objects of one picture.

    Raises:
        EngineError: a model failed.
    """
    stages, timings = serving.stages, Timings()
    if stages.detector is None:
        return []
    (found,) = stages.detector.detect([image_rgb], timings)
    seen = []
    for one in found:
        categories = [Category(name, 1.0) for name in stages.embedders]
        if stages.classifier is not None:
            rows = stages.classifier.classify(image_rgb, [one.box_px], timings)
            named = stages.classifier.name(rows[0])
            categories = categories_to_search(named, serving.category_threshold, stages.embedders)
        wanted = [category.name for category in categories if category.name in stages.embedders]
        vectors = {name: stages.embedders[name].embed(image_rgb, [one.box_px], timings)[0] for name in wanted}
        seen.append(Seen(one.box_px, one.score, categories, vectors))
    return seen


def decided(serving: Serving, seen: Seen) -> Decision:
    """What an object is, by this gallery."""
    return serving.decide(seen.categories, serving.search(seen.vectors))


def _judge_level(
    level: str, count: int, seed: int, items: tuple[Item, ...], serving: Serving, reduced: Serving, left_out: set[str]
) -> dict[str, Any]:
    names = [item.item_id for item in items]
    found_lists, true_lists, found_boxes, true_boxes = [], [], [], []
    verdicts: list[Verdict] = []
    missed: Counter[bool] = Counter()
    for shot in render(level, count, seed, items):
        seen = look(serving, shot.image_rgb)
        shown = [one for one in shot.objects if one.visible_fraction >= LEAST_VISIBLE]
        answers = [decided(serving, one).match for one in seen]
        found_lists.append(Counter(match.item_id for match in answers if match))
        true_lists.append(Counter(one.item_id for one in shown))
        boxes = np.array([one.box_px for one in seen], np.float32).reshape(-1, 4)
        found_boxes.append(Boxes(boxes, np.array([one.score for one in seen], np.float32)))
        true_boxes.append(np.array([one.box_px for one in shown], np.float32).reshape(-1, 4))
        place_of = _matched(boxes, true_boxes[-1])
        for number, one in enumerate(shown):
            known, place = one.item_id not in left_out, place_of.get(number)
            if place is None:
                missed[known] += 1
                continue
            match = decided(reduced, seen[place]).match
            answer = match.item_id if match else None
            verdicts.append(Verdict(one.item_id, known, answer, answer, match.probability if match else 0.0))
    found, true = checkout.count(found_lists, names), checkout.count(true_lists, names)
    exact, distance = checkout.checkout_accuracy(found, true), checkout.counting_distance(found, true)
    return {
        "scenes": count,
        "objects": int(true.sum()),
        "cAcc": {"mean": float(exact.mean()), "interval": list(bootstrap(exact, seed))},
        "ACD": {"mean": float(distance.mean()), "interval": list(bootstrap(distance, seed))},
        "mCCD": checkout.mean_category_distance(found, true),
        "mCIoU": checkout.mean_category_iou(found, true),
        **detection_map(found_boxes, true_boxes),
        "known": outcomes(verdicts, known=True, missed=missed[True]),
        "unknown": outcomes(verdicts, known=False, missed=missed[False]),
    }


def _matched(boxes: FloatArray, truth: FloatArray) -> dict[int, int]:
    """For each true object that was found, which box shows it; boxes are given best first."""
    place_of: dict[int, int] = {}
    if len(boxes) and len(truth):
        overlap = iou_matrix(boxes, truth)
        for place in range(len(boxes)):
            best = int(overlap[place].argmax())
            if overlap[place, best] >= _MATCH_IOU:
                place_of[best] = place
                overlap[:, best] = -1.0
    return place_of


def _read(bundle: Path, gallery: Path) -> Iterator[tuple[str, CategoryItems]]:
    manifest, generation = read_bundle(bundle, verify=False).manifest, read_gallery(gallery, verify=False)
    for model in manifest.embedders:
        for category in model.categories:
            if category in generation.categories:
                items = read_category(generation.path(category), model.space_id, model.dim)
                yield category, gathered_items(items, model.gathering)


def _items_of(bundle: Path, gallery: Path) -> Mapping[str, tuple[str, ...]]:
    return {category: items.item_ids for category, items in _read(bundle, gallery)}


def _without(bundle: Path, gallery: Path, left_out: Collection[str]) -> dict[str, Any]:
    """The search indexes of a gallery that lacks some items."""
    indexes = {}
    for category, items in _read(bundle, gallery):
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
            metadata=tuple(items.metadata[i] for i in kept),
            vectors_i8=items.vectors_i8[rows],
            scales=items.scales[rows],
            row_item=position[items.row_item[rows]],
        )
        indexes[category] = build_index(fewer)
    return indexes
