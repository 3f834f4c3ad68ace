"""What the tables of embedders share: their pictures, a training that is not repeated, and the vectors it gives."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_formats.records import Sample
from edge.errors import DataError, TrainError
from trainer.tables.table import Request

if TYPE_CHECKING:
    from torch import nn

    from edge.manifest.model import Preprocess
    from edge.types import FloatArray
    from trainer.embedder_recipe import EmbedderRecipe

log = logging.getLogger(__name__)

_CHUNK = 512  # pictures in memory at a time

Splits = Mapping[str, Sequence[Sample]]


def class_disjoint(request: Request) -> dict[str, list[Sample]]:
    """Return the pictures of classes to train, and the pictures of other classes to test.

    Published data sets are split as published. Another data set keeps its splits if `train` and `test` share no class;
    else the first half of its classes, by name, is trained (as in CUB and Cars), whatever their split.

    Raises:
        DataError: the data set cannot be read.
        TrainError: it has fewer than four classes.
    """
    from trainer.data.dataset import read_samples
    from trainer.recipe_parts import Split

    why = "its splits are not of different classes"
    try:
        published = Split(how="published", val=0.0)
        listed = read_samples(request.data, request.root, layout=request.layout, split=published)
    except DataError as error:  # this layout has no published split, or lacks a file that it needs
        why = str(error)
        listed = read_samples(request.data, request.root, layout=request.layout)
    splits = {name: [s for s in listed if s.split == name] for name in ("train", "test")}
    trained, tested = ({class_of(s) for s in samples} for samples in splits.values())
    if trained and tested and not trained & tested:
        return splits
    classes = sorted({class_of(s) for s in listed})
    if len(classes) < 4:  # two to train, two to test
        raise TrainError(f"{request.data}: has {len(classes)} classes; a class-disjoint split needs four or more")
    first = set(classes[: (len(classes) + 1) // 2])
    log.warning(
        "%s: the first %s of %s classes, by name, are trained (%s)", request.data, len(first), len(classes), why
    )
    return {
        "train": [s for s in listed if class_of(s) in first],
        "test": [s for s in listed if class_of(s) not in first],
    }


def own_splits(request: Request) -> dict[str, list[Sample]]:
    """Return the pictures to train and to test, of the same classes: the splits `train` and `test`, or `val`.

    Raises:
        DataError: the data set cannot be read.
        TrainError: it has no pictures of one of the two.
    """
    from trainer.data.dataset import read_samples

    listed = read_samples(request.data, request.root, layout=request.layout)
    train = [s for s in listed if s.split == "train"]
    known = {class_of(s) for s in train}
    for name in ("test", "val"):
        shown = [s for s in listed if s.split == name]
        if test := [s for s in shown if class_of(s) in known]:
            if left_out := len(shown) - len(test):
                log.warning("%s: left out %s of %s: train lacks their classes", request.data, left_out, name)
            return {"train": train, "test": test}
    raise TrainError(f"{request.data}: has no pictures of the split test or val whose class is in train")


def class_of(sample: Sample) -> str:
    """Return the name of a picture's class, which is its item; items of two categories differ."""
    return f"{sample.category}/{sample.item}"


def write_index(splits: Splits, out: Path, *, as_category: bool = False) -> Path:
    """Write an index.csv of the splits, in which the class is the item, or with `as_category` also the category.

    Raises:
        TrainError: a picture has a box; the tables need pictures of single objects.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "split", "category", "item"))
        for split, samples in splits.items():
            for one in samples:
                if one.box_px is not None:
                    raise TrainError(f"{one.path}: has a box; cut the objects out first, see edge-train crops")
                category = class_of(one) if as_category else one.category
                writer.writerow((one.path.resolve(), split, category, class_of(one)))
    return out / "index.csv"


def network_input(request: Request, pixels: int) -> dict[str, Any]:
    """Return the input of a recipe: stretched to the request's size or this one, as the request's weights expect it.

    Raises:
        TrainError: the weights are a file of no known network.
    """
    from trainer.models.published_weights import choose_weights

    side = request.pixels or pixels
    mean = choose_weights(request.weights).mean if Path(request.weights).is_file() else None
    return {"width": side, "height": side, "resize": "stretch", "mean": mean, "std": mean}


def recipe_of(
    request: Request, index: Path, seed: int, pixels: int, epochs: int, changes: Mapping[str, Any] | None = None
) -> EmbedderRecipe:
    """Return the default recipe of an embedder with what the request states, and changes of a row."""
    from trainer.embedder_recipe import EmbedderRecipe

    length = request.epochs or epochs
    fields = {
        "kind": "embedder",
        "seed": seed,
        "data": {"index": index, "val_splits": [], "gallery_splits": []},
        "input": network_input(request, pixels),
        "backbone": {"name": request.backbone, "pretrained": request.weights},
        "optimiser": {"epochs": length, "evaluate_every": length},
    }
    return EmbedderRecipe.model_validate(fields | dict(changes or {}))


def train_once(recipe: EmbedderRecipe, run: Path) -> None:
    """Train an embedder into a run folder, unless it is trained.

    Raises:
        TrainError: the data is unusable, or training failed.
    """
    from trainer.loop.training_loop import keep_freed_memory
    from trainer.models.networks import CARD_FILE
    from trainer.tasks.embedder import train_embedders

    if not (run / CARD_FILE).is_file():
        keep_freed_memory()
        train_embedders(recipe, run)


def embed(run: Path, samples: Sequence[Sample], heads: Sequence[str] = ()) -> tuple[FloatArray, list[str]]:
    """Return the vectors (n, dim) of the readable pictures by a trained embedder, and the class of each.

    Args:
        run: its run folder.
        samples: pictures of single objects.
        heads: names of the heads to keep of the vectors; empty: all.

    Raises:
        TrainError: the run cannot be used.
    """
    from trainer.models.networks import load_model
    from trainer.tasks.shrink_embedder import truncate_vectors

    model, card = load_model(run)
    vectors, shown = vectors_of(model, samples, card.preprocess)
    return (truncate_vectors(vectors, card.vector_parts, heads) if heads else vectors), [class_of(s) for s in shown]


def vectors_of(module: nn.Module, samples: Sequence[Sample], spec: Preprocess) -> tuple[FloatArray, list[Sample]]:
    """Return what a network gives for each readable picture, (n, dim), and its sample.

    Raises:
        TrainError: no picture can be read, or a vector holds no numbers.
    """
    import numpy as np

    from trainer.data.crops import predict
    from trainer.data.pictures import load_canvases

    vectors, shown = [], []
    for start in range(0, len(samples), _CHUNK):
        readable, canvases, _ = load_canvases(samples[start : start + _CHUNK], spec)
        vectors.append(predict(module, canvases, spec))
        shown += readable
    found = np.concatenate(vectors)
    if wrong := int((~np.isfinite(found)).any(axis=1).sum()):  # else they would be left out of every mean
        raise TrainError(f"{wrong} of {len(found)} vectors are not finite; train with a lower rate or other weights")
    return found, shown
