"""Boxes: around other shapes, of numbers as data sets write them, and clipped to their picture.

A box is x0 y0 x1 y1. Angles turn about the centre of the shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_formats.values import finite
from edge.types import Box, FloatArray

_SLACK_PX = 1.5  # tolerates rounding, and annotators that count pixels from 1


def box_of_sides(values: Sequence[Any]) -> Box | None:
    """Return x0 y0 x1 y1 as floats; None unless these are four finite numbers around an area."""
    sides = _four(values)
    return sides if sides and sides[0] < sides[2] and sides[1] < sides[3] else None


def box_of_size(values: Sequence[Any]) -> Box | None:
    """Return x0 y0 x1 y1 from x, y, width and height; None unless these are four finite numbers of an area."""
    if (numbers := _four(values)) is None:
        return None
    x, y, width, height = numbers
    return box_of_sides((x, y, x + width, y + height))


def _four(values: Sequence[Any]) -> Box | None:
    """Return four finite numbers; None for anything else."""
    numbers = [number for value in values if (number := finite(value)) is not None]
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == len(values) == 4 else None


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


def box_around(xs: Sequence[float], ys: Sequence[float]) -> Box:
    """Return the box around points, given by their x and their y.

    Raises:
        ValueError: there are no points, or they enclose no area.
    """
    if not xs or len(xs) != len(ys):
        raise ValueError(f"outline has {len(xs)} x and {len(ys)} y; draw it again")
    return box_with_area(min(xs), min(ys), max(xs), max(ys))


def box_around_rotated(x: float, y: float, width: float, height: float, angle_rad: float) -> Box:
    """Return the box around a rotated rectangle of centre x, y.

    Raises:
        ValueError: the rectangle has no area.
    """
    if min(width, height) <= 0:
        raise ValueError(f"rotated box of {width:g} x {height:g} px has no area; draw it again")
    cos, sin = abs(math.cos(angle_rad)), abs(math.sin(angle_rad))
    half_width, half_height = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    return x - half_width, y - half_height, x + half_width, y + half_height


def turned(box: Box, angle_deg: float) -> Box:
    """Return the box around a box that is turned about its centre.

    Raises:
        ValueError: the box has no area.
    """
    x0, y0, x1, y1 = box
    return box_around_rotated((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, math.radians(angle_deg))


def box_around_ellipse(x: float, y: float, radius_x: float, radius_y: float, angle_deg: float) -> Box:
    """Return the box around a rotated ellipse of centre x, y.

    Raises:
        ValueError: a radius is not positive.
    """
    if min(radius_x, radius_y) <= 0:
        raise ValueError(f"radii are {radius_x:g} and {radius_y:g}; draw it again")
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    half_width, half_height = math.hypot(radius_x * cos, radius_y * sin), math.hypot(radius_x * sin, radius_y * cos)
    return x - half_width, y - half_height, x + half_width, y + half_height


@dataclass(frozen=True, slots=True)
class ClippedBoxes:
    """Boxes clipped to their picture."""

    boxes_px: FloatArray  # (n, 4), all of the given boxes
    outside: NDArray[np.bool_]  # (n,) reached outside the picture by more than rounding
    empty: NDArray[np.bool_]  # (n,) less than a pixel is left: outside, inverted or without area


def clip_boxes(boxes_px: FloatArray, width_px: int, height_px: int) -> ClippedBoxes:
    """Clip (n, 4) boxes to a picture."""
    limit = np.array([width_px, height_px, width_px, height_px], np.float32)
    boxes = np.asarray(boxes_px, np.float32).reshape(-1, 4)
    clipped = np.clip(boxes, 0.0, limit)
    outside = ((boxes < -_SLACK_PX) | (boxes > limit + _SLACK_PX)).any(axis=1)
    broken = ~np.isfinite(boxes).all(axis=1)
    empty = broken | (clipped[:, 2] - clipped[:, 0] < 1.0) | (clipped[:, 3] - clipped[:, 1] < 1.0)
    return ClippedBoxes(np.nan_to_num(clipped), outside & ~empty, empty)
