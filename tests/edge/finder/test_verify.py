"""Verification of heat map parts, with a trunk of mean cell colours."""

from __future__ import annotations

import numpy as np
import pytest

from edge.finder.correlate import Kernel, similarity
from edge.finder.heat_map import FoundBox
from edge.finder.verify import MAX_PARTS, verify_parts
from tests.edge.finder.finder_samples import BLUE, RED, SHAPE, cell_colours, colour_finder, query_for, scene_with
from tests.fakes_engine import SPEC

WHOLE = (0, 0, 24, 24)


class Trunk:
    """Mean cell colours; counts its runs."""

    def __init__(self):
        self.runs = 0

    def __call__(self, canvas):
        self.runs += 1
        return cell_colours(canvas[None])[0][0]


def verified(scene, boxes, colours=(RED,), peak=0.9, trunk=None):
    kernels = [query_for(colour_finder(), colour).verify_kernel for colour in colours]
    parts = [FoundBox(tuple(map(float, box)), peak, 0.5) for box in boxes]
    return verify_parts(trunk or Trunk(), scene, parts, kernels, SHAPE, SPEC)


def test_part_similar_to_the_query_comes_first():
    scene = scene_with((BLUE, 0, 0, 24), (RED, 40, 40, 24))
    first, second = verified(scene, [WHOLE, (40, 40, 64, 64)])
    assert first.box_px == (40, 40, 64, 64)
    assert first.score == pytest.approx(0.9, abs=0.01)
    assert second.score == 0.0  # opposite colours; a score is never negative


def test_most_similar_query_picture_counts():
    scene = scene_with((BLUE, 0, 0, 24))
    assert verified(scene, [WHOLE], (RED, BLUE))[0].score == verified(scene, [WHOLE], (BLUE,))[0].score


def test_fitting_box_beats_one_with_surroundings():
    scene = scene_with((RED, 16, 16, 24), (BLUE, 40, 16, 24))
    (kept,) = verified(scene, [(8, 8, 64, 48), (16, 16, 40, 40)])
    assert kept.box_px == (16, 16, 40, 40)


def test_adjacent_objects_are_both_kept():
    scene = scene_with((RED, 0, 16, 24), (RED, 24, 16, 24))
    assert len(verified(scene, [(0, 16, 26, 40), (22, 16, 48, 40)])) == 2


def test_parts_share_a_run_of_the_trunk():
    scene = scene_with((BLUE, 0, 0, 16), (RED, 24, 0, 16), (BLUE, 48, 0, 16), (RED, 0, 32, 16), (BLUE, 24, 32, 16))
    boxes = [(x, y, x + 16, y + 16) for x, y in ((0, 0), (24, 0), (48, 0), (0, 32), (24, 32))]
    trunk = Trunk()
    found = verified(scene, boxes, trunk=trunk)
    assert {one.box_px for one in found if one.score > 0.5} == {boxes[1], boxes[3]}
    assert trunk.runs == 1  # a canvas of 64 px has room for three times three of 16 px


def test_number_of_verified_parts_is_limited():
    trunk = Trunk()
    assert verified(scene_with(), [], trunk=trunk) == []
    assert trunk.runs == 0
    boxes = [(x, y, x + 8, y + 8) for y in range(0, 40, 8) for x in range(0, 40, 8)]
    assert len(verified(scene_with((RED, 0, 0, 64)), boxes)) == MAX_PARTS < len(boxes)


def test_sliver_at_the_edge_can_be_verified():
    found = verified(scene_with((RED, 0, 0, 64)), [(63.6, 10.0, 64.0, 10.3)])
    assert [one.box_px for one in found] == [(63.6, 10.0, 64.0, 10.3)]


def test_similarity_ignores_cells_covered_by_one_kernel_only():
    values = np.array([[[1.0, 0.5]], [[0.0, 5.0]]], np.float32)
    other = np.array([[[1.0, -9.0]], [[0.0, 3.0]]], np.float32)
    one = Kernel(values, np.array([[1.0, 0.0]], np.float32))
    assert similarity(one, Kernel(other, np.ones((1, 2), np.float32))) == pytest.approx(1.0, abs=1e-4)
    assert similarity(one, Kernel(-other, np.ones((1, 2), np.float32))) == pytest.approx(-1.0, abs=1e-4)
    assert similarity(one, Kernel(other, np.array([[0.0, 1.0]], np.float32))) == 0.0
