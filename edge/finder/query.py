"""Lay objects out on the finder's canvas: a query at all its sizes, or parts of a scene at one size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.errors import PictureError
from edge.finder.correlate import CanvasSquare, query_positions
from edge.finder_shape import FinderShape
from edge.imaging import image
from edge.manifest.model import Preprocess
from edge.types import Box, FloatArray, Image, Mask


def object_mask(image_rgb: Image, box_px: Box | None = None) -> Mask:
    """Return the mask of the object in a query picture: (h, w), 0 or 1.

    Args:
        image_rgb: the picture.
        box_px: of the object; None: whatever stands out from a plain background, or else the whole picture.

    Raises:
        PictureError: the box lies outside the picture.
    """
    height, width = image_rgb.shape[:2]
    if box_px is None:
        found = image.plain_background_mask(image_rgb)
        return np.ones((height, width), np.uint8) if found is None else found
    x0, y0, x1, y1 = (round(v) for v in box_px)
    mask = np.zeros((height, width), np.uint8)
    mask[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = 1
    if not mask.any():
        raise PictureError("empty", f"query: box {list(box_px)} lies outside the picture of {width}x{height}")
    return mask


def lay_out_query(image_rgb: Image, mask: Mask, shape: FinderShape, spec: Preprocess) -> tuple[Image, FloatArray]:
    """Lay a query out at all sizes of the finder, with grey around the object.

    Args:
        image_rgb: (h, w, 3) RGB.
        mask: (h, w), 1 on the object.
        shape: of the finder.
        spec: of its canvas.

    Returns:
        The canvas (height, width, 3) in the spec's colour order, and the object's share of each cell
        (height / stride, width / stride).

    Raises:
        PictureError: the mask is empty, or its size is not the picture's.
    """
    if mask.shape != image_rgb.shape[:2] or not mask.any():
        raise PictureError(
            "empty",
            f"query: the mask {mask.shape} has {int(mask.sum())} pixels set; give a mask of the picture's size that "
            "covers the object",
        )
    y, x = np.nonzero(mask)
    cut = slice(int(y.min()), int(y.max()) + 1), slice(int(x.min()), int(x.max()) + 1)
    picture, alpha = image_rgb[cut], mask[cut] * np.uint8(255)
    places = [(*at, px) for at, px in zip(query_positions(shape, spec), shape.query_px, strict=True)]
    return _draw_canvas([(picture, alpha, place) for place in places], shape.stride, spec)


def lay_out_parts(
    image_rgb: Image, boxes_px: Sequence[Box], places: Sequence[CanvasSquare], shape: FinderShape, spec: Preprocess
) -> tuple[Image, FloatArray]:
    """Lay parts of a picture side by side, one in each square. Unlike `lay_out_query`, this keeps their surroundings.

    Args:
        image_rgb: (h, w, 3) RGB.
        boxes_px: of the parts, within the picture.
        places: the squares; at least one for each part.
        shape: of the finder.
        spec: of its canvas.
    """
    cutouts = []
    for box_px, place in zip(boxes_px, places, strict=False):
        (x0, y0), (x1, y1) = np.floor(box_px[:2]).astype(int), np.ceil(box_px[2:]).astype(int)  # at least one pixel
        part = np.ascontiguousarray(image_rgb[y0:y1, x0:x1])
        cutouts.append((part, np.full(part.shape[:2], 255, np.uint8), place))
    return _draw_canvas(cutouts, shape.stride, spec)


def _draw_canvas(
    cutouts: Sequence[tuple[Image, NDArray[np.uint8], CanvasSquare]], stride: int, spec: Preprocess
) -> tuple[Image, FloatArray]:
    """Draw pictures with their alpha, each scaled to fit its square; return the canvas and their share of each cell."""
    canvas = np.full((spec.height, spec.width, 3), spec.fill, np.uint8)
    covered = np.zeros((spec.height, spec.width), np.uint8)
    for picture, alpha, (x_px, y_px, px) in cutouts:
        scale = px / max(alpha.shape)
        wide, high = (max(1, round(side * scale)) for side in alpha.shape[::-1])
        small, soft = image.resize(picture, wide, high, "area"), image.resize(alpha, wide, high, "area")
        top, left = y_px + (px - high) // 2, x_px + (px - wide) // 2
        rows, columns = slice(top, top + high), slice(left, left + wide)
        share = soft[..., None] / np.float32(255)
        canvas[rows, columns] = np.round(small * share + spec.fill * (1 - share)).astype(np.uint8)
        covered[rows, columns] = soft
    cells = covered.reshape(spec.height // stride, stride, spec.width // stride, stride)
    coverage = np.asarray(cells.mean(axis=(1, 3)) / 255, np.float32)
    return (image.reverse_channels(canvas) if spec.colour == "bgr" else canvas), coverage
