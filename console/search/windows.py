"""Windows that slide over a scene, and the map that their scores make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.types import Box, FloatArray, Image

_SIZES = (0.8, 0.56, 0.39, 0.28, 0.2, 0.14)  # longer side of a window, as a share of the scene's shorter side
_STEP = 0.4  # from one window to the next, as a share of its sides
_FEWEST = 3  # sizes
_CELL_PX = 8  # of a map


@dataclass(frozen=True, slots=True)
class Grid:
    """Windows of one size, row by row."""

    rows: int
    columns: int
    boxes: list[Box]


def grids(scene: Image, aspect: float, most: int) -> list[Grid]:
    """Return grids of windows of several sizes, the largest first; of small ones only as many as fit into a number.

    Args:
        scene: the picture.
        aspect: width of a window by its height.
        most: windows; the largest sizes are there in any case.
    """
    height, width = scene.shape[:2]
    found: list[Grid] = []
    for size in _SIZES:
        grid = _grid(width, height, aspect, size * min(width, height))
        if len(found) >= _FEWEST and sum(len(one.boxes) for one in found) + len(grid.boxes) > most:
            break
        found.append(grid)
    return found


def _grid(width: int, height: int, aspect: float, longest: float) -> Grid:
    wide, high = (longest, longest / aspect) if aspect >= 1 else (longest * aspect, longest)
    wide, high = min(max(8.0, wide), width), min(max(8.0, high), height)
    columns = max(1, int(np.ceil((width - wide) / (_STEP * wide))) + 1)
    rows = max(1, int(np.ceil((height - high) / (_STEP * high))) + 1)
    lefts = np.linspace(0, width - wide, columns) if columns > 1 else [(width - wide) / 2]
    tops = np.linspace(0, height - high, rows) if rows > 1 else [(height - high) / 2]
    boxes = [(float(x), float(y), float(x + wide), float(y + high)) for y in tops for x in lefts]
    return Grid(rows, columns, boxes)


def paint(windows: Sequence[Box], levels: FloatArray, scene: Image) -> FloatArray:
    """Return a map of the scene, an eighth of its sides: each window is as warm as its level, fading to its edges.

    Args:
        windows: in pixels of the scene.
        levels: (windows,), 0..1.
        scene: the picture.
    """
    factor_x, factor_y = (
        max(2, scene.shape[1] // _CELL_PX) / scene.shape[1],
        max(2, scene.shape[0] // _CELL_PX) / scene.shape[0],
    )
    heat = np.zeros((round(scene.shape[0] * factor_y), round(scene.shape[1] * factor_x)), np.float32)
    for (x0, y0, x1, y1), level in zip(windows, levels, strict=True):
        if level > 0:
            left, right = _cells(x0 * factor_x, x1 * factor_x, heat.shape[1])
            top, bottom = _cells(y0 * factor_y, y1 * factor_y, heat.shape[0])
            fade = np.outer(_fade(bottom - top), _fade(right - left))
            part = heat[top:bottom, left:right]
            np.maximum(part, level * fade, out=part)
    return heat


def _cells(start: float, end: float, count: int) -> tuple[int, int]:
    """Return the first cell and the one after the last; at least one."""
    first = min(int(start), count - 1)
    return first, max(first + 1, min(count, round(end)))


def _fade(count: int) -> FloatArray:
    """Return (count,) numbers, 1 in the middle and small at the ends."""
    place = (np.arange(count) + 0.5) / count * 2 - 1
    return np.asarray(1 - place**2, np.float32)


def around(box_px: Box, scene: Image, step: float) -> list[Box]:
    """Return windows that are a little moved, larger or smaller; `step` is a share of the box's sides."""
    height, width = scene.shape[:2]
    x0, y0, x1, y1 = box_px
    found: list[Box] = []
    for size in (1 - 1.2 * step, 1 - 0.6 * step, 1.0, 1 + 0.8 * step, 1 + 1.6 * step):
        wide, high = size * (x1 - x0), size * (y1 - y0)
        for dx in (-step, 0.0, step):
            for dy in (-step, 0.0, step):
                x, y = (x0 + x1) / 2 + dx * (x1 - x0), (y0 + y1) / 2 + dy * (y1 - y0)
                box = (
                    max(0.0, x - wide / 2),
                    max(0.0, y - high / 2),
                    min(width, x + wide / 2),
                    min(height, y + high / 2),
                )
                if box[2] - box[0] >= 4 and box[3] - box[1] >= 4:
                    found.append((float(box[0]), float(box[1]), float(box[2]), float(box[3])))
    return found
