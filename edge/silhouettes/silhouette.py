"""Silhouettes: where an object is in its crop, as 64x64 bits.

The boundary features of fused similarity search (CMC 2023) with two additions. The bits are packed: a gallery stores
512 bytes a picture, and an overlap is a bit count. Silhouettes can be aligned by centroid and area, for cameras whose
distance to the object changes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge.types import Silhouette

SIDE = 64  # cells
SIZE = SIDE * SIDE // 8  # bytes
_MIN_AREA = 0.01  # of the grid; a smaller mask is not an object
_ALIGNED_SIDE = 32.0  # cells: an aligned silhouette has the area of a square of this side; shapes up to 4:1 fit

_BIT_COUNTS = np.array(
    [word.bit_count() for word in range(1 << 16)], np.uint8
)  # numpy has bitwise_count only from 2.0 on


def silhouette_of(mask: NDArray[np.uint8], width: float, height: float) -> Silhouette | None:
    """Return the silhouette of a mask, centred in the grid, its longer side as long as the grid's.

    Args:
        mask: (h, w), 0..255, of a whole crop; any resolution.
        width: of the crop, in any unit.
        height: of the crop, in the same unit.

    Returns:
        The silhouette; None for an empty mask.
    """
    from edge.imaging import image  # loads OpenCV, which whoever only stores silhouettes does not need

    scale = SIDE / max(width, height)
    inner_width, inner_height = (max(1, min(SIDE, round(size * scale))) for size in (width, height))
    top, left = (SIDE - inner_height) // 2, (SIDE - inner_width) // 2
    grid = np.zeros((SIDE, SIDE), np.bool_)
    grid[top : top + inner_height, left : left + inner_width] = (
        image.resize(mask, inner_width, inner_height, "area") >= 128
    )
    return np.packbits(grid) if grid.mean() >= _MIN_AREA else None


def align(silhouette: Silhouette) -> Silhouette:
    """Return a silhouette moved to the middle by its centroid and scaled to the standard area."""
    from edge.imaging import image

    grid = cells(silhouette)
    y, x = np.nonzero(grid)
    scale = _ALIGNED_SIDE / math.sqrt(max(1, len(x)))
    centre = (float(x.mean()), float(y.mean())) if len(x) else (SIDE / 2, SIDE / 2)
    moved = image.scale_about(grid.astype(np.uint8) * np.uint8(255), centre, scale, SIDE)
    return np.packbits(moved >= 128)


def cells(silhouette: Silhouette) -> NDArray[np.bool_]:
    """Unpack a silhouette to (SIDE, SIDE) booleans."""
    return np.unpackbits(silhouette).reshape(SIDE, SIDE).astype(np.bool_)


def overlaps(silhouette: Silhouette, others: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the intersection over union of one silhouette with each of (n, SIZE): (n,), 0 if both are empty."""
    query, words = silhouette.view(np.uint16), np.ascontiguousarray(others).view(np.uint16)
    both = _BIT_COUNTS[words & query].sum(axis=1, dtype=np.int64)
    either = _BIT_COUNTS[words | query].sum(axis=1, dtype=np.int64)
    return np.asarray(both / np.maximum(either, 1), np.float32)
