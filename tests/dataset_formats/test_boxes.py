"""Boxes of numbers, and around other shapes."""

from __future__ import annotations

import math

import pytest

from dataset_formats.boxes import box_around_ellipse, box_around_rotated, box_of_sides, box_of_size, turned


@pytest.mark.parametrize(
    "values",
    [[], [1, 2, 3], [1, 2, 3, 4, 5], ["a", 1, 2, 3], [0, 0, float("nan"), 1], [0, 0, 10**400, 1], [0, 0, None, 1]],
)
def test_what_is_no_box_is_none(values):
    assert box_of_sides(values) is None
    assert box_of_size(values) is None


def test_box_without_area_is_none():
    assert box_of_sides([4, 0, 4, 9]) is None
    assert box_of_sides([5, 0, 4, 9]) is None
    assert box_of_size([5, 0, -4, 9]) is None
    assert box_of_size(["5", 0, 4, 9.5]) == (5, 0, 9, 9.5) == box_of_sides([5, 0, 9, 9.5])


def test_box_around_a_quarter_turn_swaps_the_sides():
    assert box_around_rotated(20, 10, 8, 4, math.pi / 2) == pytest.approx((18, 6, 22, 14))
    assert turned((16, 8, 24, 12), 90) == pytest.approx((18, 6, 22, 14))
    assert box_around_ellipse(20, 10, 6, 2, 90) == pytest.approx((18, 4, 22, 16))
