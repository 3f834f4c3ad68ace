"""Vectors of an item's pictures, between where they lie and their mean."""

import numpy as np
import pytest

from edge.gathering import gathered


def unit(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def degrees(rows):
    return np.rad2deg(np.arctan2(rows[:, 1], rows[:, 0]))


def test_each_row_goes_part_of_the_way_to_the_mean_of_its_own_item():
    rows = gathered(unit(0, 40, 90, 90), ["a", "a", "b", "b"], 0.5)
    assert degrees(rows) == pytest.approx([9.686, 30.314, 90, 90], abs=1e-2)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(4))


def test_all_the_way_leaves_means_and_none_of_it_leaves_the_rows():
    given = unit(0, 40, 170)
    assert degrees(gathered(given, ["a", "a", "b"], 1.0)) == pytest.approx([20, 20, 170], abs=1e-4)
    assert gathered(given, ["a", "a", "b"], 0.0) is given


def test_nothing_is_gathered_from_nothing():
    assert gathered(np.zeros((0, 4), np.float32), [], 0.5).shape == (0, 4)


def test_pictures_that_point_in_opposite_directions_keep_their_own():
    assert degrees(gathered(unit(0, 180), ["a", "a"], 0.5)) == pytest.approx([0, 180], abs=1e-2)
