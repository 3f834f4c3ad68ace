"""What the protocol alone does to a number: one embedder, measured in the ways that publications and shops measure.

Musgrave et al. 2020 show that much of what papers gain comes from their protocols. A number can be quoted only with its
protocol: which classes were trained, and what a picture is searched among. Among each other is leave-one-out: each
test picture is searched among all other test pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.tables.retrieval_measures import AP_AT, RECALL_AT, measure_names, retrieval_measures
from trainer.tables.table import Measures, Request, Table
from trainer.tables.trained_vectors import (
    class_disjoint,
    class_of,
    embed,
    own_splits,
    recipe_of,
    train_once,
    write_index,
)
from trainer.tables.untuned_vectors import untuned_vectors

if TYPE_CHECKING:
    from dataset_formats.records import Sample

PIXELS, EPOCHS = 224, 30
_NEW_UNTUNED = "new classes among each other (untuned)"
_NEW = "new classes among each other"
_KNOWN = "trained classes among each other"
_SHOP = "trained classes in the training pictures"
METHODS = (_NEW_UNTUNED, _NEW, _KNOWN, _SHOP)


def _measure(request: Request, method: str, seed: int, _folder: Path) -> Measures:
    new = method in (_NEW_UNTUNED, _NEW)
    splits = class_disjoint(request) if new else own_splits(request)
    if method == _NEW_UNTUNED:
        vectors, shown = untuned_vectors(request, splits["test"], PIXELS, seed)
        return retrieval_measures(vectors, [class_of(one) for one in shown])
    run = _trained(request, splits["train"], seed, "new" if new else "known")
    vectors, classes = embed(run, splits["test"])
    if method == _SHOP:
        return retrieval_measures(vectors, classes, *embed(run, splits["train"]))
    return retrieval_measures(vectors, classes)


def _trained(request: Request, training: Sequence[Sample], seed: int, classes: str) -> Path:
    """Return the run of an embedder that the rows of these training classes share."""
    folder = request.runs / f"trained-{classes}-classes-{seed}"
    recipe = recipe_of(request, write_index({"train": training}, folder), seed, PIXELS, EPOCHS)
    train_once(recipe, folder / "run")
    return folder / "run"


RETRIEVAL_PROTOCOL = Table(
    "retrieval-protocol",
    "HDCL (Neurocomputing 2021), section 4.1, and Musgrave et al. 2020",
    "One embedder by four protocols: classes that were trained or not, searched among each other or among the "
    "training pictures.",
    "pictures of single objects with the splits train, and test or val; four classes or more",
    tuple(measure_names(RECALL_AT, AP_AT)),
    lambda _: METHODS,
    _measure,
)
