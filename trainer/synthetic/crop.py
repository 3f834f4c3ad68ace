"""Crops of single objects, as a detector would cut them out of a camera's frame."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.synthetic.items import Item
from trainer.synthetic.scene import SceneObject, photograph_item

Bytes = NDArray[np.uint8]
_MARGIN = 0.1  # of the object's box, as the device adds it
_LEAST_VISIBLE = 0.7  # smallest visible fraction of an object used for training


def crop(item: Item, neighbours: Sequence[Item], rng: np.random.Generator, longest_px: int) -> Bytes:
    """Render the item in some place and cut it out with a jittered box; the longest side is longest_px."""
    return masked_crop(item, neighbours, rng, longest_px)[0]


def masked_crop(
    item: Item, neighbours: Sequence[Item], rng: np.random.Generator, longest_px: int
) -> tuple[Bytes, Bytes]:
    """Render the item as `crop` does; return the picture, and the object's share of each pixel, 0..255."""
    tall = int(np.clip(rng.lognormal(np.log(120), 0.32), 70, 230))
    if item.category == "car":
        tall = round(tall * 0.6)
    image_rgb, found = photograph_item(rng, item, neighbours, tall)
    while found.visible_fraction < _LEAST_VISIBLE:
        image_rgb, found = photograph_item(rng, item, neighbours, tall)
    return cut(image_rgb, found, rng, longest_px)


def cut(image_rgb: Bytes, found: SceneObject, rng: np.random.Generator, longest_px: int) -> tuple[Bytes, Bytes]:
    """Cut an object and its mask out with a margin and a detector's errors."""
    height, width = image_rgb.shape[:2]
    x0, y0, x1, y1 = found.box_px
    wide, high = x1 - x0, y1 - y0
    left, right = rng.normal(_MARGIN, 0.04, 2) * wide
    up, down = rng.normal(_MARGIN, 0.04, 2) * high
    x0, x1 = max(0, round(x0 - left)), min(width, round(x1 + right))
    y0, y1 = max(0, round(y0 - up)), min(height, round(y1 + down))
    mask = found.mask[y0:y1, x0:x1].astype(np.uint8) * 255
    scale = longest_px / max(mask.shape)
    size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    piece = cv2.resize(image_rgb[y0:y1, x0:x1], size, interpolation=how)
    return piece, np.asarray(cv2.resize(mask, size, interpolation=how), np.uint8)
