"""What evaluation adds where pictures tell their camera, or attributes such as make, model and colour.

A vehicle is found again by another camera: see trainer.cross_camera. Its attributes are what near items say, as on a
device: see edge.gallery.attributes. They are measured with the whole gallery, and without the vehicle's own item, as if
it had never been seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.gallery.attributes import vote
from edge.recognition.decision import TOP
from edge.types import Attribute, Hit
from trainer.cross_camera import have_cameras, measures_across_cameras, without_own_camera
from trainer.evaluation.predictions import Predictions
from trainer.evaluation.reference_gallery import ReferenceGallery
from trainer.metrics import calibration_error, measured, rank

Table = dict[str, Any]
_KEYS = {"mAP": "map", "mAP trapezoid": "map_trapezoid", "CMC@1": "cmc_1", "CMC@5": "cmc_5", "CMC@10": "cmc_10"}


def vehicle_tables(predictions: Predictions, references: Mapping[str, ReferenceGallery], seed: int) -> Table:
    """Return `across_cameras` and `attributes`, each only where the pictures tell what it needs."""
    tables = {
        "across_cameras": _across_cameras(predictions, references, seed),
        "attributes": _attributes(predictions, references, seed),
    }
    return {name: table for name, table in tables.items() if table}


def _across_cameras(predictions: Predictions, references: Mapping[str, ReferenceGallery], seed: int) -> Table:
    """Return the measures over the queries of all categories; each is searched in the gallery of its own."""
    found: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for category, reference in references.items():
        rows, vectors = predictions.of_category(category)
        queries = [predictions.queries[row] for row in rows]
        if not have_cameras(reference.cameras) or not have_cameras([one.camera for one in queries]):
            continue
        for chunk in reference.chunks(len(rows)):
            items, cameras = ([getattr(one, key) for one in queries[chunk]] for key in ("item", "camera"))
            similar = reference.similar(vectors[chunk], predictions.query_ids[rows[chunk]])
            similar = without_own_camera(similar, items, cameras, reference.items, reference.cameras)
            for name, values in measures_across_cameras(rank(similar, items, reference.items)).items():
                found[_KEYS[name]].append(values)
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    return {name: measured(values, seed) for name, values in joined.items() if len(values)}


def _attributes(predictions: Predictions, references: Mapping[str, ReferenceGallery], seed: int) -> Table:
    """Return for each attribute how often it is right, and how far its confidence is from that."""
    told: dict[str, dict[str, list[tuple[bool, float]]]] = defaultdict(lambda: defaultdict(list))
    for category, reference in references.items():
        rows, vectors = predictions.of_category(category)
        if not reference.attributes or not len(rows):
            continue
        place = {name: number for number, name in enumerate(reference.names)}
        for chunk in reference.chunks(len(rows)):
            best = reference.best_by_item(reference.similar(vectors[chunk], predictions.query_ids[rows[chunk]]))
            for row, scores in zip(rows[chunk], best, strict=True):
                query = predictions.queries[row]
                true = dict(query.attributes) or reference.attributes.get(query.item, {})
                _note(told["whole_gallery"], vote(_nearest(reference, scores), reference.attributes), true)
                if query.item in place:
                    scores[place[query.item]] = -np.inf
                _note(told["item_left_out"], vote(_nearest(reference, scores), reference.attributes), true)
    names = sorted({name for of in told.values() for name in of})
    table: Table = {}
    for name in names:
        table[name] = {}
        for key, of in told.items():
            right = np.array([one for one, _ in of.get(name, [])], bool)
            if len(right):
                confidence = np.array([one for _, one in of[name]], np.float32)
                gap = calibration_error(confidence, right)
                table[name][key] = measured(right.astype(np.float64), seed) | {"ece": gap}
    return table


def _nearest(reference: ReferenceGallery, scores: NDArray[np.float32]) -> Sequence[Hit]:
    """Return the nearest items, as many as an event carries, best first."""
    order = [place for place in np.argsort(-scores, kind="stable")[:TOP] if scores[place] > -np.inf]
    return [Hit(reference.names[place], reference.names[place], float(scores[place])) for place in order]


def _note(told: dict[str, list[tuple[bool, float]]], voted: Sequence[Attribute], true: Mapping[str, str]) -> None:
    for one in voted:
        if one.name in true:
            told[one.name].append((one.value == true[one.name], one.confidence))
