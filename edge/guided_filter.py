"""The guided filter: a mask takes the edges of the picture it was found in (He, Sun, Tang 2013, algorithm 1)."""

from __future__ import annotations

import numpy as np

from edge.image import box_mean
from edge.types import FloatArray


def guided_filter(guide: FloatArray, mask: FloatArray, radius: int, epsilon: float) -> FloatArray:
    """Filter a mask so that within each window it is linear in the guide.

    Args:
        guide: (h, w), 0..1, the grey picture.
        mask: (h, w), 0..1.
        radius: of the window, pixels.
        epsilon: variance of the guide below which a window counts as flat and the mask is averaged.

    Returns:
        (h, w), about 0..1.
    """
    mean_guide, mean_mask = box_mean(guide, radius), box_mean(mask, radius)
    covariance = box_mean(np.asarray(guide * mask, np.float32), radius) - mean_guide * mean_mask
    variance = box_mean(np.asarray(guide * guide, np.float32), radius) - mean_guide * mean_guide
    slope = np.asarray(covariance / (variance + np.float32(epsilon)), np.float32)
    offset = np.asarray(mean_mask - slope * mean_guide, np.float32)
    return np.asarray(box_mean(slope, radius) * guide + box_mean(offset, radius), np.float32)
