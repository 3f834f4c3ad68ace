"""The records that data-set readers produce: pictures of single objects, and whole pictures with boxes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from edge.types import Box

Layout = Literal["index", "folders", "coco", "voc", "yolo", "tags", "cub", "cars", "sop", "rpc", "label_studio", "cvat"]
ONE_CATEGORY = "object"  # category of every item in a data set without any
VAL_EVERY = 5  # in a data set without splits, every fifth picture of an item is for validation
_SPLITS = ("train", "val", "test", "catalogue", "gallery", "iconic", "query")
_ALSO_CALLED = {"training": "train", "valid": "val", "validation": "val", "testing": "test", "trainval": "train"}


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


def split_from_name(name: str) -> str:
    """Return the split that a folder, file or column value stands for; empty for any other name.

    Case, blanks and a year (`val2017`) do not matter; only whole names count: `latest` is not `test`.
    """
    name = name.strip().casefold()
    name = name[:-4] if len(name) > 4 and name[-4:].isdecimal() and name[-4:-2] in ("19", "20") else name
    name = name.rstrip("_- ")
    name = _ALSO_CALLED.get(name, name)
    return name if name in _SPLITS else ""


def default_split(number: int) -> str:
    """Return the split of an item's n-th picture in a data set without splits."""
    return "val" if number % VAL_EVERY == VAL_EVERY - 1 else "train"


def printable(text: object) -> str:
    """Return a text that can be printed; it shows the bytes of a file name that is not UTF-8."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def in_bulk(what: str, examples: Collection[object], first: int = 3) -> list[str]:
    """Return one line with the count and the first examples of what happened often; no line if it never did."""
    if not examples:
        return []
    more = ", …" if len(examples) > first else ""
    return [f"{what}: {len(examples)} ({', '.join(str(one) for one in list(examples)[:first])}{more})"]


class Reported(Protocol):
    """What a reader read: it says what it left out and what it noticed."""

    left_out: list[str]
    noticed: list[str]


def report(listing: Reported, source: object, first: int = 5) -> list[str]:
    """Return lines that say what a reader left out and noticed: the counts, and the first few of each."""
    lines = []
    for what, texts in (("left out", listing.left_out), ("noticed", listing.noticed)):
        if texts:
            more = f", and {len(texts) - first} more; edge-train data lists them" if len(texts) > first else ""
            lines.append(printable(f"{source}: {what} {len(texts)}: {'; '.join(texts[:first])}{more}"))
    return lines


_Boxed = TypeVar("_Boxed", AnnotatedPicture, Annotation)


def drop_repeated_boxes(pictures: Iterable[_Boxed]) -> tuple[list[_Boxed], list[str]]:
    """Keep one of the boxes of a picture that have the same sides and the same name; return what was noticed."""
    kept, repeated = [], []
    for picture in pictures:
        boxes: dict[object, NamedBox] = {}
        for box in picture.boxes:
            boxes.setdefault((box.box_px, box.item, box.category, box.item_id), box)
        if len(boxes) < len(picture.boxes):
            repeated.append(f"{picture.path if isinstance(picture, AnnotatedPicture) else picture.name}")
            picture = replace(picture, boxes=tuple(boxes.values()))  # noqa: PLW2901 the same picture
        kept.append(picture)
    return kept, in_bulk("pictures that list one box twice; each was read once", repeated)


def box_of_sides(values: Sequence[Any]) -> Box | None:
    """Return x0 y0 x1 y1 as floats; None unless these are four finite numbers around an area."""
    try:
        x0, y0, x1, y1 = (float(value) for value in values)
    except (OverflowError, TypeError, ValueError):
        return None
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 and all(map(math.isfinite, (x0, y0, x1, y1))) else None


def box_of_size(values: Sequence[Any]) -> Box | None:
    """Return x0 y0 x1 y1 from x, y, width and height; None unless these are four finite numbers of an area."""
    try:
        x, y, width, height = (float(value) for value in values)
    except (OverflowError, TypeError, ValueError):
        return None
    return box_of_sides((x, y, x + width, y + height))
