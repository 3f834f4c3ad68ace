"""Which pictures of a thing are taken."""

from __future__ import annotations

import cv2
import numpy as np

from edge.kiosk.enrolment import judge, measure_picture

NOISE = np.random.default_rng(0).integers(0, 255, (180, 320, 3), dtype=np.uint8)
OTHER = np.ascontiguousarray(NOISE[:, ::-1]) // 2


def still(picture):
    return measure_picture(picture, is_still=True)


def test_the_first_sharp_picture_that_holds_still_is_taken():
    glance = still(NOISE)
    assert judge(glance, [], glance.sharpness, 4) == "take"


def test_a_moving_thing_is_not_taken():
    glance = measure_picture(NOISE, is_still=False)
    assert judge(glance, [], glance.sharpness, 4) == "moving"


def test_a_picture_half_as_sharp_as_the_sharpest_is_not_taken():
    sharp, blurred = still(NOISE), still(cv2.GaussianBlur(NOISE, (15, 15), 5))
    assert judge(blurred, [], sharp.sharpness, 4) == "blurred"


def test_the_same_side_is_not_taken_twice():
    first, again, turned = still(NOISE), still(np.minimum(NOISE, 253) + 2), still(OTHER)
    assert judge(again, [first], first.sharpness, 4) == "same"
    assert judge(turned, [first], turned.sharpness, 4) == "take"


def test_enough_is_enough():
    first, turned = still(NOISE), still(OTHER)
    assert judge(turned, [first], turned.sharpness, 1) == "enough"


def test_a_picture_of_one_pixel_can_be_judged():
    assert judge(still(np.zeros((1, 1, 3), np.uint8)), [], 0.0, 4) == "take"
