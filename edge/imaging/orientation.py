"""Turn pictures upright, and give them square pixels, as the container of a video says."""

from __future__ import annotations

import cv2
import numpy as np

from edge.types import Image

UPRIGHT = 1  # EXIF orientation
_MAX_ASPECT = 4.0  # of a pixel; a container that says more is wrong
_SQUARE = 1e-3  # from 1 is still a square: a pixel of a picture 1000 wide


def turn(image_rgb: Image, orientation: int) -> Image:
    """Return a picture upright.

    Args:
        image_rgb: as it was stored.
        orientation: 1 to 8, as in EXIF: how it was stored.
    """
    if orientation == UPRIGHT:
        return image_rgb
    if orientation in {5, 7}:
        transposed = cv2.transpose(image_rgb)
        return np.asarray(transposed if orientation == 5 else cv2.flip(transposed, -1), np.uint8)
    if orientation in {6, 8}:
        code = cv2.ROTATE_90_CLOCKWISE if orientation == 6 else cv2.ROTATE_90_COUNTERCLOCKWISE
        return np.asarray(cv2.rotate(image_rgb, code), np.uint8)
    return np.asarray(cv2.flip(image_rgb, {2: 1, 3: -1, 4: 0}[orientation]), np.uint8)


def with_square_pixels(image_rgb: Image, aspect: float) -> Image:
    """Return a picture whose pixels are squares; it grows, so no detail is lost.

    Args:
        image_rgb: the picture.
        aspect: width of a pixel divided by its height; what cannot be true counts as 1.
    """
    height, width = image_rgb.shape[:2]
    if not is_stretched(aspect):
        return image_rgb
    size = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    return np.asarray(cv2.resize(image_rgb, size), np.uint8)


def is_stretched(aspect: float) -> bool:
    """Return whether pixels of this aspect are not squares, and can be true."""
    return 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT and abs(aspect - 1) > _SQUARE


def describe_turns(orientation: int, aspect: float) -> str:
    """Return what is done to the pictures, for the decode path; empty for most videos."""
    turned = "" if orientation == UPRIGHT else ", turned upright"
    return f"{turned}, pixels made square" if is_stretched(aspect) else turned
