"""Refine a mask to the edges of its picture with the guided filter (He, Sun, Tang 2013, algorithm 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.imaging.image import box_mean, grey, resize
from edge.imaging.pyramid import Pyramid, pyramid_of
from edge.types import FloatArray, Image

_LONGEST_PX = 160  # of the filtered crop; finer than any silhouette
_EPSILON = 1e-3  # (3 % of the brightness) squared: weaker edges count as noise


def refine_mask(crop: Image | Pyramid, mask: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    """Return a coarse mask refined to the edges of its crop: (h, w), 0..255, of the crop's size or smaller.

    Args:
        crop: the picture.
        mask: (h, w), 0..255, of the whole crop; its resolution does not matter.
        radius: of the window, as a share of the crop's longer side.
    """
    pyramid = pyramid_of(crop)
    shrink = min(1.0, _LONGEST_PX / max(pyramid.width, pyramid.height))
    width, height = (max(1, round(size * shrink)) for size in (pyramid.width, pyramid.height))
    share = (resize(mask, width, height) / 255.0).astype(np.float32)
    guide = grey(pyramid.resized(width, height, "area"))
    refined = guided_filter(guide, share, max(1, round(radius * max(width, height))), _EPSILON)
    return np.asarray(np.rint(refined.clip(0.0, 1.0) * 255.0), np.uint8)


def guided_filter(guide: FloatArray, mask: FloatArray, radius: int, epsilon: float) -> FloatArray:
    """Filter a mask so that it is linear in the guide within each window.

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
