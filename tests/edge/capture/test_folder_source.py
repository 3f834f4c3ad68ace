"""A folder as a camera."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge.capture.folder_source import FolderSource
from edge.config.camera_url import BadPictureError, EndOfStream, parse_source
from edge.errors import CaptureError
from edge.imaging.image import encode_image


@pytest.fixture
def folder(tmp_path):
    for number in (10, 2, 1):
        image = np.full((8, 8, 3), (number, 0, 200), np.uint8)
        (tmp_path / f"photo{number}.png").write_bytes(encode_image(image, ".png"))
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def read_all(door):
    pictures = []
    try:
        while True:
            pictures.append(door.read(0))
    except EndOfStream:
        return pictures


def test_pictures_come_in_order_of_their_numbers_at_the_pace_asked_for(folder):
    pictures = read_all(FolderSource(parse_source(f"folder://{folder}?fps=2")))
    assert [int(picture.image_rgb[0, 0, 0]) for picture in pictures] == [1, 2, 10]
    assert [picture.pts_s for picture in pictures] == [0.0, 0.5, 1.0]
    assert {"file"} == {picture.time_source for picture in pictures}


def test_pictures_are_rgb(folder):
    assert read_all(FolderSource(parse_source(f"folder://{folder}")))[0].image_rgb[0, 0].tolist() == [1, 0, 200]


def test_a_glob_chooses_and_one_picture_is_a_folder_of_one(folder):
    assert len(read_all(FolderSource(parse_source(f"folder://{folder}/photo1*.png")))) == 2
    assert len(read_all(FolderSource(parse_source(f"file://{folder}/photo2.png")))) == 1


def test_an_unreadable_picture_is_one_error_and_the_next_is_read(folder):
    (folder / "photo2.png").write_bytes(b"")
    door = FolderSource(parse_source(f"folder://{folder}"))
    door.read(0)
    with pytest.raises(BadPictureError, match=r"photo2\.png: found 0 bytes"):
        door.read(0)
    assert door.read(0).pts_s == 2.0


def test_nothing_readable_is_an_error_not_an_end(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no jpeg")
    door = FolderSource(parse_source(f"folder://{tmp_path}"))
    with pytest.raises(BadPictureError):
        door.read(0)
    with pytest.raises(CaptureError, match="found 1 unreadable"):
        door.read(0)


def test_missing_and_empty_folders_are_told_apart(tmp_path):
    with pytest.raises(CaptureError, match="found no such folder"):
        FolderSource(parse_source(f"folder://{tmp_path}/none"))
    with pytest.raises(CaptureError, match="found no pictures"):
        FolderSource(parse_source(f"folder://{tmp_path}"))


def test_fifty_megapixels_are_read_and_more_is_one_error_after_which_the_next_is_read(tmp_path):
    largest = cv2.imencode(".jpg", np.full((6250, 8000), 90, np.uint8))[1].tobytes()
    larger = cv2.imencode(".jpg", np.full((6250, 8001), 90, np.uint8))[1].tobytes()
    for name, data in (("1.jpg", larger), ("2.jpg", largest)):
        (tmp_path / name).write_bytes(data)
    door = FolderSource(parse_source(f"folder://{tmp_path}"))
    with pytest.raises(BadPictureError, match=r"/1\.jpg: found 8001x6250 pixels, expected at most 50000000"):
        door.read(0)
    assert door.read(0).image_rgb.shape == (6250, 8000, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
def test_a_picture_of_one_pixel_is_a_picture(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(cv2.imencode(suffix, np.full((1, 1, 3), 90, np.uint8))[1].tobytes())
    assert FolderSource(parse_source(f"folder://{tmp_path}")).read(0).image_rgb.shape == (1, 1, 3)
