"""What is shown of pictures: JPEGs of ours, from a bounded cache."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from console.sets import images
from console.sets.images import bound_cache, crop_jpeg, crop_pixels, picture_jpeg
from edge.errors import PictureError
from tests.console.sets.sets_samples import encoded, pixels


@pytest.fixture
def picture(room):
    set_id = room.make()
    room.upload(set_id, {"a.png": encoded(21, ".png", 640, 480)})
    return room.pictures(set_id)[0]


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_sizes_are_rounded_up_to_a_step(room, picture):
    assert decoded(picture_jpeg(room.settings, picture, 200)).shape == (192, 256, 3)
    assert picture_jpeg(room.settings, picture, 129) == picture_jpeg(room.settings, picture, 256)
    assert decoded(picture_jpeg(room.settings, picture, 4096)).shape == (480, 640, 3)


def test_crop_shows_its_box(room, picture):
    shown = decoded(crop_jpeg(room.settings, picture, (100, 50, 228, 178), 128, margin=0.0))
    assert shown.shape == (128, 128, 3)
    expected = cv2.cvtColor(pixels_rgb()[50:178, 100:228], cv2.COLOR_RGB2BGR)
    assert np.abs(shown.astype(int) - expected).mean() < 8
    assert np.array_equal(crop_pixels(picture, (100, 50, 228, 178)), pixels_rgb()[50:178, 100:228])


def pixels_rgb():
    return cv2.cvtColor(pixels(21, 640, 480), cv2.COLOR_BGR2RGB)


def test_many_at_once_decode_once(room, monkeypatch):
    set_id = room.make()
    room.upload(set_id, {"a.png": encoded(22, ".png", 300, 200)})
    (picture,) = room.pictures(set_id)
    calls = []
    real = images.decode
    monkeypatch.setattr(images, "decode", lambda *args: calls.append(1) or real(*args))
    with ThreadPoolExecutor(9) as people:
        shown = set(people.map(lambda _: picture_jpeg(room.settings, picture, 512), range(9)))
    assert len(shown) == 1
    assert calls == [1]


@pytest.mark.parametrize("is_shown_before", [True, False])
def test_file_that_changed_or_vanished_is_no_other_picture(room, picture, is_shown_before):
    if is_shown_before:
        picture_jpeg(room.settings, picture, 256)
    picture.path.write_bytes(encoded(23, ".png", 640, 481))
    with pytest.raises(PictureError, match="changed since it was added"):
        picture_jpeg(room.settings, picture, 256)
    picture.path.unlink()
    with pytest.raises(PictureError, match="is gone"):
        picture_jpeg(room.settings, picture, 256)


def test_file_of_same_length_that_changed_is_not_decoded(room):
    set_id = room.make()
    room.upload(set_id, {"a.png": encoded(24, ".png", 640, 480)})
    (picture,) = room.pictures(set_id)
    data = bytearray(picture.path.read_bytes())
    data[-30] ^= 1
    picture.path.write_bytes(data)
    with pytest.raises(PictureError, match="changed"):
        crop_jpeg(room.settings, picture, (1, 1, 60, 60), 128)


def test_half_written_file_of_the_cache_is_replaced(room, picture):
    whole = picture_jpeg(room.settings, picture, 512)
    for path in room.settings.thumbnails.rglob("*.jpg"):
        path.write_bytes(path.read_bytes()[:-50])
    assert picture_jpeg(room.settings, picture, 512) == whole


def test_cache_deletes_its_oldest_files(tmp_path):
    for number in range(10):
        path = tmp_path / "ab" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (number, number))
    bound_cache(tmp_path, 5000)
    assert sorted(path.name for path in tmp_path.rglob("*.jpg")) == [f"{n}.jpg" for n in range(6, 10)]


def test_full_disk_only_makes_the_cache_useless(room, picture, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images.Path, "write_bytes", full)
    assert decoded(picture_jpeg(room.settings, picture, 128)).shape == (96, 128, 3)


def test_deleted_picture_leaves_no_thumbnail(room):
    set_id, other = room.make(), room.make("uploads", "scenes", name="other")
    room.upload(set_id, {"a.png": encoded(25, ".png", 640, 480), "b.png": encoded(26, ".png", 640, 480)})
    room.upload(other, {"b.png": encoded(26, ".png", 640, 480)})
    for picture in room.pictures(set_id):
        crop_jpeg(room.settings, picture, (1, 1, 60, 60), 128)
    room.keeper.delete_picture("mia", room.pictures(set_id)[0].id)
    assert len(list(room.settings.thumbnails.rglob("*.jpg"))) == 2
    room.keeper.delete("mia", set_id)
    assert len(list(room.settings.thumbnails.rglob("*.jpg"))) == 2  # the other set shows it
    room.keeper.delete("mia", other)
    assert list(room.settings.thumbnails.rglob("*.jpg")) == []
