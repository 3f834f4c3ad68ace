"""What was taught, searched beside the gallery."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge.lookup import look_up
from edge.overlay import Overlay, WithTaught
from edge.overlay_store import OverlayStore
from edge.timing import Timings
from edge.types import Hit
from tests.edge.finder_samples import colour_finder, scene_with
from tests.edge.kiosk_samples import FAR, direction, jpeg, scripted_serving
from tests.fakes_engine import FakeCounts, FixedIndex

AT = "2026-01-01T00:00:00Z"
RED = np.full((64, 64, 3), (200, 20, 20), np.uint8)


class Shelf:
    """An overlay and everything around it."""

    def __init__(self, folder):
        self.held: set[str] = set()
        self.counts = FakeCounts()
        self.store = OverlayStore(folder, 10)
        self.overlay = Overlay(self.store, lambda _generation, _category, item: item in self.held, self.counts)

    def teach(self, label="Red thing", category=None, colour=(200, 20, 20)):
        return self.store.keep(label, category, [jpeg(*colour)], AT)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


def unknown_serving(**changes):
    return scripted_serving(indexes={"carton": FixedIndex(FAR)}, **changes)


def test_what_was_taught_is_found_at_once_and_what_was_not_is_not(shelf):
    assert look_up(unknown_serving(), RED, 8, Timings()).match is None
    item = shelf.teach()
    shelf.teach("Blue thing", colour=(20, 20, 200))
    decision = look_up(shelf.overlay.over(unknown_serving()), RED, 8, Timings())
    assert (decision.match.item_id, decision.match.label) == (item.item_id, "Red thing")
    assert decision.match.score > 0.99
    assert {hit.label for hit in decision.top} == {"Red thing", "Blue thing", "Oat flakes"}


def test_nearest_of_gallery_and_overlay_come_best_first():
    both = WithTaught(FixedIndex([Hit("a", "A", 0.9), Hit("b", "B", 0.1)]), FixedIndex([Hit("t", "T", 0.5)]))
    assert [hit.item_id for hit in both.search(np.zeros((1, 4), np.float32), 2)[0]] == ["a", "t"]


def test_a_category_without_a_gallery_is_searched_once_something_was_taught(shelf):
    shelf.teach()
    dressed = shelf.overlay.over(scripted_serving(indexes={}))
    assert look_up(dressed, RED, 8, Timings()).match.label == "Red thing"


def test_a_category_that_was_named_is_searched_however_unlikely(shelf):
    item = shelf.teach(category="carton")
    dressed = shelf.overlay.over(unknown_serving(odds=(1.0, 99.0)))
    (hits,) = dressed.indexes["carton"].search(direction(RED[None])[0], 1)
    assert hits[0].item_id == item.item_id


def test_what_is_forgotten_is_not_found_when_it_is_dressed_anew(shelf):
    item = shelf.teach()
    dressed = shelf.overlay.over(unknown_serving())
    shelf.store.forget(item.item_id)
    assert look_up(shelf.overlay.over(dressed), RED, 8, Timings()).match is None


def test_pictures_are_embedded_once_for_a_bundle_and_anew_for_the_next(shelf):
    """The next bundle's space is another: the same picture, another vector of another length."""
    shelf.teach()
    first = unknown_serving()
    engine = first.stages.embedders["carton"]._engine
    shelf.overlay.over(shelf.overlay.over(first))
    assert engine.batch_sizes == [1] * 6  # as it is, and in five other views

    def wide(batch):
        rows = direction(batch)[0]
        return [np.concatenate([rows[:, ::-1], np.zeros((len(rows), 4), np.float32)], axis=1)]

    head = [{"name": "class", "dim": 8}]
    second = unknown_serving(bundle="bundle-2", embed=wide, heads=head, space_id="1" * 64)
    assert look_up(shelf.overlay.over(second), RED, 8, Timings()).match.label == "Red thing"
    shelf.overlay.over(first)
    assert engine.batch_sizes == [1] * 6  # as it is, and in five other views


def test_a_thing_retires_when_the_gallery_brings_its_id_and_returns_with_a_roll_back(shelf):
    item = shelf.teach()
    shelf.held.add(item.item_id)
    dressed = shelf.overlay.over(unknown_serving(gallery="gallery-2"))
    assert look_up(dressed, RED, 8, Timings()).match is None
    assert shelf.overlay.retired == {item.item_id: "same_id"}
    shelf.overlay.over(dressed)
    assert shelf.counts.total["taught_retired reason=same_id"] == 1
    shelf.held.clear()
    assert look_up(shelf.overlay.over(unknown_serving()), RED, 8, Timings()).match.item_id == item.item_id


@pytest.mark.parametrize(
    ("label", "score", "retires"), [("red THING", 0.8, True), ("red THING", 0.6, False), ("Red jam", 0.99, False)]
)
def test_a_thing_retires_for_an_item_of_its_name_that_is_near_enough(shelf, label, score, retires):
    item = shelf.teach()
    shelf.overlay.over(scripted_serving(indexes={"carton": FixedIndex([Hit("c9", label, score)])}))
    assert (item.item_id in shelf.overlay.retired) == retires


def test_a_picture_that_cannot_be_used_is_counted_and_the_others_are_searched(shelf):
    shelf.store.keep("Broken", None, [b"no picture"], AT)
    shelf.teach()
    dressed = shelf.overlay.over(unknown_serving())
    assert look_up(dressed, RED, 8, Timings()).match.label == "Red thing"
    assert shelf.counts.total["taught_unusable"] == 1


def test_a_pair_with_a_finder_looks_for_what_was_taught_by_its_newest_pictures(shelf):
    """JPEG and scaling leave the colour near enough for the finder of colours."""
    shelf.teach()
    item = shelf.teach(colour=(20, 20, 200))
    shelf.teach(colour=(20, 200, 20))
    (one,) = shelf.overlay.over(replace(unknown_serving(), finder=colour_finder())).sought
    assert (one.item_id, len(one.queries)) == (item.item_id, 2)
    finder = colour_finder()
    view = finder.view(scene_with(((20, 20, 200), 16, 16, 24)), Timings())
    assert finder.heat(view, one.queries[:1], Timings())[6:9, 6:9].min() > 0.9
    assert finder.heat(view, one.queries[1:], Timings()).max() < 0.5
    assert shelf.overlay.over(unknown_serving()).sought == ()
