"""Boxes and pictures from a heat map."""

from __future__ import annotations

import numpy as np
import pytest

from edge.finder.heat_map import FoundBox, colour_heat_map, connected_parts, highlight, resize_to_source
from edge.inference.postprocess import iou_matrix
from edge.inference.preprocess import placement_of
from tests.fakes_engine import SPEC


def heat_with(*parts):
    heat = np.zeros((16, 16), np.float32)
    for value, rows, columns in parts:
        heat[rows, columns] = value
    return heat


def test_connected_parts_are_boxes_hottest_first():
    heat = heat_with(
        (0.8, slice(1, 4), slice(1, 5)), (1.0, slice(8, 14), slice(10, 15)), (0.4, slice(8, 12), slice(0, 4))
    )
    found = connected_parts(heat, placement_of(SPEC, 64, 64), 4, [0.5])
    true_px = np.array([[40, 32, 60, 56], [4, 4, 20, 16]], np.float32)
    assert len(found) == 2
    overlap = iou_matrix(np.array([one.box_px for one in found], np.float32), true_px)
    assert np.diag(overlap).min() > 0.75
    assert [one.score for one in found] == pytest.approx([1.0, 0.8], abs=1e-3)


def test_touching_objects_separate_at_a_higher_level():
    heat = heat_with(
        (0.9, slice(4, 12), slice(1, 7)), (0.9, slice(4, 12), slice(9, 15)), (0.4, slice(4, 12), slice(7, 9))
    )
    found = connected_parts(heat, placement_of(SPEC, 64, 64), 4, [0.3, 0.6])
    assert sorted((one.level, round((one.box_px[2] - one.box_px[0]) / 8)) for one in found) == [
        (0.3, 7),
        (0.6, 3),
        (0.6, 3),
    ]


def test_same_box_at_several_levels_is_returned_once():
    (found,) = connected_parts(np.ones((16, 16), np.float32), placement_of(SPEC, 64, 64), 4, [0.3, 0.5, 0.6])
    assert (found.box_px, found.score, found.level) == ((0, 0, 64, 64), 1.0, 0.3)


def test_boxes_are_in_source_pixels_without_small_or_weak_parts():
    heat = heat_with((1.0, slice(0, 8), slice(0, 8)), (1.0, 12, 12))
    (found,) = connected_parts(heat, placement_of(SPEC, 640, 640), 4, [0.5], 0.6)
    assert found.box_px == pytest.approx((0, 0, 320, 320), abs=10)
    assert connected_parts(heat * 0.65, placement_of(SPEC, 64, 64), 4, [0.5], 0.7) == []


def test_resize_to_source_undoes_the_letterbox():
    heat = heat_with((1.0, slice(0, 4), slice(0, 16)))  # the upper half of a picture twice as wide as high
    fine = resize_to_source(heat, placement_of(SPEC, 128, 64), 4)
    assert fine.shape == (64, 128)
    assert fine[:28].min() > 0.9
    assert fine[36:].max() < 0.1


def test_only_found_objects_are_highlighted():
    picture = np.full((4, 4, 3), 200, np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[1, 2], heat[1, 1], heat[3, 3] = 0.9, 0.4, 0.9
    lit = highlight(picture, heat, [FoundBox((1, 0, 3, 2), 0.8, 0.5)])
    assert lit[1, 2].tolist() == [200] * 3
    assert lit.max(axis=2).sum() == 200 + 15 * 50


def test_colours_go_from_black_to_white():
    assert colour_heat_map(np.array([[-1.0, 0.5, 2.0]], np.float32)).tolist() == [[[0, 0, 0], [255, 128, 0], [255] * 3]]
