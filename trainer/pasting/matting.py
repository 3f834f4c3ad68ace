"""Matting (pymatting): from a rough mask to the alpha of each pixel, and the object's own colours."""

from __future__ import annotations

import contextlib
import io
import logging

import numpy as np
from numpy.typing import NDArray
from pymatting import estimate_alpha_cf, estimate_foreground_ml

from edge.errors import TrainError
from edge.imaging.image import box_mean
from edge.types import Image

log = logging.getLogger(__name__)


def make_trimap(mask: NDArray[np.uint8], band_px: int) -> NDArray[np.float64]:
    """Return a trimap: 1 for certain object, 0 for certain background, 0.5 along the edge.

    Args:
        mask: (h, w), 0..255.
        band_px: width of the unknown band to either side of the edge.
    """
    share = box_mean(np.asarray(mask >= 128, np.float32), band_px)
    return np.where(share >= 1 - 1e-4, 1.0, np.where(share <= 1e-4, 0.0, 0.5))


def refine_alpha(image_rgb: Image, mask: NDArray[np.uint8], band_px: int) -> NDArray[np.uint8]:
    """Closed-form matting (Levin et al. 2008) along the mask's edge: (h, w), 0..255.

    Args:
        image_rgb: the picture.
        mask: (h, w), 0..255, of the picture's size.
        band_px: width of the band to either side of the edge where alpha is estimated.

    Raises:
        TrainError: there is no certain object or no certain background, or the equations cannot be solved.
    """
    trimap = make_trimap(mask, band_px)
    if not (trimap == 1).any() or not (trimap == 0).any():
        found = f"{(trimap == 1).mean():.0%} certain object and {(trimap == 0).mean():.0%} certain background"
        raise TrainError(f"mask of {mask.shape[1]}x{mask.shape[0]}: has {found}; matting needs both")
    printed = io.StringIO()  # pymatting prints to stdout, which is for a command's answer
    try:
        with contextlib.redirect_stdout(printed):
            alpha = estimate_alpha_cf(image_rgb / 255.0, trimap)
    except ValueError as error:
        raise TrainError(f"picture of {mask.shape[1]}x{mask.shape[0]}: cannot estimate alpha: {error}") from error
    if printed.getvalue():
        log.debug("%s", printed.getvalue())
    return np.asarray(np.rint(np.clip(alpha, 0.0, 1.0) * 255.0), np.uint8)


def foreground_colours(image_rgb: Image, alpha: NDArray[np.uint8]) -> Image:
    """Return the object's colours without the background's share (Germer et al. 2020), (h, w, 3) uint8."""
    colours = estimate_foreground_ml(image_rgb / 255.0, alpha / 255.0)
    return np.asarray(np.rint(np.clip(colours, 0.0, 1.0) * 255.0), np.uint8)
