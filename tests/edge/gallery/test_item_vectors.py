"""Shrinking vectors to their centroid, and augmented views."""

import numpy as np
import pytest

from edge.gallery.item_vectors import ENOUGH_PICTURES, augment_views, shrink_items_to_centroid, shrink_to_centroid
from edge.gallery.store import CategoryItems, quantise
from edge.manifest.embedder import Head


def unit(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def degrees(rows):
    return np.rad2deg(np.arctan2(rows[:, 1], rows[:, 0]))


def test_each_row_moves_part_of_the_way_to_its_centroid():
    rows = shrink_to_centroid(unit(0, 40, 90, 90), ["a", "a", "b", "b"], 0.5)
    assert degrees(rows) == pytest.approx([9.686, 30.314, 90, 90], abs=1e-2)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(4))


def test_share_one_gives_centroids_and_zero_the_same_rows():
    given = unit(0, 40, 170)
    assert degrees(shrink_to_centroid(given, ["a", "a", "b"], 1.0)) == pytest.approx([20, 20, 170], abs=1e-4)
    assert shrink_to_centroid(given, ["a", "a", "b"], 0.0) is given


def test_shrinking_no_rows_gives_no_rows():
    assert shrink_to_centroid(np.zeros((0, 4), np.float32), [], 0.5).shape == (0, 4)


def test_opposite_vectors_keep_their_direction():
    assert degrees(shrink_to_centroid(unit(0, 180), ["a", "a"], 0.5)) == pytest.approx([0, 180], abs=1e-2)


def items_of(rows, row_item, negative):
    vectors_i8, scales = quantise(rows)
    names = tuple("abc"[: len(negative)])
    heads = (Head(name="class", dim=2),)
    return CategoryItems(
        names, names, np.array(negative, np.bool_), vectors_i8, scales, np.asarray(row_item, np.int32), heads
    )


def test_stored_items_shrink_but_negatives_do_not():
    items = items_of(unit(0, 40, 90, 150), [0, 0, 1, 1], [False, True])
    found = shrink_items_to_centroid(items, 0.5)
    assert degrees(found.vectors_i8 * found.scales[:, None]) == pytest.approx([9.7, 30.3, 90, 150], abs=0.5)
    assert (found.item_ids, found.heads) == (items.item_ids, items.heads)


def test_items_are_unchanged_without_a_share():
    items = items_of(unit(0, 40), [0, 0], [False])
    assert shrink_items_to_centroid(items, 0.0) is items
    none = items_of(np.zeros((0, 2), np.float32), [], [])
    assert shrink_items_to_centroid(none, 0.5) is none


def pictures(count):
    return list(np.random.default_rng(3).integers(0, 255, (count, 24, 16, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("count", "views"),
    [(0, 0), (1, 6), (ENOUGH_PICTURES - 1, 6 * (ENOUGH_PICTURES - 1)), (ENOUGH_PICTURES, ENOUGH_PICTURES)],
)
def test_few_pictures_get_rotated_and_enlarged_views(count, views):
    given = pictures(count)
    augmented = augment_views(given)
    assert len(augmented) == views
    assert all(view.shape == (24, 16, 3) for view in augmented)
    assert all(one is other for one, other in zip(given, augmented, strict=False))
    assert len({view.tobytes() for view in augmented}) == views


def test_no_views_are_added_when_few_is_zero():
    assert len(augment_views(pictures(1), 0)) == 1
