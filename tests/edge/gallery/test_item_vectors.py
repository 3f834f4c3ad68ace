"""Vectors of an item's pictures, between where they lie and their mean."""

import numpy as np
import pytest

from edge.gallery.item_vectors import gathered, gathered_items
from edge.gallery.store import NEGATIVE, CategoryItems, quantise
from edge.manifest import Head


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


def items_of(rows, row_item, metadata):
    vectors_i8, scales = quantise(rows)
    names = tuple("abc"[: len(metadata)])
    heads = (Head(name="class", dim=2),)
    return CategoryItems(names, names, tuple(metadata), vectors_i8, scales, np.asarray(row_item, np.int32), heads)


def test_stored_items_are_gathered_but_not_those_that_veto():
    items = items_of(unit(0, 40, 90, 150), [0, 0, 1, 1], [{}, {NEGATIVE: True}])
    found = gathered_items(items, 0.5)
    assert degrees(found.vectors_i8 * found.scales[:, None]) == pytest.approx([9.7, 30.3, 90, 150], abs=0.5)
    assert (found.item_ids, found.heads) == (items.item_ids, items.heads)


def test_items_that_are_not_gathered_are_those_of_the_store():
    items = items_of(unit(0, 40), [0, 0], [{}])
    assert gathered_items(items, 0.0) is items
    none = items_of(np.zeros((0, 2), np.float32), [], [])
    assert gathered_items(none, 0.5) is none
