"""The outline of an object: 64x64 bits that say where in its crop it is. Pure, but for the picture library's resizing.

The boundary features of fused similarity search (CMC 2023) with two additions: packed bits, so that a gallery keeps 512
bytes a picture and an overlap is a count of bits; and an alignment by centroid and area, for cameras that do not keep
their distance.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge.imaging import image

SIDE = 64  # cells
SIZE = SIDE * SIDE // 8  # bytes
_LEAST = 0.01  # of the grid; less is no object
_ALIGNED_SIDE = 32.0  # cells: the side of the square that an aligned outline has the area of; fits shapes of 4 to 1

Silhouette = NDArray[np.uint8]  # (SIZE,), rows from the top, eight cells a byte, the first in the highest bit
_ONES = np.array([word.bit_count() for word in range(1 << 16)], np.uint8)  # numpy counts bits itself from 2.0 on only


def silhouette_of(mask: NDArray[np.uint8], width: float, height: float) -> Silhouette | None:
    """Lay a mask into the middle of the grid, its longer side as long as the grid's.

    Args:
        mask: (h, w), 0..255, of a whole crop; its resolution does not matter.
        width: of the crop, in any unit.
        height: of the crop, in the same unit.

    Returns:
        the outline; None where the mask shows nothing.
    """
    scale = SIDE / max(width, height)
    wide, high = (max(1, min(SIDE, round(size * scale))) for size in (width, height))
    top, left = (SIDE - high) // 2, (SIDE - wide) // 2
    grid = np.zeros((SIDE, SIDE), np.bool_)
    grid[top : top + high, left : left + wide] = image.resize(mask, wide, high, "area") >= 128
    return np.packbits(grid) if grid.mean() >= _LEAST else None


def align(outline: Silhouette) -> Silhouette:
    """Move an outline's centroid to the middle and bring it to one area, whatever it had."""
    grid = cells(outline)
    y, x = np.nonzero(grid)
    scale = _ALIGNED_SIDE / math.sqrt(max(1, len(x)))
    centre = (float(x.mean()), float(y.mean())) if len(x) else (SIDE / 2, SIDE / 2)
    moved = image.scale_about(grid.astype(np.uint8) * np.uint8(255), centre, scale, SIDE)
    return np.packbits(moved >= 128)


def cells(outline: Silhouette) -> NDArray[np.bool_]:
    """Unpack to (SIDE, SIDE)."""
    return np.unpackbits(outline).reshape(SIDE, SIDE).astype(np.bool_)


def overlaps(outline: Silhouette, others: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Intersection over union of one outline with each of (n, SIZE): (n,), 0 where both are empty."""
    asked, words = outline.view(np.uint16), np.ascontiguousarray(others).view(np.uint16)
    both = _ONES[words & asked].sum(axis=1, dtype=np.int64)
    either = _ONES[words | asked].sum(axis=1, dtype=np.int64)
    return np.asarray(both / np.maximum(either, 1), np.float32)
