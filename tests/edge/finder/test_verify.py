"""Parts of a heat map looked at again, by the mean colours of cells."""

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
    """Mean colours, and how often they were asked for."""

    def __init__(self):
        self.runs = 0

    def __call__(self, canvas):
        self.runs += 1
        return cell_colours(canvas[None])[0][0]


def looked(scene, boxes, colours=(RED,), peak=0.9, trunk=None):
    looks = [query_for(colour_finder(), colour).verify_kernel for colour in colours]
    parts = [FoundBox(tuple(map(float, box)), peak, 0.5) for box in boxes]
    return verify_parts(trunk or Trunk(), scene, parts, looks, SHAPE, SPEC)


def test_of_two_parts_that_are_as_hot_the_one_that_looks_like_the_query_is_first():
    scene = scene_with((BLUE, 0, 0, 24), (RED, 40, 40, 24))
    first, second = looked(scene, [WHOLE, (40, 40, 64, 64)])
    assert first.box_px == (40, 40, 64, 64)
    assert first.score == pytest.approx(0.9, abs=0.01)
    assert second.score == 0.0  # opposite colours, and no score is below nothing


def test_the_likest_picture_of_a_query_counts():
    scene = scene_with((BLUE, 0, 0, 24))
    assert looked(scene, [WHOLE], (RED, BLUE))[0].score == looked(scene, [WHOLE], (BLUE,))[0].score


def test_a_box_that_fits_is_better_than_one_with_its_surroundings_and_only_it_is_kept():
    scene = scene_with((RED, 16, 16, 24), (BLUE, 40, 16, 24))
    (kept,) = looked(scene, [(8, 8, 64, 48), (16, 16, 40, 40)])
    assert kept.box_px == (16, 16, 40, 40)


def test_objects_side_by_side_are_both_kept():
    scene = scene_with((RED, 0, 16, 24), (RED, 24, 16, 24))
    assert len(looked(scene, [(0, 16, 26, 40), (22, 16, 48, 40)])) == 2


def test_several_parts_share_a_run_of_the_trunk_and_each_is_seen_in_its_own_place():
    scene = scene_with((BLUE, 0, 0, 16), (RED, 24, 0, 16), (BLUE, 48, 0, 16), (RED, 0, 32, 16), (BLUE, 24, 32, 16))
    boxes = [(x, y, x + 16, y + 16) for x, y in ((0, 0), (24, 0), (48, 0), (0, 32), (24, 32))]
    trunk = Trunk()
    found = looked(scene, boxes, trunk=trunk)
    assert {one.box_px for one in found if one.score > 0.5} == {boxes[1], boxes[3]}
    assert trunk.runs == 1  # a canvas of 64 px has room for three times three of 16 px


def test_nothing_is_run_for_no_part_and_no_more_than_the_most_are_looked_at():
    trunk = Trunk()
    assert looked(scene_with(), [], trunk=trunk) == []
    assert trunk.runs == 0
    boxes = [(x, y, x + 8, y + 8) for y in range(0, 40, 8) for x in range(0, 40, 8)]
    assert len(looked(scene_with((RED, 0, 0, 64)), boxes)) == MAX_PARTS < len(boxes)


def test_a_sliver_at_the_edge_of_the_picture_can_be_looked_at():
    found = looked(scene_with((RED, 0, 0, 64)), [(63.6, 10.0, 64.0, 10.3)])
    assert [one.box_px for one in found] == [(63.6, 10.0, 64.0, 10.3)]


def test_cells_that_only_one_of_two_has_something_of_do_not_count():
    values = np.array([[[1.0, 0.5]], [[0.0, 5.0]]], np.float32)
    other = np.array([[[1.0, -9.0]], [[0.0, 3.0]]], np.float32)
    one = Kernel(values, np.array([[1.0, 0.0]], np.float32))
    assert similarity(one, Kernel(other, np.ones((1, 2), np.float32))) == pytest.approx(1.0, abs=1e-4)
    assert similarity(one, Kernel(-other, np.ones((1, 2), np.float32))) == pytest.approx(-1.0, abs=1e-4)
    assert similarity(one, Kernel(other, np.array([[0.0, 1.0]], np.float32))) == 0.0
