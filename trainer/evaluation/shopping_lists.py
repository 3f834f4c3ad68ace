"""Shopping lists: what a bundle reads in whole pictures through its whole chain, and the measures of many of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.inference.postprocess import iou_matrix
from edge.recognition.decision import categories_to_search
from edge.recognition.loaded_models import LoadedModels
from edge.telemetry.timing import Timings
from edge.types import Box, Category, Decision, FloatArray, Image, Match
from trainer.class_metrics import LabelledBoxes, map_by_label, mean_over_labels
from trainer.evaluation.checkout_measures import checkout_measures, count_items
from trainer.evaluation.open_set import QueryResult, certainty_of, outcomes
from trainer.metrics import Boxes, detection_map

_MATCH_IOU = 0.5


@dataclass(frozen=True, slots=True)
class DetectedObject:
    """An object that the detector found."""

    box_px: Box
    score: float
    categories: list[Category]  # categories to search
    vectors: dict[str, FloatArray]  # by category


@dataclass(frozen=True, slots=True)
class TrueObject:
    """An object that a picture shows."""

    box_px: Box
    item: str


@dataclass(frozen=True, slots=True)
class ReadScene:
    """One picture: what it shows, and what a bundle read."""

    shown: Sequence[TrueObject]
    detected: Sequence[DetectedObject]  # best first
    answers: Sequence[Match | None]  # of `detected`, with the whole gallery; None: unknown
    reduced: Sequence[Match | None]  # the same with some items left out of the gallery


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


def read_scene(
    models: LoadedModels, image_rgb: Image, shown: Sequence[TrueObject], models_reduced: LoadedModels | None = None
) -> ReadScene:
    """Read the shopping list of one picture.

    Args:
        models: the bundle with its whole gallery.
        image_rgb: the picture.
        shown: what it shows.
        models_reduced: the same bundle with some items left out of the gallery; None: with none left out.

    Raises:
        EngineError: a model failed.
    """
    detected = detect_objects(models, image_rgb)
    answers = [decide_object(models, one).match for one in detected]
    reduced = answers if models_reduced is None else [decide_object(models_reduced, one).match for one in detected]
    return ReadScene(shown, detected, answers, reduced)


def measure_lists(scenes: Sequence[ReadScene], known: Collection[str], seed: int) -> dict[str, Any]:
    """Measure the lists, the boxes, the boxes item by item, and the outcomes of the objects.

    A list holds the items that were found, and those of the gallery; an item that the gallery lacks can only be
    missing from it. The score of a box of an item is the detector's, times the certainty of the item.

    Args:
        scenes: what was read.
        known: items of the reduced gallery, for the outcomes.
        seed: of the bootstrap intervals.

    Returns:
        cAcc, ACD, mCCD, mCIoU, `map50` and `map50_95` of boxes of any item, `item_map50` and `item_map50_95` averaged
        over items, `by_item`, and the shares of the outcomes of `known` and `unknown` objects.
    """
    true_lists = [Counter(one.item for one in scene.shown) for scene in scenes]
    found_lists = [Counter(match.item_id for match in scene.answers if match) for scene in scenes]
    names = sorted({item for one in (*true_lists, *found_lists) for item in one})
    position = {name: number for number, name in enumerate(names)}
    found = [_found_boxes(scene, position) for scene in scenes]
    truths = [_true_boxes(scene, position) for scene in scenes]
    by_item = map_by_label(found, truths, names)
    results, missed = _outcomes(scenes, known)
    return {
        **checkout_measures(count_items(found_lists, names), count_items(true_lists, names), seed),
        **detection_map([_detected_boxes(scene) for scene in scenes], [one.boxes_px for one in truths]),
        **mean_over_labels(by_item),
        "by_item": by_item,
        "known": outcomes(results, known=True, missed=missed[True]),
        "unknown": outcomes(results, known=False, missed=missed[False]),
    }


def match_objects(boxes_px: FloatArray, truth_px: FloatArray) -> dict[int, int]:
    """Match boxes, best first, to true objects: true index to box index, each true object once."""
    box_of: dict[int, int] = {}
    if len(boxes_px) and len(truth_px):
        overlap = iou_matrix(boxes_px, truth_px)
        for place in range(len(boxes_px)):
            best = int(overlap[place].argmax())
            if overlap[place, best] >= _MATCH_IOU:
                box_of[best] = place
                overlap[:, best] = -1.0
    return box_of


def _outcomes(scenes: Sequence[ReadScene], known: Collection[str]) -> tuple[list[QueryResult], Counter[bool]]:
    results: list[QueryResult] = []
    missed: Counter[bool] = Counter()
    for scene in scenes:
        truth_px = np.array([one.box_px for one in scene.shown], np.float32).reshape(-1, 4)
        box_of = match_objects(_detected_boxes(scene).boxes_px, truth_px)
        for number, one in enumerate(scene.shown):
            is_known, place = one.item in known, box_of.get(number)
            if place is None:
                missed[is_known] += 1
                continue
            match = scene.reduced[place]
            answer = match.item_id if match else None
            score = certainty_of(match) if match else 0.0
            results.append(QueryResult(one.item, is_known, answer, answer, score))
    return results, missed


def _detected_boxes(scene: ReadScene) -> Boxes:
    boxes = np.array([one.box_px for one in scene.detected], np.float32).reshape(-1, 4)
    return Boxes(boxes, np.array([one.score for one in scene.detected], np.float32))


def _found_boxes(scene: ReadScene, position: dict[str, int]) -> LabelledBoxes:
    boxes = _detected_boxes(scene)
    labels = [position[match.item_id] if match else -1 for match in scene.answers]
    certainty = [certainty_of(match) if match else 0.0 for match in scene.answers]
    return LabelledBoxes(boxes.boxes_px, np.array(labels, np.int64), boxes.scores * np.array(certainty, np.float32))


def _true_boxes(scene: ReadScene, position: dict[str, int]) -> LabelledBoxes:
    boxes = np.array([one.box_px for one in scene.shown], np.float32).reshape(-1, 4)
    labels = np.array([position[one.item] for one in scene.shown], np.int64)
    return LabelledBoxes(boxes, labels, np.ones(len(labels), np.float32))
