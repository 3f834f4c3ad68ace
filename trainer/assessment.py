"""Examination of trained models together: coarse, fine, and one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import TrainError
from trainer.crops import answers
from trainer.data import Sample, choose, load_canvases, load_pictures, read_samples, read_scenes
from trainer.detector import examine, place_scenes
from trainer.evaluate import bootstrap, map_at_r, per_class, recall_at, similarity
from trainer.models import load_model
from trainer.recipe import LEAST_VISIBLE

FloatTable = dict[str, Any]


def assess(
    classifier: Path | None, embedders: Sequence[Path], index: Path, root: Path | None, query: str, gallery: str
) -> FloatTable:
    """Recognise every query picture among the gallery pictures of its category.

    Args:
        classifier: run folder; None: the true category is given.
        embedders: run folders.
        index: data set, see trainer.data.read_samples.
        root: of its paths.
        query: split of the pictures to recognise.
        gallery: split of the pictures to recognise them by; `catalogue` is trimmed.

    Returns:
        by measure: mean, 95 % interval and number of pictures; for each category, and `end_to_end` over all.

    Raises:
        TrainError: models or data are missing or unusable.
    """
    samples = read_samples(index, root)
    queries, known = choose(samples, [query]), choose(samples, [gallery])
    for split, found in (query, queries), (gallery, known):
        if not found:
            raise TrainError(f"{index}: found no picture of split {split!r}, expected some")
    routed, report = _route(classifier, queries)
    right_by_path: dict[Path, float] = {}
    for folder in embedders:
        model, card = load_model(folder)
        if card.kind != "embedder":
            raise TrainError(f"{folder}: found a {card.kind}, expected an embedder")
        for category in card.categories:
            asked, canvases, _ = load_canvases(choose(queries, [query], [category]), card.preprocess)
            listed, known_canvases, _ = load_canvases(
                choose(known, [gallery], [category]), card.preprocess, ["catalogue"]
            )
            if not asked or not listed:
                continue
            vectors, among = (answers(model, c, card.preprocess) for c in (canvases, known_canvases))
            items, known_items = [s.item for s in asked], [s.item for s in listed]
            similar = similarity(vectors, among)
            top = recall_at(similar, items, known_items, 1)
            report[category] = {
                "top_1": _measure(top),
                "recall_5": _measure(recall_at(similar, items, known_items, 5)),
                "map_r": _measure(map_at_r(similar, items, known_items)),
            }
            for sample, hit in zip(asked, top, strict=True):
                right_by_path[sample.path] = float(hit) * float(routed.get(sample.path, category) == category)
    if right_by_path:
        report["end_to_end"] = {"top_1": _measure(np.array(list(right_by_path.values())))}
    return report


def assess_detector(folder: Path, scenes: Path, root: Path | None, split: str) -> FloatTable:
    """Find the objects of every scene of a split: mAP50, mAP50-95, best F1.

    Raises:
        TrainError: model or data are missing or unusable.
    """
    module, card = load_model(folder)
    if card.kind != "detector":
        raise TrainError(f"{folder}: found a {card.kind}, expected a detector")
    listed, _ = read_scenes(scenes, root, [split], least_visible=LEAST_VISIBLE)
    return dict(examine(module, place_scenes(load_pictures(listed, None), card.preprocess), card))


def _route(classifier: Path | None, queries: list[Sample]) -> tuple[dict[Path, str], FloatTable]:
    """The category the classifier gives each picture, and how good it is at that."""
    if classifier is None:
        return {}, {}
    model, card = load_model(classifier)
    asked, canvases, skipped = load_canvases([s for s in queries if s.category in card.labels], card.preprocess)
    named = [card.labels[i] for i in answers(model, canvases, card.preprocess).argmax(axis=1)]
    true = [sample.category for sample in asked]
    right = (np.asarray(named) == np.asarray(true)).astype(np.float64)
    coarse = {"accuracy": _measure(right), "per_class": per_class(named, true), "skipped": len(skipped)}
    return {s.path: name for s, name in zip(asked, named, strict=True)}, {"coarse": coarse}


def _measure(values: np.ndarray) -> dict[str, Any]:
    return {"mean": float(values.mean()), "interval": list(bootstrap(values)), "count": len(values)}
