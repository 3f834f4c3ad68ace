"""A picture whose true mask is known, and how well a mask fits."""

from __future__ import annotations

import numpy as np


def red_square(ground: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """A red square of 36x36 px on noise, with a spot of the ground's colour in its middle; and its true mask."""
    rng = np.random.default_rng(0)
    image = (ground + rng.integers(-10, 11, (90, 100, 3))).astype(np.uint8)
    truth = np.zeros((90, 100), np.bool_)
    truth[22:58, 32:68] = True
    image[truth] = (200, 30, 30)
    image[36:42, 46:52] = ground
    return image, truth


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((one & other).sum() / (one | other).sum())
