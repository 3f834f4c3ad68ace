"""Convert pixels to model input: the one implementation for the device, calibration and training's evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge.imaging import image
from edge.imaging.pyramid import Pyramid, pyramid_of
from edge.manifest.model import Preprocess
from edge.types import Box, FloatArray, Image

_ZERO = np.float32(0)


@dataclass(frozen=True, slots=True)
class Placement:
    """The position of a picture in the model input, to map boxes back."""

    scale_x: float  # input pixels per source pixel
    scale_y: float
    source_width: int
    source_height: int

    def to_source(self, box_in: Box) -> Box:
        """Map a box from input pixels to the source picture, clipped to it."""
        x0, y0, x1, y1 = box_in
        return (
            min(max(x0 / self.scale_x, 0.0), float(self.source_width)),
            min(max(y0 / self.scale_y, 0.0), float(self.source_height)),
            min(max(x1 / self.scale_x, 0.0), float(self.source_width)),
            min(max(y1 / self.scale_y, 0.0), float(self.source_height)),
        )

    def visible_sides_px(self, boxes_in: FloatArray) -> FloatArray:
        """Return width and height in source pixels of the part of each box that lies in the picture.

        Args:
            boxes_in: (n, 4) in input pixels.

        Returns:
            (n, 2), negative where a box lies outside the picture.
        """
        scale, limit = _limits(self)
        sides = np.minimum(boxes_in[:, 2:], limit)
        sides -= np.maximum(boxes_in[:, :2], _ZERO)
        sides /= scale
        return sides


@lru_cache
def _limits(placed: Placement) -> tuple[FloatArray, FloatArray]:
    """Return the scale, and the picture's right and lower border in input pixels; (2,) each."""
    scale = np.array([placed.scale_x, placed.scale_y], np.float32)
    return scale, np.array([placed.source_width, placed.source_height], np.float32) * scale


def placement_of(spec: Preprocess, source_width: int, source_height: int) -> Placement:
    """Return the position of a picture of this size."""
    scale_x, scale_y = spec.width / source_width, spec.height / source_height
    if spec.resize == "letterbox":
        scale_x = scale_y = min(scale_x, scale_y)
    return Placement(scale_x, scale_y, source_width, source_height)


def to_canvas(spec: Preprocess, picture: Image | Pyramid) -> tuple[Image, Placement]:
    """Resize a picture onto the model's canvas: (height, width, 3) uint8 in the manifest's colour order.

    The canvas may be shared with others who scale the picture to this size: do not write into it.
    """
    pyramid = pyramid_of(picture)
    placement = placement_of(spec, pyramid.width, pyramid.height)
    if spec.resize == "stretch":
        canvas = pyramid.resized(spec.width, spec.height, spec.interpolation)
    else:
        inner_width = max(1, min(spec.width, round(pyramid.width * placement.scale_x)))
        inner_height = max(1, min(spec.height, round(pyramid.height * placement.scale_y)))
        canvas = np.empty((spec.height, spec.width, 3), np.uint8)
        canvas[:inner_height, :inner_width] = pyramid.resized(inner_width, inner_height, spec.interpolation)
        canvas[:inner_height, inner_width:] = spec.fill
        canvas[inner_height:] = spec.fill
    return (image.reverse_channels(canvas) if spec.colour == "bgr" else canvas), placement


def to_batch(spec: Preprocess, canvases: list[Image]) -> NDArray[np.generic]:
    """Stack canvases into the model's input: (n, h, w, 3) or (n, 3, h, w), uint8 or float32 0..255.

    The input may be the memory of a canvas: do not write into it.
    """
    dtype = np.float32 if spec.dtype == "float32" else np.uint8
    if spec.layout == "nhwc":
        stacked = np.ascontiguousarray(canvases[0])[None] if len(canvases) == 1 else np.stack(canvases)
        return stacked.astype(dtype, copy=False)
    batch = np.empty((len(canvases), 3, spec.height, spec.width), dtype)
    for picture, canvas in zip(batch, canvases, strict=True):
        for plane, channel in zip(picture, image.split_channels(canvas), strict=True):
            plane[:] = channel
    return batch
