"""The pymatting door: from a rough mask to the object's share of each pixel, and its own colour there."""

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


def trimap_of(mask: NDArray[np.uint8], band_px: int) -> NDArray[np.float64]:
    """1 where the mask is sure, 0 where it is surely not, a half along its edge.

    Args:
        mask: (h, w), 0..255.
        band_px: from the edge to either side, that is not sure.
    """
    share = box_mean(np.asarray(mask >= 128, np.float32), band_px)
    return np.where(share >= 1 - 1e-4, 1.0, np.where(share <= 1e-4, 0.0, 0.5))


def refine_alpha(image_rgb: Image, mask: NDArray[np.uint8], band_px: int) -> NDArray[np.uint8]:
    """Closed-form matting (Levin et al. 2008) along the mask's edge: (h, w), 0..255.

    Args:
        image_rgb: the picture.
        mask: (h, w), 0..255, of the picture's size.
        band_px: from the mask's edge to either side, that is decided anew.

    Raises:
        TrainError: no pixel is surely the object's, or none is surely not, or the equations could not be solved.
    """
    trimap = trimap_of(mask, band_px)
    if not (trimap == 1).any() or not (trimap == 0).any():
        found = f"{(trimap == 1).mean():.0%} sure object and {(trimap == 0).mean():.0%} sure ground"
        raise TrainError(f"mask of {mask.shape[1]}x{mask.shape[0]}: found {found}, expected some of both")
    told = io.StringIO()  # it prints to stdout, which is for a command's answer
    try:
        with contextlib.redirect_stdout(told):
            alpha = estimate_alpha_cf(image_rgb / 255.0, trimap)
    except ValueError as error:
        raise TrainError(f"picture of {mask.shape[1]}x{mask.shape[0]}: found no alpha: {error}") from error
    if told.getvalue():
        log.debug("%s", told.getvalue())
    return np.asarray(np.rint(np.clip(alpha, 0.0, 1.0) * 255.0), np.uint8)


def own_colours(image_rgb: Image, alpha: NDArray[np.uint8]) -> Image:
    """The object's colours without those of the ground that shine through (Germer et al. 2020), (h, w, 3) uint8."""
    colours = estimate_foreground_ml(image_rgb / 255.0, alpha / 255.0)
    return np.asarray(np.rint(np.clip(colours, 0.0, 1.0) * 255.0), np.uint8)
