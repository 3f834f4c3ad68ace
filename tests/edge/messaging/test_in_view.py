from __future__ import annotations

from dataclasses import replace

import pytest

from edge.messaging.in_view import InView
from edge.types import Category, Decision, Match
from tests.edge.messaging.test_payload import EVENT, KNOWN, check

UNKNOWN = Decision(KNOWN.category, None, "unknown_item")


@pytest.fixture
def in_view():
    return InView()


def counts(in_view):
    message = check("in_view", in_view.payload("door"))
    return message["total"], message["unknown"], message["by_item"], message["by_category"]


def test_objects_count_from_new_to_end(in_view):
    assert in_view.update(EVENT)
    assert in_view.update(replace(EVENT, track_id=8))
    assert in_view.update(replace(EVENT, track_id=9, decision=UNKNOWN))
    assert counts(in_view) == (3, 1, {"Red 0.5 l": 2}, {"bottle": 3})
    assert in_view.update(replace(EVENT, type="end"))
    assert counts(in_view) == (2, 1, {"Red 0.5 l": 1}, {"bottle": 2})
    assert in_view.total("door") == 2


def test_update_moves_an_object_to_its_new_item(in_view):
    in_view.update(replace(EVENT, decision=UNKNOWN))
    assert in_view.update(replace(EVENT, type="update"))
    assert counts(in_view) == (1, 0, {"Red 0.5 l": 1}, {"bottle": 1})


def test_what_changes_no_count_needs_no_message(in_view):
    in_view.update(EVENT)
    assert not in_view.update(replace(EVENT, type="update", zones=("shelf",)))
    assert not in_view.update(replace(EVENT, type="end", track_id=99))
    assert not in_view.update(replace(EVENT, type="update", track_id=98, historical=True))
    assert counts(in_view)[0] == 1


def test_cameras_are_counted_apart(in_view):
    in_view.update(replace(EVENT, camera="roof"))
    assert counts(in_view) == (0, 0, {}, {})
    assert in_view.total("roof") == 1


def test_message_stays_short_however_many_items_there_are(in_view):
    for number in range(300):
        label = f"{number:03}" + "é" * 400
        decision = Decision(Category(label, 1.0), Match(label, label, 1, 1, 1), None)
        in_view.update(replace(EVENT, track_id=number, decision=decision))
    payload = in_view.payload("door")
    assert len(payload) < 16384
    message = check("in_view", payload)
    assert (message["total"], len(message["by_item"]), message["shortened"]) == (300, 20, True)
