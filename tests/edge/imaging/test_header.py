"""Headers of encoded pictures."""

from __future__ import annotations

import contextlib
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import PictureError
from edge.imaging.header import detect_format, read_header

KINDS = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}


def encoded(kind: str, width: int = 83, height: int = 41, *options: int) -> bytes:
    noise = np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return cv2.imencode(KINDS[kind], noise, list(options))[1].tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (83, 41), (1200, 3)])
def test_format_and_size_are_read(kind, width, height):
    data = encoded(kind, width, height)
    header = read_header(data, detect_format(data))
    assert (header.format, header.width, header.height, header.is_complete) == (kind, width, height, True)


def test_size_of_lossless_webp_and_progressive_jpeg():
    lossless = encoded("webp", 300, 200, cv2.IMWRITE_WEBP_QUALITY, 101)
    progressive = encoded("jpeg", 300, 200, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert lossless[12:16] == b"VP8L"
    for data in (lossless, progressive):
        header = read_header(data, detect_format(data))
        assert (header.width, header.height, header.is_complete) == (300, 200, True)


@pytest.mark.parametrize("kind", KINDS)
def test_no_prefix_of_a_picture_is_complete(kind):
    data = encoded(kind, 20, 10)
    for length in range(16, len(data) - 12):
        with contextlib.suppress(PictureError):
            assert not read_header(data[:length], kind).is_complete, length


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(20), b"<html>", b"RIFF1234WAVE", bytes(100)])
def test_other_data_has_no_format(data):
    assert detect_format(data) is None


def test_jpeg_of_fill_bytes_is_truncated():
    with pytest.raises(PictureError) as caught:
        read_header(b"\xff\xd8" + b"\xff" * 100_000, "jpeg")
    assert caught.value.reason == "truncated"


def test_jpeg_segments_of_length_zero_are_an_error():
    with pytest.raises(PictureError):
        read_header(b"\xff\xd8" + b"\xff\xe0\x00\x00" * 50_000, "jpeg")


STARTS = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "webp": b"RIFF\x10\0\0\0WEBP"}
# what the readers look for: markers, chunks, lengths
PIECES = st.sampled_from(
    [
        b"\xff\xc0\0\x11\x08",
        b"\xff\xda",
        b"\xff\xd9",
        b"\xff\xe1\0\x04",
        b"\xff",
        b"IEND",
        b"VP8 ",
        b"VP8L",
        b"VP8X",
        bytes(4),
    ]
)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.sampled_from(list(STARTS)), st.lists(PIECES | st.binary(max_size=8), max_size=12).map(b"".join))
def test_any_bytes_give_a_header_or_a_picture_error(picture_format, rest):
    data = STARTS[picture_format] + rest
    assert detect_format(data) == picture_format
    with contextlib.suppress(PictureError):
        header = read_header(data, picture_format)
        assert header.format == picture_format
        assert header.width >= 1
        assert header.height >= 1


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.integers(1, 65535), st.integers(1, 65535))
def test_any_size_survives_a_round_trip(width, height):
    png = STARTS["png"] + struct.pack(">II", width, height)
    jpeg = b"\xff\xd8\xff\xc0\0\x09\x08" + struct.pack(">HH", height, width) + bytes(2) + b"\xff\xda\0\x02"
    for picture_format, data in (("png", png), ("jpeg", jpeg)):
        header = read_header(data, picture_format)
        assert (header.width, header.height, header.is_complete) == (width, height, False)
