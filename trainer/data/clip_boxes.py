"""Boxes against the picture they belong to: clipped to it, or told to be empty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.types import FloatArray

_SLACK_PX = 1.5  # rounding, and annotators that count pixels from 1, are no news


@dataclass(frozen=True, slots=True)
class Fitted:
    """Boxes within their picture."""

    boxes_px: FloatArray  # (n, 4), every one that was given
    outside: NDArray[np.bool_]  # (n,) those that reached out of the picture by more than rounding
    empty: NDArray[np.bool_]  # (n,) those of which less than a pixel is left: outside, inverted or without size


def fit_boxes(boxes_px: FloatArray, width: int, height: int) -> Fitted:
    """Clip (n, 4) boxes x0 y0 x1 y1 to a picture."""
    limit = np.array([width, height, width, height], np.float32)
    boxes = np.asarray(boxes_px, np.float32).reshape(-1, 4)
    clipped = np.clip(boxes, 0.0, limit)
    outside = ((boxes < -_SLACK_PX) | (boxes > limit + _SLACK_PX)).any(axis=1)
    broken = ~np.isfinite(boxes).all(axis=1)
    empty = broken | (clipped[:, 2] - clipped[:, 0] < 1.0) | (clipped[:, 3] - clipped[:, 1] < 1.0)
    return Fitted(np.nan_to_num(clipped), outside & ~empty, empty)
