"""What a data set lists: pictures of single objects, whole scenes with boxes, and what a reader noticed on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.types import Box, FloatArray

Layout = Literal["index", "folders", "coco", "voc", "yolo", "tags", "cub", "cars", "sop", "rpc"]
ONE_CATEGORY = "object"  # of every item, where a data set has no meta-categories
VAL_EVERY = 5  # of a data set without splits, the pictures of each item that are held out


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of one object."""

    path: Path
    split: str
    category: str
    item: str
    label: str = ""  # of the item, for people
    box_px: Box | None = None  # that the object is cut out by; None: the whole picture


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture with its boxes."""

    path: Path
    boxes_px: FloatArray  # (n, 4), x0 y0 x1 y1
    labels: NDArray[np.int64]  # (n,)
    split: str = ""  # none: it belongs to every split
    level: str = ""  # of clutter, where the data set says one: easy, medium, hard


@dataclass(frozen=True, slots=True)
class NamedBox:
    """One object of a picture, as a data set describes it."""

    box_px: Box  # as written there: may lie outside the picture
    item: str
    category: str = ONE_CATEGORY
    visible: float = 1.0  # fraction


@dataclass(frozen=True, slots=True)
class Boxed:
    """One picture with named boxes."""

    path: Path
    split: str  # none: the data set says none
    boxes: tuple[NamedBox, ...]
    level: str = ""
    told_px: tuple[int, int] | None = None  # width and height that the annotation says the picture has


@dataclass(slots=True)
class Listing:
    """All that a data set lists: samples, or scenes."""

    layout: Layout
    samples: list[Sample] = field(default_factory=list)  # their boxes, where any, may be used or not
    scenes: list[Boxed] = field(default_factory=list)  # of which each box is a sample
    names: list[str] = field(default_factory=list)  # of the boxes, in the data set's own order
    notes: list[str] = field(default_factory=list)  # what was left out, and why


def split_named(name: str) -> str:
    """The split that a folder's or file's name tells; none for any other name."""
    known = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
    name = known.get(name.lower(), name.lower())
    return name if name in {"train", "val", "test", "catalogue", "gallery", "iconic", "query"} else ""


def held_out(number: int) -> str:
    """The split of the n-th picture of an item, where a data set has no splits."""
    return "val" if number % VAL_EVERY == VAL_EVERY - 1 else "train"
