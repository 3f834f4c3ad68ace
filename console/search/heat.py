"""Draws a heat map over a scene."""

from __future__ import annotations

import numpy as np

from edge.imaging import image
from edge.types import FloatArray, Image

_DIM = 0.45  # brightness of the scene where it is cold
_COLOUR = 0.7  # share of the colour where it is hot


def draw_heat(scene_rgb: Image, heat: FloatArray) -> bytes:
    """Return the scene with a heat map over it, JPEG: cold parts dim, hot ones bright and coloured.

    Args:
        scene_rgb: (h, w, 3).
        heat: (rows, columns) of any size, 0..1.
    """
    height, width = scene_rgb.shape[:2]
    level = image.resize_map(heat.astype(np.float32).clip(0, 1), width, height)[..., None].clip(0, 1)
    colour = np.concatenate([np.full_like(level, 255), 255 * level, np.zeros_like(level)], axis=2)  # red to yellow
    share = _COLOUR * level * (1 - 0.5 * level)  # the hottest part stays readable
    shown = scene_rgb * (_DIM + (1 - _DIM) * level) * (1 - share) + colour * share
    return image.encode_image(np.asarray(shown.round().clip(0, 255), np.uint8), ".jpg", 88)
