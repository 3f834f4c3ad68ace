"""The values of COCO's records: ids, numbers, flags, names and boxes; what cannot be right is refused, with why."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from dataset_formats.records import ONE_CATEGORY, in_bulk, printable
from edge.types import Box

T = TypeVar("T")
_MAX_PX = 1e6
_NUMBERS = (int, float, str)  # as JSON has them; true is none
_TURNED = ("rotation", "angle", "theta")
_NOT_SET = ("", "0", "false", "no", "none")


@dataclass(frozen=True, slots=True)
class Class:
    """One entry of `categories`."""

    name: str
    category: str  # its `supercategory`


@dataclass(slots=True)
class Notes:
    """What a reader of one file left out and noticed."""

    where: Path
    left_out: list[str] = field(default_factory=list)
    crowds: Counter[str] = field(default_factory=Counter)  # regions that are no boxes of objects, by kind
    _noticed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def leave_out(self, record: str, why: str) -> None:
        """Name a record that is left out."""
        self.left_out.append(printable(f"{self.where}: {record}: {why}"))

    def notice(self, what: str, record: str) -> None:
        """Count a record that was read, but deserves a look."""
        self._noticed[what].append(record)

    def noticed(self) -> list[str]:
        """Return one line for each kind of thing that was noticed."""
        return [
            printable(f"{self.where}: {line}")
            for what, records in self._noticed.items()
            for line in in_bulk(what, records)
        ]


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


def number_of(value: Any) -> float | None:
    """Return a finite number, also one written as text; None for anything else."""
    if type(value) not in _NUMBERS:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and not (isinstance(value, str) and "_" in value) else None


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


def class_of(entry: dict[str, Any], notes: Notes) -> Class | None:
    """Return the class of an entry of `categories`; None if it has no name."""
    name = name_of(entry.get("name"))
    if not name:
        return None
    if entry["name"] != name:
        notes.notice("class names were numbers or had blanks around them", name)
    category = name_of(entry.get("supercategory"))
    return Class(name, ONE_CATEGORY if category.casefold() in ("", "none") else category)


def box_of(entry: dict[str, Any], size_px: tuple[int, int] | None, record: str, notes: Notes) -> Box | str:
    """Return the box of an annotation, or why it has none.

    Args:
        entry: the annotation.
        size_px: width and height that its picture declares.
        record: name of the annotation.
        notes: takes what deserves a look.
    """
    bbox = entry.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4:
        return _no_box(bbox)
    numbers = [number_of(value) for value in bbox]
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


def _turned(box_px: Box, entry: dict[str, Any], record: str, notes: Notes) -> Box:
    """Return the box around a rotated one: CVAT writes the box before its rotation, and the angle beside it."""
    attributes = entry.get("attributes")
    if not attributes and entry.keys().isdisjoint(_TURNED):
        return box_px
    written = attributes.get("rotation") if isinstance(attributes, dict) else None
    angle = number_of(written) or 0.0
    elsewhere = next((key for key in _TURNED if number_of(entry.get(key))), None)
    if elsewhere:
        notes.notice(f"annotations state `{elsewhere}`; their bbox is read as the box around the object", record)
    if written is not None and number_of(written) is None:
        notes.notice("annotations have a rotation that is no number; it was not used", record)
    if not angle % 360:
        return box_px
    if outline_of(entry):
        notes.notice("annotations have a rotation and an outline; their bbox is read as the box around it", record)
        return box_px
    notes.notice("rotated boxes were replaced by the box around them", record)
    sine, cosine = abs(math.sin(math.radians(angle))), abs(math.cos(math.radians(angle)))
    x0, y0, x1, y1 = box_px
    half_x, half_y = (
        ((x1 - x0) * cosine + (y1 - y0) * sine) / 2,
        ((x1 - x0) * sine + (y1 - y0) * cosine) / 2,
    )
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    return middle_x - half_x, middle_y - half_y, middle_x + half_x, middle_y + half_y


def _inside(box_px: Box, size_px: tuple[int, int] | None, record: str, notes: Notes) -> Box | str:
    """Return the box if a part of it can be inside its picture, or why not."""
    width, height = size_px or (math.inf, math.inf)
    x0, y0, x1, y1 = box_px
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        stated = f" of {size_px[0]}x{size_px[1]} pixels" if size_px else ""
        return f"its box [{x0:g}, {y0:g}, {x1:g}, {y1:g}] lies outside the picture{stated}"
    if min(x0, y0) < -1 or x1 > width + 1 or y1 > height + 1:
        notes.notice("boxes reach outside the size that their picture declares", record)
    return box_px


def outline_of(entry: dict[str, Any]) -> Any:
    """Return the `segmentation` of an annotation; None if it is empty, as in `[[]]`."""
    outline = entry.get("segmentation")
    return outline if outline and (not isinstance(outline, list) or any(outline)) else None


def fraction_of(entry: dict[str, Any], record: str, notes: Notes) -> float:
    """Return the `visible_fraction` of an annotation; 1 if it has none that can be right."""
    written = entry.get("visible_fraction")
    if written is None:
        return 1.0
    fraction = number_of(written)
    if fraction is None or not 0 <= fraction <= 1:
        notes.notice("annotations have a `visible_fraction` that is not between 0 and 1; 1 was used", record)
        return 1.0
    return fraction
