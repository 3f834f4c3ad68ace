"""Pictures turned upright, with square pixels."""

from __future__ import annotations

import numpy as np
import pytest

from edge.imaging.orientation import describe_turns, turn, with_square_pixels

STORED = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, STORED),
        (2, STORED[:, ::-1]),
        (3, STORED[::-1, ::-1]),
        (4, STORED[::-1]),
        (5, STORED.transpose(1, 0, 2)),
        (6, STORED[::-1].transpose(1, 0, 2)),
        (7, STORED[::-1, ::-1].transpose(1, 0, 2)),
        (8, STORED.transpose(1, 0, 2)[::-1]),
    ],
)
def test_each_orientation(orientation, upright):
    found = turn(STORED, orientation)
    assert np.array_equal(found, upright)
    assert found.flags.c_contiguous


@pytest.mark.parametrize(
    ("aspect", "size"),
    [(16 / 11, (1024, 576)), (64 / 45, (1001, 576)), (0.5, (704, 1152)), (2.0, (1408, 576)), (8 / 9, (704, 648))],
)
def test_pixels_become_squares_and_none_is_lost(aspect, size):
    assert with_square_pixels(np.zeros((576, 704, 3), np.uint8), aspect).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("aspect", [1.0, 1.0004, 0.0, -1.0, 100.0, 0.01, float("inf"), float("nan")])
def test_square_and_impossible_pixels_stay(aspect):
    picture = np.zeros((576, 704, 3), np.uint8)
    assert with_square_pixels(picture, aspect) is picture
    assert describe_turns(1, aspect) == ""


def test_decode_path_says_what_was_done():
    assert describe_turns(6, 16 / 11) == ", turned upright, pixels made square"
