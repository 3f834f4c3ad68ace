"""Turns and proposals of the search for taught items."""

from __future__ import annotations

from edge.config.schema import SeekConfig
from edge.finder.taught_search import TaughtQuery, TaughtSearch, new_proposals
from edge.types import Detection
from tests.edge.finder.finder_samples import BLUE, RED, colour_finder, query_for, scene_with

GREEN, YELLOW = (30, 230, 30), (230, 230, 30)


def queries_of(finder, **colours):
    return [TaughtQuery(name, (query_for(finder, colour),)) for name, colour in colours.items()]


def test_each_camera_is_searched_at_its_interval():
    finder, taught_search = colour_finder(), TaughtSearch(SeekConfig(every_s=0.5))
    taught_search.search(finder, queries_of(finder, red=RED), "door", scene_with(), 10.0)
    assert not taught_search.is_due("door", 10.4)
    assert taught_search.is_due("door", 10.5)
    assert taught_search.is_due("till", 10.1)
    assert taught_search.is_due("door", 0.0)  # a recording restarted


def test_items_take_turns_and_found_ones_come_first():
    finder, taught_search = colour_finder(), TaughtSearch(SeekConfig(items=2))
    items = queries_of(finder, red=RED, green=GREEN, yellow=YELLOW, blue=BLUE)
    scene = scene_with((BLUE, 16, 16, 24))
    found = [len(taught_search.search(finder, items, "door", scene, float(at))) for at in range(5)]
    assert found == [0, 1, 1, 1, 1]  # from the second search on, blue has a turn in each


def test_one_turn_is_reserved_for_waiting_items():
    finder, taught_search = colour_finder(), TaughtSearch(SeekConfig(items=2))
    items = queries_of(finder, red=RED, blue=BLUE, green=GREEN)
    scene = scene_with((RED, 0, 0, 16), (BLUE, 40, 0, 24), (GREEN, 16, 40, 24))
    seen = {
        round(one.box_px[1] / 40) * 100 + round(one.box_px[0] / 40)
        for at in range(4)
        for one in taught_search.search(finder, items, "door", scene, float(at))
    }
    assert len(seen) == 3


def test_deleted_items_are_dropped_and_new_ones_searched():
    finder, taught_search = colour_finder(), TaughtSearch(SeekConfig())
    scene = scene_with((RED, 16, 16, 24))
    assert len(taught_search.search(finder, queries_of(finder, red=RED), "door", scene, 0.0)) == 1
    assert taught_search.search(finder, queries_of(finder, blue=BLUE), "door", scene, 1.0) == []


def test_detected_boxes_are_not_proposed_again():
    detected = [Detection((10, 10, 30, 30), 0.9, "object")]
    proposals = [Detection((11, 11, 31, 31), 0.8, "object"), Detection((50, 10, 70, 30), 0.7, "object")]
    assert new_proposals(proposals, detected) == [proposals[1]]
    assert new_proposals([proposals[1], Detection((52, 12, 70, 30), 0.6, "object")], []) == [proposals[1]]
