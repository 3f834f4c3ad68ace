"""The records that data-set readers produce: pictures of single objects, and whole pictures with boxes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edge.types import Box

Layout = Literal[
    "index", "folders", "coco", "voc", "yolo", "tags", "cub", "cars", "sop", "rpc", "label_studio", "cvat",
    "dogs", "aircraft", "flowers", "pets", "veri", "vehicle_id",
]  # fmt: skip
ONE_CATEGORY = "object"  # category of every item in a data set without any


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of one object."""

    path: Path
    split: str
    category: str
    item: str
    label: str = ""  # the item's name for people
    box_px: Box | None = None  # where the object is; None: the whole picture
    camera: str = ""  # that took the picture; empty: unknown
    attributes: tuple[tuple[str, str], ...] = ()  # what else is known of the object: name and value, such as colour red


@dataclass(frozen=True, slots=True)
class NamedBox:
    """One object of a picture, as the data set describes it."""

    box_px: Box  # x0 y0 x1 y1 as written in the data set: may reach outside the picture
    item: str
    category: str = ONE_CATEGORY
    visible: float = 1.0  # fraction of the object that is not hidden
    score: float | None = None  # of a proposal; None: a person drew it, or the data set gives no score
    outline: Any = None  # COCO's `segmentation` as written, where the data set has one
    item_id: str = ""  # finer than the item, where the data set has both (COCO's `item_id`)


@dataclass(frozen=True, slots=True)
class AnnotatedPicture:
    """One whole picture with named boxes, as a reader lists it."""

    path: Path
    split: str  # empty: the data set has no splits
    boxes: tuple[NamedBox, ...]
    level: str = ""
    declared_size_px: tuple[int, int] | None = None  # width and height that the annotation states


@dataclass(frozen=True, slots=True)
class Annotation:
    """What one annotation file says about one picture, before anybody looks for the picture."""

    name: str  # of the picture, as the file writes it
    boxes: tuple[NamedBox, ...]  # empty: somebody looked, and there is no object
    split: str = ""
    level: str = ""
    declared_size_px: tuple[int, int] | None = None
    times: int = 1  # how often the file lists it on purpose, to give it more weight
    sha256: str = ""  # of the picture's file, where the data set says it: names may be swapped, contents may not


@dataclass(slots=True)
class Annotations:
    """The contents of one annotation file: its pictures by name.

    A picture that nobody has answered for (skipped, never annotated, or all of its records were left out) is in
    `left_out` and not in `pictures`: no answer is not the answer "no object".
    """

    pictures: list[Annotation] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # class names, in the file's own order
    left_out: list[str] = field(default_factory=list)  # which record, and why
    noticed: list[str] = field(default_factory=list)  # what was read, but deserves a look


@dataclass(slots=True)
class Listing:
    """The contents of a data set: samples, or whole pictures with boxes."""

    layout: Layout
    samples: list[Sample] = field(default_factory=list)  # where they have boxes, using them is optional
    scenes: list[AnnotatedPicture] = field(default_factory=list)  # each of their boxes is a sample
    names: list[str] = field(default_factory=list)  # class names of the boxes, in the data set's own order
    left_out: list[str] = field(default_factory=list)  # which record, and why
    noticed: list[str] = field(default_factory=list)  # what was read, but deserves a look
