"""Formats and sizes by the first bytes."""

from __future__ import annotations

import contextlib
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import PictureError
from edge.imaging.formats import container_format, read_size, unread_format
from edge.imaging.image import decode_image
from edge.imaging.tiff import find_tiff_damage, read_directory

PICTURE = np.random.default_rng(0).integers(0, 255, (41, 83, 3), dtype=np.uint8)


def tiff(*tags: tuple[int, int, int], order: str = "<", big: bool = False) -> bytes:
    """A TIFF of one directory; tags are number, type and value."""
    mark = (b"II+\0\x08\0\0\0" if big else b"II*\0") if order == "<" else b"MM\0*"
    head, count, value = ("Q", "Q", "HHQQ") if big else ("I", "H", "HHI")
    start = len(mark) + struct.calcsize(head)
    data = mark + struct.pack(order + head, start) + struct.pack(order + count, len(tags))
    for number, kind, one in tags:
        if big:
            data += struct.pack(order + value, number, kind, 1, one)
        else:
            data += struct.pack(order + value, number, kind, 1)
            data += struct.pack(order + ("HH" if kind == 3 else "I"), *((one, 0) if kind == 3 else (one,)))
    return data + struct.pack(order + head, 0)


SIZE = ((256, 4, 30_000), (257, 4, 20_000))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff", ".ppm", ".pgm"])
def test_size_is_read_from_the_header(suffix):
    picture = PICTURE[..., 0] if suffix == ".pgm" else PICTURE
    assert read_size(cv2.imencode(suffix, picture)[1].tobytes()) == (83, 41)


@pytest.mark.parametrize(
    "data",
    [
        b"GIF89a" + struct.pack("<HHBBB", 30_000, 20_000, 0, 0, 0) + b";",
        b"BM" + bytes(12) + struct.pack("<Iii", 40, 30_000, -20_000) + bytes(30),
        b"BM" + bytes(12) + struct.pack("<IHH", 12, 30_000, 20_000) + bytes(30),
        b"P6 # a comment\n30000\n20000 255\n",
        tiff(*SIZE),
        tiff(*SIZE, order=">"),
        tiff(*SIZE, big=True),
    ],
)
def test_size_that_a_file_only_claims_is_refused_before_decoding(monkeypatch, data):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(PictureError, match="found 30000x20000 pixels") as caught:
        decode_image(data, "bomb")
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "a raw photo"),
        (b"II*\0\x10\0\0\0CR\x02\0", "a raw photo"),
        (tiff(*SIZE, (50706, 1, 1)), "a raw photo"),
        (tiff((254, 4, 1), *SIZE, (330, 4, 8)), "a raw photo"),
    ],
)
def test_format_that_is_not_read_is_named(data, name):
    assert unread_format(data) == name
    with pytest.raises(PictureError, match=f"{name} is not read; convert it") as caught:
        decode_image(data, "a")
    assert caught.value.reason == "not_a_picture"


def test_film_and_plain_tiff_are_no_unread_pictures():
    assert container_format(b"\0\0\0\x18ftypisom\0\0\0\0isomavc1") is None
    assert unread_format(tiff(*SIZE)) is None


def test_tiff_whose_strip_lies_outside_is_truncated():
    data = tiff(*SIZE, (273, 4, 8), (279, 4, 1000))
    assert find_tiff_damage(data)[0] == "truncated"
    assert find_tiff_damage(data + bytes(1000)) is None


def test_deflated_tiff_may_not_inflate_without_end():
    small = ((256, 4, 10), (257, 4, 10), (259, 3, 8))
    bomb = zlib.compress(bytes(10_000_000))
    start = len(tiff(*small, (273, 4, 0), (279, 4, 0)))
    data = tiff(*small, (273, 4, start), (279, 4, len(bomb))) + bomb
    assert find_tiff_damage(data) == ("broken", "is damaged (a part does not inflate)")


def test_tag_that_points_outside_does_not_spoil_the_others():
    data = bytearray(tiff((274, 3, 6), (282, 4, 1)))
    data[8 + 2 + 12 + 4 : 8 + 2 + 12 + 8] = struct.pack("<I", 9)  # nine values, at offset 1
    data[8 + 2 + 12 + 8 : 8 + 2 + 12 + 12] = struct.pack("<I", 1 << 30)
    assert read_directory(bytes(data)).first_values == {274: 6}


STARTS = [b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"GIF89a", b"BM", b"P6 ", b"\0\0\0\x20ftyp", b"\xff\xd8\xff", b""]


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.sampled_from(STARTS), st.binary(max_size=120))
def test_any_bytes_give_a_size_or_a_picture_error(start, rest):
    with contextlib.suppress(PictureError):
        width, height = read_size(start + rest)
        assert width >= 0
        assert height >= 0
    with contextlib.suppress(PictureError):
        find_tiff_damage(b"II*\0" + rest)
    container_format(start + rest)
