"""Turn the packed pixels that GStreamer delivers into RGB pictures with square pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge.errors import CaptureError
from edge.imaging.image import without_fourth_channel
from edge.imaging.orientation import with_square_pixels
from edge.types import Image


def image_of(sample: Any, data: bytes) -> Image:
    """Return the picture in a `Gst.Sample`, as RGB with square pixels; it may be read-only.

    Args:
        sample: says what its picture looks like.
        data: content of its buffer.

    Raises:
        CaptureError: there are fewer bytes than the size needs.
    """
    # Use the size of this sample: cameras change resolution in mid-stream.
    shape = sample.get_caps().get_structure(0)
    stored = unpad(data, shape.get_value("width"), shape.get_value("height"), shape.get_value("format"))
    return with_square_pixels(stored, aspect_of(sample))


def aspect_of(sample: Any) -> float:
    """Return width of a pixel divided by its height, in a `Gst.Sample`; 1 if unknown."""
    known, across, down = sample.get_caps().get_structure(0).get_fraction("pixel-aspect-ratio")
    return float(across / down) if known and across > 0 and down > 0 else 1.0


def unpad(data: bytes, width: int, height: int, pixel_format: str = "RGB") -> Image:
    """Return rows of packed pixels, each padded to a multiple of four bytes, as RGB; read-only where nothing is copied.

    Args:
        data: the rows.
        width: pixels.
        height: pixels.
        pixel_format: one of PACKED_FORMATS.

    Raises:
        CaptureError: there are fewer bytes than the size needs.
    """
    channels, stride = len(pixel_format), len(data) // max(height, 1)
    if stride < channels * width:
        expected = channels * width * height
        raise CaptureError(f"found {len(data)} bytes for {width}x{height} {pixel_format}, expected {expected}")
    rows = np.frombuffer(data, np.uint8, count=stride * height).reshape(height, stride)
    pixels = rows[:, : channels * width].reshape(height, width, channels)
    if channels == 3:
        return pixels if stride == channels * width else pixels.copy()
    return without_fourth_channel(pixels, is_bgr=pixel_format.startswith("B"))
