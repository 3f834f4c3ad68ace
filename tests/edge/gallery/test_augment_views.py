"""Other views of an item's pictures."""

import numpy as np
import pytest

from edge.gallery.item_vectors import FEW, widened


def pictures(count):
    return list(np.random.default_rng(3).integers(0, 255, (count, 24, 16, 3), dtype=np.uint8))


@pytest.mark.parametrize(("count", "views"), [(0, 0), (1, 6), (FEW - 1, 6 * (FEW - 1)), (FEW, FEW)])
def test_few_pictures_are_seen_turned_and_from_near_too(count, views):
    given = pictures(count)
    seen = widened(given)
    assert len(seen) == views
    assert all(view.shape == (24, 16, 3) for view in seen)
    assert all(one is other for one, other in zip(given, seen, strict=False))
    assert len({view.tobytes() for view in seen}) == views


def test_none_are_few_where_nobody_asks():
    assert len(widened(pictures(1), 0)) == 1
