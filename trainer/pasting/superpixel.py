"""Superpixels by mean-shift, and their removal from cut-outs: occlusion without an occluder."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
_WORK_PX = 96
_STEP = 5  # grey levels between neighbours of one segment


def segments(image_rgb: Bytes) -> NDArray[np.int32]:
    """Number the superpixels of a picture from 1: mean-shift (Comaniciu & Meer 2002), then flat regions joined."""
    flat = cv2.pyrMeanShiftFiltering(np.ascontiguousarray(image_rgb), 8, 24)
    labels = np.zeros(flat.shape[:2], np.int32)
    taken = np.zeros((flat.shape[0] + 2, flat.shape[1] + 2), np.uint8)
    number = 0
    for y, x in np.ndindex(labels.shape):
        if taken[y + 1, x + 1]:
            continue
        number += 1
        before = taken.copy()
        cv2.floodFill(flat, taken, (x, y), 0, (_STEP,) * 3, (_STEP,) * 3, 4 | cv2.FLOODFILL_MASK_ONLY | (1 << 8))
        labels[(taken != before)[1:-1, 1:-1]] = number
    return labels


def drop_segments(picture: Bytes, rng: np.random.Generator) -> Bytes:
    """Remove or darken a few superpixels of a premultiplied RGBA picture, at most two fifths of it."""
    scale = min(1.0, _WORK_PX / max(picture.shape[:2]))
    size = (max(2, round(picture.shape[1] * scale)), max(2, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    solid = small[..., 3] >= 128
    labels = np.where(solid, segments(np.ascontiguousarray(small[..., :3])), 0)
    area = np.bincount(labels.ravel())
    area[0] = 0
    whole = max(1, int(solid.sum()))
    lost = np.zeros(labels.shape, np.float32)
    gone = 0
    for number in rng.permutation(np.flatnonzero((area > 0.02 * whole) & (area < 0.3 * whole)))[
        : int(rng.integers(1, 6))
    ]:
        if gone + area[number] <= 0.4 * whole:
            gone += area[number]
            lost[labels == number] = 1.0
    keep = 1.0 - cv2.resize(lost, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)[..., None]
    if rng.random() < 0.5:
        return np.asarray(np.round(picture * keep), np.uint8)
    dark = keep + (1.0 - keep) * np.float32(rng.uniform(0.1, 0.45))
    return np.dstack([np.round(picture[..., :3] * dark).astype(np.uint8), picture[..., 3]])
