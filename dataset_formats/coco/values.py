"""The values of COCO's records: ids, numbers, flags, names and boxes; what cannot be right is refused, with why."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from dataset_formats.boxes import box_of_sides, turned
from dataset_formats.coco.rle import decode_rle
from dataset_formats.notices import Notices, printable
from dataset_formats.records import ONE_CATEGORY
from dataset_formats.values import finite
from edge.errors import DataError
from edge.types import Box

T = TypeVar("T")
_MAX_PX = 1e6
_TURNED = ("rotation", "angle", "theta")
_NOT_SET = ("", "0", "false", "no", "none")


@dataclass(frozen=True, slots=True)
class Class:
    """One entry of `categories`."""

    name: str
    category: str  # its `supercategory`


class ById(Generic[T]):
    """Values by id; an id that differs only in its type (`1` and `"1"`) finds its value, too."""

    def __init__(self) -> None:
        self.values: dict[Any, T] = {}
        self._written: dict[str, list[Any]] = defaultdict(list)

    def add(self, identity: Any, value: T) -> None:
        """Set the value of an id."""
        if identity not in self.values:
            self._written[str(identity)].append(identity)
        self.values[identity] = value

    def find(self, identity: Any) -> tuple[T | None, bool]:
        """Return the value, and whether the id has its type."""
        if identity in self.values:
            return self.values[identity], True
        alike = self._written.get(str(identity), []) if identity is not None else []
        return (self.values[alike[0]], False) if len(alike) == 1 else (None, True)


def shown(value: object) -> str:
    """Return a value of JSON as a message shows it."""
    if value is None:
        return "null"
    return printable(f"{value!s:.80}" if isinstance(value, str | int | float) else type(value).__name__)


def identity_of(value: Any) -> int | str | None:
    """Return an id: whole numbers and texts are ids; None for anything else."""
    if type(value) is int:
        return value
    if isinstance(value, str):
        return value.strip() or None
    return int(value) if isinstance(value, float) and value.is_integer() else None


def is_set(flag: Any) -> bool:
    """Return whether a flag is set: tools write 0, 1, true, false, null and texts of these."""
    return flag.strip().casefold() not in _NOT_SET if isinstance(flag, str) else bool(flag)


def name_of(value: Any) -> str:
    """Return a name without blanks around it; numbers become text; empty if there is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return printable(value).strip()


def class_of(entry: dict[str, Any], notes: Notices) -> Class | None:
    """Return the class of an entry of `categories`; None if it has no name."""
    name = name_of(entry.get("name"))
    if not name:
        return None
    if entry["name"] != name:
        notes.notice("class names that were numbers or had blanks around them", name)
    category = name_of(entry.get("supercategory"))
    return Class(name, ONE_CATEGORY if category.casefold() in ("", "none") else category)


def box_of(entry: dict[str, Any], size_px: tuple[int, int] | None, record: str, notes: Notices) -> Box | str:
    """Return the box of an annotation, or why it has none.

    Args:
        entry: the annotation.
        size_px: width and height that its picture declares.
        record: name of the annotation.
        notes: takes what deserves a look.
    """
    bbox = entry.get("bbox")
    if not bbox and (around := box_around_outline(outline_of(entry))):
        notes.notice("outlines without a box, read as the box around them", record)
        bbox = [around[0], around[1], around[2] - around[0], around[3] - around[1]]
    if not isinstance(bbox, list) or len(bbox) != 4:
        return _no_box(bbox)
    numbers = [finite(value) for value in bbox]
    x, y, width, height = (math.nan if one is None else one for one in numbers)
    if None in numbers:
        why = "holds a value that is no finite number"
    elif max(map(abs, (x, y, width, height))) > _MAX_PX:
        why = f"is not in pixels: its values exceed {_MAX_PX:.0f}"
    elif width < 0 or height < 0:
        why = "has a negative width or height; COCO writes x, y, width, height"
    elif width == 0 or height == 0:
        why = "has no area"
    elif x + width <= 1 and y + height <= 1:
        why = "lies within one pixel, as fractions of the picture do; write pixels"
    else:
        box_px = _turned((x, y, x + width, y + height), entry, record, notes)
        return _inside(box_px, size_px, record, notes)
    return f"its bbox {_listed(bbox)} {why}"


def _no_box(bbox: Any) -> str:
    if not isinstance(bbox, list) or not bbox:
        return f"it has {'an empty' if bbox == [] else 'no'} bbox; draw the box again or delete the record"
    turned = "; for a rotated box, write the box around it" if len(bbox) == 5 else ""
    return f"its bbox {_listed(bbox)} has {len(bbox)} values, not x, y, width, height{turned}"


def _listed(bbox: list[Any]) -> str:
    return f"[{', '.join(shown(one) for one in bbox[:6])}]"


def _turned(box_px: Box, entry: dict[str, Any], record: str, notes: Notices) -> Box:
    """Return the box around a rotated one: CVAT writes the box before its rotation, and the angle beside it."""
    attributes = entry.get("attributes")
    if not attributes and entry.keys().isdisjoint(_TURNED):
        return box_px
    written = attributes.get("rotation") if isinstance(attributes, dict) else None
    angle = finite(written) or 0.0
    elsewhere = next((key for key in _TURNED if finite(entry.get(key))), None)
    if elsewhere:
        notes.notice(f"annotations with `{elsewhere}`; their bbox was read as the box around the object", record)
    if written is not None and finite(written) is None:
        notes.notice("annotations with a rotation that is no number; it was not used", record)
    if not angle % 360:
        return box_px
    if outline_of(entry):
        notes.notice("annotations with a rotation and an outline; their bbox was read as the box around it", record)
        return box_px
    notes.notice("rotated boxes, read as the box around them", record)
    return turned(box_px, angle)


def _inside(box_px: Box, size_px: tuple[int, int] | None, record: str, notes: Notices) -> Box | str:
    """Return the box if a part of it can be inside its picture, or why not."""
    width, height = size_px or (math.inf, math.inf)
    x0, y0, x1, y1 = box_px
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        stated = f" of {size_px[0]}x{size_px[1]} pixels" if size_px else ""
        return f"its box [{x0:g}, {y0:g}, {x1:g}, {y1:g}] lies outside the picture{stated}"
    if min(x0, y0) < -1 or x1 > width + 1 or y1 > height + 1:
        notes.notice("boxes that reach outside the size that their picture declares", record)
    return box_px


def outline_of(entry: dict[str, Any]) -> Any:
    """Return the `segmentation` of an annotation; None if it is empty, as in `[[]]`."""
    outline = entry.get("segmentation")
    return outline if outline and (not isinstance(outline, list) or any(outline)) else None


def box_around_outline(outline: Any) -> Box | None:
    """Return the box around a `segmentation`, polygons or a mask as run lengths; None if it cannot be read."""
    if isinstance(outline, dict):
        try:
            mask = decode_rle(outline)
        except DataError:
            return None
        rows, columns = (np.flatnonzero(mask.any(axis=axis)).tolist() for axis in (1, 0))
        return (columns[0], rows[0], columns[-1] + 1.0, rows[-1] + 1.0) if columns else None
    polygons = outline if isinstance(outline, list) and all(isinstance(one, list) for one in outline) else []
    sides = [[finite(value) for one in polygons for value in one[first::2]] for first in (0, 1)]
    across, down = ([side for side in line if side is not None] for line in sides)
    if not across or len(across) != len(down) or [len(line) for line in sides] != [len(across), len(down)]:
        return None
    return box_of_sides((min(across), min(down), max(across), max(down)))


def fraction_of(entry: dict[str, Any], record: str, notes: Notices) -> float:
    """Return the `visible_fraction` of an annotation; 1 if it has none that can be right."""
    written = entry.get("visible_fraction")
    if written is None:
        return 1.0
    fraction = finite(written)
    if fraction is None or not 0 <= fraction <= 1:
        notes.notice("annotations with a `visible_fraction` that is not between 0 and 1; 1 was used", record)
        return 1.0
    return fraction
