"""Re-identification of vehicles by the protocol of VeRi-776, and their attributes from the same embedder.

A vehicle is found again by another camera: see trainer.cross_camera. On data without cameras, such as VehicleID, one
picture of each vehicle, drawn at random, is the gallery and the others are the queries. An attribute is what the
nearest training vehicles say: the vehicle itself was never seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import TrainError
from trainer.tables.table import Measures, Request, Table
from trainer.tables.trained_vectors import recipe_of, train_once, vectors_of, write_index
from trainer.tables.untuned_vectors import untuned_vectors

if TYPE_CHECKING:
    from dataset_formats.records import Sample
    from edge.types import FloatArray

    Pictures = tuple[FloatArray, list[Sample]]

PIXELS, EPOCHS = 256, 60
METHODS: dict[str, dict[str, Any] | None] = {
    "untuned": None,
    "softmax": {},
    "softmax + pairs": {"pairs": 1.0},
    "triplet": {"loss": "triplet"},
}
_BATCHES = {"classes_per_batch": 16, "images_per_class": 4}  # of the losses that compare pictures


def _measure(request: Request, method: str, seed: int, folder: Path) -> Measures:
    splits = _splits(request)
    found: dict[str, Pictures]
    changes = METHODS[method]
    if changes is None:
        found = {name: untuned_vectors(request, samples, PIXELS, seed) for name, samples in splits.items()}
    else:
        index = write_index({"train": splits["train"]}, folder)
        train_once(recipe_of(request, index, seed, PIXELS, EPOCHS, _BATCHES | changes), folder / "run")
        found = {name: _embed(folder / "run", samples) for name, samples in splits.items()}
    return _across(found["query"], found["gallery"], seed) | _attributes(found["query"], found["train"])


def _splits(request: Request) -> dict[str, list[Sample]]:
    """Return the pictures of train, query and gallery.

    Raises:
        DataError: the data set cannot be read.
        TrainError: it has no such splits, or some pictures tell their camera and others do not.
    """
    from trainer.data.dataset import read_samples

    listed = read_samples(request.data, request.root, layout=request.layout)
    splits = {name: [one for one in listed if one.split == name] for name in ("train", "query", "gallery")}
    if not splits["query"]:
        splits["query"] = splits["gallery"] = [one for one in listed if one.split == "test"]
    if missing := [name for name, samples in splits.items() if not samples]:
        raise TrainError(f"{request.data}: has no pictures of {missing[0]}; give the splits train, query and gallery")
    told = {bool(one.camera) for name in ("query", "gallery") for one in splits[name]}
    if len(told) > 1:
        raise TrainError(f"{request.data}: some pictures tell their camera and others do not; give all or none")
    return splits


def _embed(run: Path, samples: Sequence[Sample]) -> Pictures:
    from trainer.models.networks import load_model

    model, card = load_model(run)
    return vectors_of(model, samples, card.preprocess)


def _across(queries: Pictures, gallery: Pictures, seed: int) -> Measures:
    from trainer.cross_camera import Views, across_cameras

    if all(one.camera for one in queries[1]):
        views = [Views(v, [s.item for s in listed], [s.camera for s in listed]) for v, listed in (queries, gallery)]
        return across_cameras(*views)
    return _one_picture_each(queries, seed)


def _one_picture_each(pictures: Pictures, seed: int) -> Measures:
    """Return the measures of VehicleID: one picture of each vehicle, drawn at random, is searched by all others."""
    import numpy as np

    from trainer.cross_camera import Views, across_cameras

    vectors, samples = pictures
    order = np.random.default_rng(seed).permutation(len(samples))
    first = {samples[place].item: place for place in order[::-1]}
    chosen = np.array(sorted(first.values()))
    others = np.setdiff1d(order, chosen)
    if not len(others):
        raise TrainError("every vehicle has one picture; re-identification needs two or more of some")
    sides = [
        Views(vectors[rows], [samples[row].item for row in rows], [name] * len(rows))
        for name, rows in (("query", others), ("gallery", chosen))
    ]
    return across_cameras(*sides)


def _attributes(queries: Pictures, training: Pictures) -> Measures:
    """Return how often each attribute is right, by the vote of the nearest training vehicles."""
    import numpy as np

    from edge.gallery.attributes import vote
    from edge.inference.postprocess import unit_rows
    from edge.recognition.decision import TOP
    from edge.types import Hit
    from trainer.catalogue.items import common_attributes

    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, sample in enumerate(training[1]):
        rows_of[sample.item].append(row)
    known = {item: dict(common_attributes([training[1][row] for row in rows])) for item, rows in rows_of.items()}
    order = np.concatenate([np.array(rows) for rows in rows_of.values()])
    starts = np.cumsum([0, *(len(rows) for rows in rows_of.values())])[:-1]
    items, stored = list(rows_of), unit_rows(training[0])[order]
    right: dict[str, list[bool]] = defaultdict(list)
    for vector, sample in zip(unit_rows(queries[0]), queries[1], strict=True):
        best = np.maximum.reduceat(stored @ vector, starts)
        hits = [Hit(items[place], items[place], float(best[place])) for place in np.argsort(-best)[:TOP]]
        true = dict(sample.attributes)
        for one in vote(hits, known):
            if one.name in true:
                right[one.name].append(one.value == true[one.name])
    return {name: float(np.mean(values)) for name, values in sorted(right.items())}


VERI = Table(
    "veri",
    "ICME-19 tutorial, vehicle re-identification; Liu et al. 2016 (VeRi-776)",
    "Vehicles found again by another camera; make, model, colour and type of vehicles that no training saw.",
    "VeRi-776, or pictures with the splits train, query and gallery, the column camera and columns attribute:NAME; or "
    "VehicleID. edge-train synthesize --vehicles renders such data",
    ("mAP", "mAP trapezoid", "CMC@1", "CMC@5", "CMC@10", "make", "model", "colour", "type"),
    lambda _: tuple(METHODS),
    _measure,
)
