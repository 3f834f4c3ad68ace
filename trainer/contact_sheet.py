"""Contact sheets: many small pictures on one page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.types import Image


def tile(pictures: Sequence[Image], columns: int, gap: int = 6) -> Image:
    """Lay out pictures of one size in rows on white."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    page = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, dtype=np.uint8)
    for index, picture in enumerate(pictures):
        y, x = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        page[y : y + height, x : x + width] = picture
    return page
