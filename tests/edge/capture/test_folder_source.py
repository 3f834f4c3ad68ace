"""A folder of pictures as a source."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge.capture.folder_source import FolderSource
from edge.capture.frame_source import BadPictureError, EndOfStream
from edge.config.camera_url import parse_source
from edge.errors import CaptureError
from edge.imaging.image import encode_image


@pytest.fixture
def folder(tmp_path):
    for number in (10, 2, 1):
        image = np.full((8, 8, 3), (number, 0, 200), np.uint8)
        (tmp_path / f"photo{number}.png").write_bytes(encode_image(image, ".png"))
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def read_all(source):
    pictures = []
    try:
        while True:
            pictures.append(source.read(0))
    except EndOfStream:
        return pictures


def test_pictures_are_sorted_by_number_and_spaced_by_fps(folder):
    pictures = read_all(FolderSource(parse_source(f"folder://{folder}?fps=2")))
    assert [int(picture.image_rgb[0, 0, 0]) for picture in pictures] == [1, 2, 10]
    assert [picture.pts_s for picture in pictures] == [0.0, 0.5, 1.0]
    assert {"file"} == {picture.time_source for picture in pictures}


def test_pictures_are_rgb(folder):
    assert read_all(FolderSource(parse_source(f"folder://{folder}")))[0].image_rgb[0, 0].tolist() == [1, 0, 200]


def test_glob_and_single_picture(folder):
    assert len(read_all(FolderSource(parse_source(f"folder://{folder}/photo1*.png")))) == 2
    assert len(read_all(FolderSource(parse_source(f"file://{folder}/photo2.png")))) == 1


def test_unreadable_picture_is_an_error_and_the_next_is_read(folder):
    (folder / "photo2.png").write_bytes(b"")
    source = FolderSource(parse_source(f"folder://{folder}"))
    source.read(0)
    with pytest.raises(BadPictureError, match=r"photo2\.png: empty"):
        source.read(0)
    assert source.read(0).pts_s == 2.0


def test_folder_without_readable_pictures_is_an_error_at_the_end(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no jpeg")
    source = FolderSource(parse_source(f"folder://{tmp_path}"))
    with pytest.raises(BadPictureError):
        source.read(0)
    with pytest.raises(CaptureError, match="none of the 1 pictures can be read"):
        source.read(0)


def test_missing_and_empty_folders_have_different_errors(tmp_path):
    with pytest.raises(CaptureError, match="no such folder or file"):
        FolderSource(parse_source(f"folder://{tmp_path}/none"))
    with pytest.raises(CaptureError, match="the folder holds no pictures"):
        FolderSource(parse_source(f"folder://{tmp_path}"))


def test_fifty_megapixels_are_read_and_more_is_an_error(tmp_path):
    largest = cv2.imencode(".jpg", np.full((6250, 8000), 90, np.uint8))[1].tobytes()
    larger = cv2.imencode(".jpg", np.full((6250, 8001), 90, np.uint8))[1].tobytes()
    for name, data in (("1.jpg", larger), ("2.jpg", largest)):
        (tmp_path / name).write_bytes(data)
    source = FolderSource(parse_source(f"folder://{tmp_path}"))
    with pytest.raises(BadPictureError, match=r"/1\.jpg: found 8001x6250 pixels, expected at most 50000000"):
        source.read(0)
    assert source.read(0).image_rgb.shape == (6250, 8000, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
def test_picture_of_one_pixel_is_read(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(cv2.imencode(suffix, np.full((1, 1, 3), 90, np.uint8))[1].tobytes())
    assert FolderSource(parse_source(f"folder://{tmp_path}")).read(0).image_rgb.shape == (1, 1, 3)
