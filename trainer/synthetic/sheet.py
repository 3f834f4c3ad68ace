"""Contact sheets: many small pictures on one page, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.synthetic.items import CATEGORIES, Item
from trainer.synthetic.render import catalogue_picture

Bytes = NDArray[np.uint8]
_INK = (40, 44, 52)
COLOURS = {
    "bottle": (20, 160, 90),
    "jar": (220, 60, 50),
    "carton": (40, 110, 220),
    "can": (230, 150, 20),
    "car": (150, 60, 200),
}


def tile(pictures: Sequence[Bytes], columns: int, gap: int = 6) -> Bytes:
    """Lays pictures of one size out in rows on white."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    page = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, dtype=np.uint8)
    for index, picture in enumerate(pictures):
        y, x = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        page[y : y + height, x : x + width] = picture
    return page


def contact_sheet(items: Sequence[Item], seed: int = 5, columns: int = 7, size_px: int = 168) -> Bytes:
    """Draws every item once, category by category, with its label."""
    pictures = []
    for category in CATEGORIES:
        mine = [item for item in items if item.category == category]
        for number, item in enumerate(mine):
            picture, _ = catalogue_picture(item, np.random.default_rng([seed, number]), size_px)
            cell = np.full((size_px + 18, size_px, 3), 255, dtype=np.uint8)
            cell[:size_px] = picture
            place = (max(2, size_px // 2 - 3 * len(item.label)), size_px + 10)
            cv2.putText(cell, item.label, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, _INK, 1, cv2.LINE_AA)
            pictures.append(cell)
        pictures += [np.full_like(pictures[0], 255)] * (-len(mine) % columns)
    return tile(pictures, columns)


def boxed(image_rgb: Bytes, boxes: Sequence[tuple[tuple[int, int, int, int], str, str]]) -> Bytes:
    """A copy of the image with boxes, given as (box_px, category, text)."""
    copy = image_rgb.copy()
    for (x0, y0, x1, y1), category, text in boxes:
        cv2.rectangle(copy, (x0, y0), (x1 - 1, y1 - 1), COLOURS[category], 1)
        place = (x0 + 1, y0 - 3 if y0 > 12 else y1 + 10)
        cv2.rectangle(copy, (x0, place[1] - 9), (x0 + 6 * len(text) + 2, place[1] + 3), COLOURS[category], -1)
        cv2.putText(copy, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.33, (255, 255, 255), 1, cv2.LINE_AA)
    return copy
