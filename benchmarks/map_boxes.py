"""Boxes from maps, for comparison with the proposals: SCDA in one picture, and the box of a map's largest component.

SCDA: selective convolutional descriptor aggregation, Wei et al. 2017.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.types import Box, FloatArray


def scda_map(feature: FloatArray) -> FloatArray:
    """Return SCDA's object mask (h, w), 0..1: the largest component of the cells with more than mean activation."""
    total = feature.sum(axis=2)
    over = (total - total.mean()).clip(0.0)
    return np.asarray(np.where(largest_component(over > 0), over, 0.0) / max(float(over.max()), 1e-6), np.float32)


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest 8-connected component of a mask."""
    count, owner, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return np.asarray(owner == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()) if count > 1 else np.zeros(mask.shape, bool)


def box_of_map(values: FloatArray, width: int, height: int, level: float = 0.0) -> Box | None:
    """Return the bounding box of a map's largest component in a picture of that size; None if nothing is above 0.

    Args:
        values: (h, w), as `CommonComponent.activation` and `scda_map` give.
        width: width of the picture.
        height: height of the picture.
        level: share of the map's largest value that a place needs. The published 0 takes in all of the object and much
            around it, because a cell sees far beyond itself.
    """
    grown = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    y, x = np.nonzero(largest_component(grown > level * max(0.0, float(grown.max()))))
    return (float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)) if len(x) else None
