"""Values of annotations in XML: numbers, boxes and flags, and what readers tell about them."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from dataset_formats.records import Listing, default_split, in_bulk, printable
from edge.types import Box

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class Notices:
    """Counts what deserves a look."""

    def __init__(self) -> None:
        self._seen: dict[str, list[str]] = defaultdict(list)

    def add(self, what: str, example: str) -> None:
        """Count one example."""
        self._seen[what].append(example)

    def lines(self) -> list[str]:
        """Return a line for each kind, with count and first examples."""
        return [printable(line) for what, examples in self._seen.items() for line in in_bulk(what, examples)]


def settle_splits(listing: Listing) -> None:
    """Give whole pictures the default splits if none has a split, and else leave out those without."""
    if any(scene.split for scene in listing.scenes):
        without = [scene.path.name for scene in listing.scenes if not scene.split]
        listing.left_out += in_bulk("pictures without a split, which others have; left out", without)
        listing.scenes = [scene for scene in listing.scenes if scene.split]
    else:
        listing.scenes = [replace(one, split=default_split(number)) for number, one in enumerate(listing.scenes)]


def number(text: str | None, what: str) -> float:
    """Return a finite number.

    Raises:
        ValueError: the text is none.
    """
    text = (text or "").strip()
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise ValueError(f"{what} is {text[:40]!r}, not a number; correct it" if text else f"has no {what}; add it")
    return value


def whole_number(text: str | None, what: str) -> int:
    """Return a whole number, zero or more.

    Raises:
        ValueError: the text is none.
    """
    value = number(text, what)
    if value < 0 or not value.is_integer():
        raise ValueError(f"{what} is {value:g}, expected 0, 1, 2, …")
    return int(value)


def box_with_area(x0: float, y0: float, x1: float, y1: float) -> Box:
    """Return the box of these sides.

    Raises:
        ValueError: the sides are swapped or enclose no area.
    """
    if x1 < x0 or y1 < y0:
        raise ValueError(f"sides are swapped in {x0:g} {y0:g} {x1:g} {y1:g}; write the smaller ones first")
    if x1 == x0 or y1 == y0:
        raise ValueError(f"box {x0:g} {y0:g} {x1:g} {y1:g} has no area; draw it again")
    return x0, y0, x1, y1


def box_around(across: Sequence[float], down: Sequence[float]) -> Box:
    """Return the box around points, given by their x and their y.

    Raises:
        ValueError: there are no points, or they enclose no area.
    """
    if not across or len(across) != len(down):
        raise ValueError(f"outline has {len(across)} x and {len(down)} y; draw it again")
    return box_with_area(min(across), min(down), max(across), max(down))


def box_around_rotated(x: float, y: float, width: float, height: float, angle_rad: float) -> Box:
    """Return the box around a rectangle that is rotated about its centre x, y.

    Raises:
        ValueError: the rectangle has no area.
    """
    if min(width, height) <= 0:
        raise ValueError(f"rotated box of {width:g} x {height:g} px has no area; draw it again")
    cos, sin = abs(math.cos(angle_rad)), abs(math.sin(angle_rad))
    half_width, half_height = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    return x - half_width, y - half_height, x + half_width, y + half_height


def size_or_none(width: str | None, height: str | None) -> tuple[int, int] | None:
    """Return a declared size; None if it is missing, zero or no size: the picture itself tells it."""
    try:
        size = int(number(width, "width")), int(number(height, "height"))
    except ValueError:
        return None
    return size if min(size) > 0 else None


def is_yes(text: str | None) -> bool:
    """Return whether a flag is set."""
    return (text or "").strip().casefold() in ("1", "true", "yes")
