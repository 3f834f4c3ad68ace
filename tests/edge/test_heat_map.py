"""From a heat map to boxes and pictures."""

from __future__ import annotations

import numpy as np
import pytest

from edge.decode import iou_matrix
from edge.heat_map import boxes_of, heat_picture, highlighted, on_source
from edge.preprocess import placement_of
from tests.fakes_engine import SPEC


def heat_with(*parts):
    heat = np.zeros((16, 16), np.float32)
    for value, rows, columns in parts:
        heat[rows, columns] = value
    return heat


def test_each_part_that_is_hot_enough_is_a_box_best_first():
    heat = heat_with(
        (0.8, slice(1, 4), slice(1, 5)), (1.0, slice(8, 14), slice(10, 15)), (0.4, slice(8, 12), slice(0, 4))
    )
    found = boxes_of(heat, placement_of(SPEC, 64, 64), 4, 0.5, 0.0)
    true_px = np.array([[40, 32, 60, 56], [4, 4, 20, 16]], np.float32)
    assert len(found) == 2
    overlap = iou_matrix(np.array([one.box_px for one in found], np.float32), true_px)
    assert np.diag(overlap).min() > 0.75
    assert found[0].score > found[1].score > 0.5


def test_boxes_are_in_the_pixels_of_the_source_and_specks_and_doubts_are_left_out():
    heat = heat_with((1.0, slice(0, 8), slice(0, 8)), (1.0, 12, 12))
    (found,) = boxes_of(heat, placement_of(SPEC, 640, 640), 4, 0.5, 0.6)
    assert found.box_px == pytest.approx((0, 0, 320, 320), abs=10)
    assert boxes_of(heat * 0.65, placement_of(SPEC, 64, 64), 4, 0.5, 0.7) == []


def test_a_map_lies_on_the_source_where_the_letterbox_put_it():
    heat = heat_with((1.0, slice(0, 4), slice(0, 16)))  # the upper half of a picture twice as wide as high
    fine = on_source(heat, placement_of(SPEC, 128, 64), 4)
    assert fine.shape == (64, 128)
    assert fine[:28].min() > 0.9
    assert fine[36:].max() < 0.1


def test_only_what_was_found_stays_lit():
    picture = np.full((4, 4, 3), 200, np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[1, 2] = 0.9
    lit = highlighted(picture, heat, 0.5)
    assert lit[1, 2].tolist() == [200] * 3
    assert lit.max(axis=2).sum() == 200 + 15 * 50


def test_the_map_as_a_picture_goes_from_black_to_white():
    assert heat_picture(np.array([[-1.0, 0.5, 2.0]], np.float32)).tolist() == [[[0, 0, 0], [255, 128, 0], [255] * 3]]
