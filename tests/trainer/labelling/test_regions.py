"""SCDA's mask, and the box of a map."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.labelling.regions import box_of_map, scda_map


def test_scda_keeps_only_the_largest_component():
    feature = np.zeros((6, 6, 3), np.float32)
    feature[1:4, 1:4] = 2.0
    feature[5, 5] = 9.0
    kept = scda_map(feature)
    assert kept[5, 5] == 0
    assert (kept[1:4, 1:4] > 0).all()
    assert (kept > 0).sum() == 9


def test_box_of_a_map_is_in_picture_pixels():
    values = np.zeros((4, 4), np.float32)
    values[1:3, 1:3] = 1.0
    assert box_of_map(values, 400, 200, 0.5) == pytest.approx((100, 50, 300, 150), abs=2)
    assert box_of_map(np.zeros((4, 4), np.float32), 400, 200) is None
