"""Turn the packed pixels that GStreamer delivers into RGB pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge.errors import CaptureError
from edge.imaging.image import without_fourth_channel
from edge.types import Image


def image_of(sample: Any) -> Image:
    """Return the picture in a `Gst.Sample`, as writable RGB."""
    # Use the size of this sample: cameras change resolution in mid-stream.
    shape, buffer = sample.get_caps().get_structure(0), sample.get_buffer()
    width, height = shape.get_value("width"), shape.get_value("height")
    return unpad(buffer.extract_dup(0, buffer.get_size()), width, height, shape.get_value("format"))


def unpad(data: bytes, width: int, height: int, pixel_format: str = "RGB") -> Image:
    """Return rows of packed pixels, each padded to a multiple of four bytes, as a writable RGB picture.

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
    return pixels.copy() if channels == 3 else without_fourth_channel(pixels, is_bgr=pixel_format.startswith("B"))
