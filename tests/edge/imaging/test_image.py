"""Decoding, cropping, resizing and drawing of pictures."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import CaptureError
from edge.imaging import image


def red_left_blue_right(width=16, height=8):
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, : width // 2] = (255, 0, 0)
    picture[:, width // 2 :] = (0, 0, 255)
    return picture


def test_png_survives_a_round_trip_as_rgb():
    picture = red_left_blue_right()
    assert (image.decode_image(image.encode_image(picture, ".png"), "x") == picture).all()


def test_jpeg_nearly_survives_a_round_trip():
    grey = np.full((16, 16, 3), 90, np.uint8)
    assert image.decode_image(image.encode_image(grey, ".jpg"), "x") == pytest.approx(grey, abs=2)


def test_grey_and_rgba_pictures_become_rgb():
    cv2 = image.cv2
    for shape in ((4, 4), (4, 4, 4)):
        data = cv2.imencode(".png", np.full(shape, 77, np.uint8))[1].tobytes()
        assert image.decode_image(data, "x").shape == (4, 4, 3)


def test_picture_is_rotated_upright_by_its_exif_tag():
    jpeg = image.encode_image(red_left_blue_right(32, 16), ".jpg")
    # one tag, 0x0112 orientation, type short, count 1, value 6: turn clockwise
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0" + tiff
    turned = image.decode_image(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:], "x")
    assert turned.shape == (32, 16, 3)
    assert turned[2, 8, 0] > 200  # the left, red, is on top


def test_read_image(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(image.encode_image(red_left_blue_right(), ".png"))
    assert image.read_image(path).shape == (8, 16, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty; give a picture"),
        (b"not a picture", "the 13 bytes are no picture; give JPEG"),
        (b"\xff\xd8\xff\xe0", "the jpeg ends after 4 bytes, before its size; give the whole file"),
    ],
)
def test_error_names_a_file_that_is_no_picture(tmp_path, data, message):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(CaptureError, match=f"a.jpg: {message}"):
        image.read_image(path)


def test_missing_file_is_a_capture_error(tmp_path):
    with pytest.raises(CaptureError, match=r"none\.jpg: cannot read: No such file"):
        image.read_image(tmp_path / "none.jpg")


def test_picture_with_too_many_pixels_is_rejected(monkeypatch):
    monkeypatch.setattr(image, "MAX_PIXELS", 100)
    with pytest.raises(CaptureError, match="found 16x8 pixels, expected at most 100"):
        image.decode_image(image.encode_image(red_left_blue_right(), ".png"), "x")


def png_claiming(width, height):
    """A PNG of a few bytes whose header claims any size."""
    data = bytearray(image.encode_image(red_left_blue_right(), ".png"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def test_too_large_header_is_rejected_before_decoding(monkeypatch):
    def decode(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(image.cv2, "imdecode", decode)
    with pytest.raises(CaptureError, match=r"bomb\.png: found 30000x30000 pixels, expected at most 50000000"):
        image.decode_image(png_claiming(30_000, 30_000), "bomb.png")


def test_name_that_is_no_utf8_can_be_printed():
    with pytest.raises(CaptureError) as caught:
        image.decode_image(b"", "caf\udce9.jpg")
    assert str(caught.value).encode() == b"caf\\udce9.jpg: empty; give a picture"


def test_crop_grows_by_its_margin_and_is_clipped():
    picture = np.arange(100, dtype=np.uint8).reshape(10, 10, 1).repeat(3, 2)
    assert image.crop(picture, (2, 3, 6, 5)).shape == (2, 4, 3)
    assert image.crop(picture, (2, 3, 6, 5))[0, 0, 0] == 32
    assert image.crop(picture, (2, 2, 6, 6), 0.25).shape == (6, 6, 3)
    assert image.crop(picture, (-5, -5, 50, 50)).shape == (10, 10, 3)


@pytest.mark.parametrize("box", [(20, 20, 30, 30), (-9, -9, -5, -5), (4, 4, 4, 4)])
def test_crop_is_never_empty(box):
    assert image.crop(np.zeros((10, 10, 3), np.uint8), box).size > 0


def test_area_interpolation_shrinks_and_grows():
    checks = (np.indices((8, 8)).sum(axis=0) % 2 * 200).astype(np.uint8)[..., None].repeat(3, 2)
    assert (image.resize(checks, 4, 4, "area") == 100).all()
    assert image.resize(checks, 16, 4, "area").shape == (4, 16, 3)


def test_sharpness_of_an_edge_exceeds_that_of_a_flat_picture():
    assert image.sharpness(np.full((8, 8, 3), 90, np.uint8)) == 0
    assert image.sharpness(red_left_blue_right()) > 0


def test_drawing_changes_the_picture_in_place_and_accepts_any_text():
    picture = np.zeros((40, 80, 3), np.uint8)
    image.draw_box(picture, (10.2, 5, 30, 20), (255, 0, 0))
    assert picture[12, 10].tolist() == [255, 0, 0]
    before = picture.copy()
    image.draw_text(picture, "Größe ▶", (5, 35), (0, 255, 0))
    assert (picture != before).any()


def test_augmented_picture_keeps_its_size():
    picture = np.full((40, 60, 3), 80, np.uint8)
    picture[5:15, 5:15] = 200
    mirrored = image.augmented(picture, 0.0, 1.0, 1.0, mirrored=True)
    assert np.array_equal(mirrored, picture[:, ::-1])
    assert np.array_equal(image.augmented(picture, 0.0, 1.0, 1.0), picture)
    brighter = image.augmented(picture, 0.0, 1.0, 1.25)
    assert (brighter.shape, brighter.max(), brighter.min()) == (picture.shape, 250, 100)
    nearer = image.augmented(picture, 0.0, 1.4, 1.0)
    assert (nearer == 200).sum() < (picture == 200).sum()  # the corner leaves the picture


@pytest.mark.parametrize("scale", [0.35, 0.55, 0.8])
def test_dark_edge_of_text_follows_its_letters(scale):
    """Bold text is wider than plain text in OpenCV 5."""
    picture = np.full((60, 400, 3), 128, np.uint8)
    image.draw_text(picture, "Dale milk morning 99%", (10, 40), (255, 255, 255), scale)
    bright = np.flatnonzero((picture > 180).any(axis=(0, 2)))
    dark = np.flatnonzero((picture < 80).any(axis=(0, 2)))
    assert abs(int(dark.max()) - int(bright.max())) <= 2
    assert abs(int(dark.min()) - int(bright.min())) <= 2


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.text(max_size=20), st.tuples(st.integers(-50, 450), st.integers(-50, 90)))
def test_any_text_can_be_drawn_anywhere(text, at):
    picture = np.full((60, 400, 3), 128, np.uint8)
    image.draw_text(picture, text, at, (255, 255, 255))
    assert picture.shape == (60, 400, 3)


@pytest.mark.parametrize(
    ("size", "longest_px", "shrunk"),
    [((100, 50), 20, (20, 10)), ((50, 100), 20, (10, 20)), ((10, 20), 20, (10, 20)), ((3000, 1), 30, (30, 1))],
)
def test_pictures_shrink_to_their_longer_side(size, longest_px, shrunk):
    assert image.shrink(np.zeros((*size, 3), np.uint8), longest_px).shape == (*shrunk, 3)
