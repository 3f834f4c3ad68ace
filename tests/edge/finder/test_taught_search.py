"""Whose turn it is to be looked for, and what is proposed."""

from __future__ import annotations

from edge.config.schema import SeekConfig
from edge.finder.taught_search import TaughtQuery, TaughtSearch, new_proposals
from edge.types import Detection
from tests.edge.finder.finder_samples import BLUE, RED, colour_finder, query_for, scene_with

GREEN, YELLOW = (30, 230, 30), (230, 230, 30)


def sought_by(finder, **colours):
    return [TaughtQuery(name, (query_for(finder, colour),)) for name, colour in colours.items()]


def test_a_camera_is_searched_again_only_after_a_while_and_others_meanwhile():
    finder, taught_search = colour_finder(), TaughtSearch(SeekConfig(every_s=0.5))
    taught_search.search(finder, sought_by(finder, red=RED), "door", scene_with(), 10.0)
    assert not taught_search.is_due("door", 10.4)
    assert taught_search.is_due("door", 10.5)
    assert taught_search.is_due("till", 10.1)
    assert taught_search.is_due("door", 0.0)  # a recording began anew


def test_things_take_turns_and_what_was_found_is_looked_for_again_first():
    finder, taught_search = colour_finder(), TaughtSearch(SeekConfig(items=2))
    things = sought_by(finder, red=RED, green=GREEN, yellow=YELLOW, blue=BLUE)
    scene = scene_with((BLUE, 16, 16, 24))
    found = [len(taught_search.search(finder, things, "door", scene, float(at))) for at in range(5)]
    assert found == [0, 1, 1, 1, 1]  # from the second pair on, blue has a place in each


def test_one_place_is_kept_for_those_that_wait():
    finder, taught_search = colour_finder(), TaughtSearch(SeekConfig(items=2))
    things = sought_by(finder, red=RED, blue=BLUE, green=GREEN)
    scene = scene_with((RED, 0, 0, 16), (BLUE, 40, 0, 24), (GREEN, 16, 40, 24))
    seen = {
        round(one.box_px[1] / 40) * 100 + round(one.box_px[0] / 40)
        for at in range(4)
        for one in taught_search.search(finder, things, "door", scene, float(at))
    }
    assert len(seen) == 3


def test_what_is_forgotten_is_not_looked_for_and_what_is_new_is():
    finder, taught_search = colour_finder(), TaughtSearch(SeekConfig())
    scene = scene_with((RED, 16, 16, 24))
    assert len(taught_search.search(finder, sought_by(finder, red=RED), "door", scene, 0.0)) == 1
    assert taught_search.search(finder, sought_by(finder, blue=BLUE), "door", scene, 1.0) == []


def test_what_the_detector_has_is_not_proposed_again():
    detected = [Detection((10, 10, 30, 30), 0.9, "object")]
    sought = [Detection((11, 11, 31, 31), 0.8, "object"), Detection((50, 10, 70, 30), 0.7, "object")]
    assert new_proposals(sought, detected) == [sought[1]]
    assert new_proposals([sought[1], Detection((52, 12, 70, 30), 0.6, "object")], []) == [sought[1]]
