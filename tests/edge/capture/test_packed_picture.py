"""Pixels from GStreamer."""

from __future__ import annotations

import numpy as np
import pytest

from edge.capture.packed_picture import unpad
from edge.errors import CaptureError


@pytest.mark.parametrize("pixel_format", ["RGB", "RGBA", "RGBx", "BGRA", "BGRx"])
def test_every_format_becomes_rgb(pixel_format):
    red, green = pixel_format.index("R"), pixel_format.index("G")
    pixels = np.full((3, 5, len(pixel_format)), 7, np.uint8)
    pixels[..., red], pixels[..., green] = 200, 90
    padded = np.zeros((3, (5 * len(pixel_format) + 3) // 4 * 4), np.uint8)
    padded[:, : 5 * len(pixel_format)] = pixels.reshape(3, -1)
    image_rgb = unpad(padded.tobytes(), 5, 3, pixel_format)
    assert image_rgb.shape == (3, 5, 3)
    assert (image_rgb == (200, 90, 7)).all()


def test_rows_without_padding_are_not_copied():
    data = bytes(range(36))
    image_rgb = unpad(data, 4, 3)
    assert np.shares_memory(image_rgb, np.frombuffer(data, np.uint8))
    assert image_rgb[2, 3].tolist() == [33, 34, 35]


def test_too_few_bytes_are_an_error():
    with pytest.raises(CaptureError, match="found 59 bytes for 5x3 RGBA, expected 60"):
        unpad(bytes(59), 5, 3, "RGBA")
