"""The pyramid against OpenCV's own averages of the full picture."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge.imaging.pyramid import Pyramid, pyramid_of
from edge.types import Frame


def scene(width, height, seed=0):
    """Return a picture as smooth as one of a camera, with a bright square."""
    noise = np.random.default_rng(seed).integers(60, 200, (9, 16, 3), np.uint8)
    picture = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    picture[height // 3 : height // 2, width // 3 : width // 2] = 250
    return picture


def average(picture, width, height):
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize(("width", "height", "factor"), [(640, 360, 2), (320, 160, 4), (16, 8, 8)])
def test_powers_of_two_are_averages(width, height, factor):
    picture = scene(width, height)
    found = Pyramid(picture).resized(width // factor, height // factor)
    assert np.abs(found.astype(int) - average(picture, width // factor, height // factor)).max() <= 1  # rounded twice


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((1281, 721), (320, 180)),
        ((1919, 1079), (320, 180)),
        ((1500, 1000), (416, 277)),
        ((641, 361), (320, 180)),
        ((799, 601), (96, 72)),
        ((301, 457), (64, 160)),
        ((1000, 300), (96, 299)),
    ],
)
def test_odd_sizes_are_within_a_grey_level_of_the_average(source, target):
    picture = scene(*source)
    error = Pyramid(picture).resized(*target).astype(int) - average(picture, *target)
    assert np.abs(error).mean() < 1


@pytest.mark.parametrize(
    ("source", "target"), [((2000, 9), (96, 8)), ((7, 1999), (3, 96)), ((3, 3), (2, 1)), ((5, 1), (1, 1))]
)
def test_narrow_and_tiny_pictures_keep_their_brightness(source, target):
    picture = scene(*source)
    found = Pyramid(picture).resized(*target)
    assert (found.shape, found.dtype) == ((target[1], target[0], 3), np.uint8)
    assert abs((found.astype(int) - average(picture, *target)).mean()) < 4


@pytest.mark.parametrize("size", [(1023, 511), (1279, 719), (385, 257)])
def test_odd_sides_do_not_shift_an_object(size):
    """The edge of an object lies where it lay, in shares of the picture, after halvings that lose odd columns."""
    width, height = size
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, width * 3 // 4 :] = 200
    picture[height * 3 // 4 :, :] = 200
    found = Pyramid(picture).resized(96, 48)[:, :, 0] / 200
    assert (1 - found[0]).sum() == pytest.approx((width * 3 // 4) * 96 / width, abs=0.15)
    assert (1 - found[:, 0]).sum() == pytest.approx((height * 3 // 4) * 48 / height, abs=0.15)


def test_small_picture_is_averaged_by_a_factor_below_two():
    picture = np.random.default_rng(0).integers(0, 255, (90, 96, 3), np.uint8)
    assert (Pyramid(picture).resized(64, 60) == average(picture, 64, 60)).all()


def test_growing_and_linear_are_opencv_linear():
    picture = scene(101, 67)
    assert (Pyramid(picture).resized(200, 30) == cv2.resize(picture, (200, 30))).all()
    assert (Pyramid(picture).resized(20, 30, "linear") == cv2.resize(picture, (20, 30))).all()


def test_crop_is_kept_and_the_whole_picture_is_itself():
    pyramid = Pyramid(scene(100, 80))
    crop = pyramid.crop((10.2, 20.0, 50.0, 60.5), margin=0.1)
    assert (crop.width, crop.height) == (48, 50)  # 6.22..53.98, 15.95..64.55
    assert pyramid.crop((10.2, 20.0, 50.0, 60.5), margin=0.1) is crop
    assert crop.resized(20, 20) is crop.resized(20, 20)
    assert pyramid.crop((-5.0, 0.0, 100.0, 99.0)) is pyramid


def test_users_of_a_frame_share_its_halves():
    frame = Frame("door", 0, scene(64, 48), 0, 0.0, "arrival")
    assert (pyramid_of(frame).resized(32, 24) == average(frame.image_rgb, 32, 24)).all()
    half = frame.halves[1]
    pyramid_of(frame).resized(8, 8)
    assert frame.halves[1] is half
    assert not replace(frame, image_rgb=scene(64, 48, 1)).halves  # those of another picture
