"""The records that data-set readers produce: pictures of single objects, and whole pictures with boxes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.types import Box, FloatArray

Layout = Literal["index", "folders", "coco", "voc", "yolo", "tags", "cub", "cars", "sop", "rpc"]
ONE_CATEGORY = "object"  # category of every item in a data set without any
VAL_EVERY = 5  # in a data set without splits, every fifth picture of an item is for validation


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of one object."""

    path: Path
    split: str
    category: str
    item: str
    label: str = ""  # the item's name for people
    box_px: Box | None = None  # where the object is; None: the whole picture


@dataclass(frozen=True, slots=True)
class DetectionSample:
    """One whole picture with its boxes, as the detector trains on it."""

    path: Path
    boxes_px: FloatArray  # (n, 4), x0 y0 x1 y1
    labels: NDArray[np.int64]  # (n,) class numbers
    split: str = ""  # empty: it belongs to every split
    level: str = ""  # amount of clutter: easy, medium or hard; empty where the data set has none


@dataclass(frozen=True, slots=True)
class NamedBox:
    """One object of a picture, as the data set describes it."""

    box_px: Box  # as written in the data set: may reach outside the picture
    item: str
    category: str = ONE_CATEGORY
    visible: float = 1.0  # fraction of the object that is not hidden


@dataclass(frozen=True, slots=True)
class AnnotatedPicture:
    """One whole picture with named boxes, as a reader lists it."""

    path: Path
    split: str  # empty: the data set has no splits
    boxes: tuple[NamedBox, ...]
    level: str = ""
    declared_size_px: tuple[int, int] | None = None  # width and height that the annotation states


@dataclass(slots=True)
class Listing:
    """The contents of a data set: samples, or whole pictures with boxes."""

    layout: Layout
    samples: list[Sample] = field(default_factory=list)  # where they have boxes, using them is optional
    scenes: list[AnnotatedPicture] = field(default_factory=list)  # each of their boxes is a sample
    names: list[str] = field(default_factory=list)  # class names of the boxes, in the data set's own order
    notes: list[str] = field(default_factory=list)  # what was left out, and why


def split_from_name(name: str) -> str:
    """Return the split that a folder or file name stands for; empty for any other name."""
    known = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
    name = known.get(name.lower(), name.lower())
    return name if name in {"train", "val", "test", "catalogue", "gallery", "iconic", "query"} else ""


def default_split(number: int) -> str:
    """Return the split of an item's n-th picture in a data set without splits."""
    return "val" if number % VAL_EVERY == VAL_EVERY - 1 else "train"
