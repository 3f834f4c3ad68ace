from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.messaging.frigate import FrigateMirror
from edge.types import Decision
from tests.edge.messaging.test_payload import EVENT, KNOWN, check

UNKNOWN = Decision(KNOWN.category, None, "unknown_item")


def test_object_keeps_its_id_and_start_from_new_to_end():
    mirror = FrigateMirror()
    new = check("frigate_event", mirror.payload(replace(EVENT, decision=UNKNOWN)))
    update = check("frigate_event", mirror.payload(replace(EVENT, type="update", event_id="2", captured_at=1700000001)))
    end = check("frigate_event", mirror.payload(replace(EVENT, type="end", event_id="3", captured_at=1700000002)))
    assert [message["type"] for message in (new, update, end)] == ["new", "update", "end"]
    assert len({message["after"]["id"] for message in (new, update, end)}) == 1
    assert {message["after"]["start_time"] for message in (new, update, end)} == {EVENT.started_at}
    assert [message["after"]["end_time"] for message in (new, update, end)] == [None, None, 1700000002]


def test_before_is_the_previous_message():
    mirror = FrigateMirror()
    new = check("frigate_event", mirror.payload(replace(EVENT, decision=UNKNOWN)))
    update = check("frigate_event", mirror.payload(replace(EVENT, type="update")))
    assert new["after"] == update["before"]
    assert new["after"]["sub_label"] is None
    assert (update["after"]["label"], update["after"]["sub_label"]) == ("bottle", ["Red 0.5 l", 0.97])


def test_object_is_a_false_positive_before_its_first_message():
    message = check("frigate_event", FrigateMirror().payload(replace(EVENT, zones=("shelf",))))
    assert (message["before"]["false_positive"], message["after"]["false_positive"]) == (True, False)
    assert (message["before"]["sub_label"], message["before"]["current_zones"]) == (None, [])


def test_box_and_region_are_pixels_of_the_frame():
    after = check("frigate_event", FrigateMirror().payload(EVENT))["after"]
    assert (after["box"], after["region"]) == ([64, 96, 192, 480], [0, 0, 640, 480])
    assert (after["area"], after["ratio"]) == (128 * 384, 0.3333)


def test_zones_that_were_left_stay_entered():
    mirror = FrigateMirror()
    mirror.payload(replace(EVENT, zones=("shelf",)))
    after = check("frigate_event", mirror.payload(replace(EVENT, type="update", zones=("till",))))["after"]
    assert (after["current_zones"], after["entered_zones"]) == (["till"], ["shelf", "till"])


def test_update_after_the_end_is_not_mirrored():
    assert FrigateMirror().payload(replace(EVENT, type="update", historical=True)) is None


def test_each_object_has_its_own_id_until_it_ends():
    mirror = FrigateMirror()
    first = check("frigate_event", mirror.payload(replace(EVENT, event_id="aaaaaa")))
    other = check("frigate_event", mirror.payload(replace(EVENT, event_id="bbbbbb", track_id=8)))
    mirror.payload(replace(EVENT, type="end", event_id="cccccc"))
    again = check("frigate_event", mirror.payload(replace(EVENT, event_id="dddddd", captured_at=1700000009)))
    assert len({message["after"]["id"] for message in (first, other, again)}) == 3


def test_payload_is_short_valid_json_for_any_event():
    worst = "\x01😀" * 5000
    category = replace(KNOWN.category, name=worst, score=float("nan"))
    match = replace(KNOWN.match, label=worst + "\ud800", probability=float("inf"))
    zones = tuple(f"{number:064}" for number in range(16))
    event = replace(EVENT, decision=Decision(category, match, None), box_rel=(float("nan"), -1, 2, 1), zones=zones)
    payload = FrigateMirror().payload(event)
    assert len(payload) < 8192
    check("frigate_event", payload)


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.text(), st.text(), st.floats(), st.tuples(*[st.floats()] * 4), st.sampled_from(["new", "update", "end"]))
def test_any_event_fits_the_frigate_schema(name, label, score, box, kind):
    decision = Decision(replace(KNOWN.category, name=name, score=score), replace(KNOWN.match, label=label), None)
    event = replace(EVENT, type=kind, decision=decision, box_rel=box)
    check("frigate_event", FrigateMirror().payload(event))
