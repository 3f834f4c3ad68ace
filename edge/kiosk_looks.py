"""Which pictures of a thing are worth learning from: sharp, held still, and each unlike the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge import image
from edge.types import FloatArray, Image

Verdict = Literal["take", "moving", "blurred", "same", "enough"]

_SIZE_PX = 32  # of the picture that looks are compared in
_SHARPNESS_PX = 320  # width of the one that sharpness is measured in
_UNLIKE = 4.0  # mean grey levels by which a look differs from another; noise of a still camera is below 1
_SHARP_SHARE = 0.5  # of the sharpest picture so far


@dataclass(frozen=True, slots=True)
class Glance:
    """A picture as it is judged."""

    grey: FloatArray  # (32, 32), 0..255
    sharpness: float
    is_still: bool


def glance_at(image_rgb: Image, *, is_still: bool) -> Glance:
    """Measure a picture."""
    height, width = image_rgb.shape[:2]
    reduced = image.resize(image_rgb, _SHARPNESS_PX, max(1, height * _SHARPNESS_PX // width), "area")
    grey = image.resize(reduced, _SIZE_PX, _SIZE_PX, "area").astype(np.float32).mean(axis=2)
    return Glance(grey, image.sharpness(reduced), is_still)


def judge(glance: Glance, taken: list[Glance], sharpest: float, wanted: int) -> Verdict:
    """Say whether to take a picture, or why not.

    Args:
        glance: the picture.
        taken: those that were taken.
        sharpest: sharpness of the sharpest picture seen meanwhile.
        wanted: how many are taken at most.
    """
    if len(taken) >= wanted:
        return "enough"
    if not glance.is_still:
        return "moving"
    if glance.sharpness < _SHARP_SHARE * sharpest:
        return "blurred"
    if any(float(np.abs(glance.grey - other.grey).mean()) < _UNLIKE for other in taken):
        return "same"
    return "take"
