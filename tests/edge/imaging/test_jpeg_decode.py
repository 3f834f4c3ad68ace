"""JPEGs decoded in one strict pass, perhaps smaller: the same pixels as OpenCV's, and no damage goes unseen."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import PictureError
from edge.imaging import jpeg_damage
from edge.imaging.image import decode_image, decode_reduced
from edge.imaging.jpeg_decode import decode_vouched, exif_orientation
from tests.edge.imaging.test_damage import END, JPEGS, WHOLE, first_scan, jpeg, scene

ODD = jpeg(scene(333, 251))
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def by_opencv(data: bytes, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)[..., ::-1]


def times(factor: float):
    return lambda *_: factor


def with_exif(data: bytes, *tiffs: bytes) -> bytes:
    segments = [b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff for tiff in tiffs]
    return data[:2] + b"".join(segments) + data[2:]


def tiff(value: int, kind: int = 3, number: int = 1, order: str = ">") -> bytes:
    """EXIF data with a width, which is not read, and an orientation."""
    mark = b"MM\0*" if order == ">" else b"II*\0"
    return mark + struct.pack(f"{order}IHHHIIHHIHHI", 8, 2, 256, 4, 1, 4000, 274, kind, number, value, 0, 0)


@pytest.mark.parametrize("kind", [kind for kind in WHOLE if "png" not in kind])
def test_whole_jpeg_has_the_pixels_of_opencv(kind):
    np.testing.assert_array_equal(decode_image(WHOLE[kind], "a"), by_opencv(WHOLE[kind]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("factor", REDUCED)
def test_reduced_picture_is_upright_and_knows_its_full_size(factor, orientation):
    for order in "<>":
        data = with_exif(ODD, tiff(orientation, order=order))
        picture = decode_reduced(data, "a", times(factor))
        np.testing.assert_array_equal(picture.image_rgb, by_opencv(data, REDUCED[factor]))
        assert (picture.width, picture.height) == ((251, 333) if orientation > 4 else (333, 251))


def test_reduction_is_asked_with_the_upright_size():
    asked = []
    decode_reduced(with_exif(ODD, tiff(6)), "a", lambda *size: asked.append(size) or 1.0)
    assert asked == [(251, 333)]


@pytest.mark.parametrize(("most", "width"), [(0.5, 333), (1.99, 333), (2.0, 167), (3.9, 167), (7.0, 84), (100.0, 42)])
def test_reduction_is_never_exceeded(most, width):
    assert decode_reduced(ODD, "a", times(most)).image_rgb.shape[1] == width


UNCLEAR = {
    "two orientations": with_exif(ODD, tiff(6), tiff(3)),
    "orientation of another type": with_exif(ODD, tiff(6, kind=4)),
    "several orientations": with_exif(ODD, tiff(6, number=2)),
    "impossible orientation": with_exif(ODD, tiff(9)),
    "cut EXIF": with_exif(ODD, tiff(6)[:15]),
    "many tags": with_exif(ODD, b"MM\0*" + struct.pack(">IH", 8, 60_000)),
}


@pytest.mark.parametrize("kind", UNCLEAR)
def test_unclear_orientation_is_left_to_opencv(kind):
    assert decode_vouched(UNCLEAR[kind], times(8)) is None
    np.testing.assert_array_equal(decode_reduced(UNCLEAR[kind], "a", times(8)).image_rgb, by_opencv(UNCLEAR[kind]))


def test_orientation_after_the_first_scan_is_ignored():
    data = JPEGS["progressive"]
    at = data.rindex(b"\xff\xda")
    late = data[:at] + with_exif(b"", tiff(6)) + data[at:]
    picture = decode_vouched(late, times(1))
    assert picture is not None
    np.testing.assert_array_equal(picture.image_rgb, by_opencv(data))


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.sampled_from([b"MM\0*\0\0\0\x08", b"II*\0\x08\0\0\0", b""]))
def test_exif_never_fails(data, mark):
    assert exif_orientation(mark + data) in {None, *range(1, 9)}


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.98])
def test_damage_is_found_in_a_reduced_picture(kind, kept):
    data, start = JPEGS[kind], first_scan(JPEGS[kind])
    at = start + int((len(data) - start) * kept)
    zeroed = data[: at - 300] + bytes(64) + data[at - 236 :]
    for damaged in (data[:at], data[:at] + END, *[zeroed] * (kind != "progressive")):  # refining scans may hold zeros
        with pytest.raises(PictureError) as refused:
            decode_reduced(damaged, "a", times(8))
        assert refused.value.reason in {"truncated", "broken"}


def test_second_frame_header_is_not_vouched_for():
    """The decoder would reserve memory for the first, which nobody checked."""
    at = JPEGS["progressive"].rindex(b"\xff\xda")
    second = b"\xff\xc2\0\x0b\x08" + struct.pack(">HH", 60_000, 60_000) + b"\1\1\x11\0"
    assert decode_vouched(JPEGS["progressive"][:at] + second + JPEGS["progressive"][at:], times(1)) is None


def test_picture_is_not_reduced_without_the_strict_decoder(monkeypatch):
    monkeypatch.setattr(jpeg_damage, "strict_decoder", lambda: None)
    picture = decode_reduced(ODD, "a", times(8))
    assert (picture.image_rgb.shape, picture.width) == ((251, 333, 3), 333)
