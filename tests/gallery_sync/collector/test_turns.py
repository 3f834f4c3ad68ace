"""Who may switch when a plan limits how many of a group are unavailable."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gallery_sync.collector.turns import SWITCHING, TURN_S, Member, next_turns
from tests.gallery_sync.collector.collector_samples import NOW, a_plan

MARK = (4, "p1")


def waiting(device, value="berlin", **fields):
    usual = {"state": "armed", "running": 3, "target": 4, "waits": True, "last_seen": NOW}
    return Member(device, value, **(usual | fields))


def idle(device, value="berlin", **fields):
    return Member(device, value, **({"state": "idle", "running": 3, "last_seen": NOW} | fields))


def changed(members, plan=None):
    turns = next_turns(a_plan() if plan is None else plan, members, NOW)
    return [one.device for one in turns.give], [one.device for one in turns.end]


def test_as_many_go_as_may_be_unavailable_in_each_group():
    members = [waiting(f"b{n}") for n in range(3)] + [waiting(f"p{n}", "paris") for n in range(3)]
    given, _ = changed(members)
    assert sorted(one[0] for one in given) == ["b", "p"]
    given, _ = changed(members, a_plan(max_unavailable=2))
    assert sorted(one[0] for one in given) == ["b", "b", "p", "p"]
    assert next_turns(a_plan(), members, NOW).held == {"berlin": 2, "paris": 2}


@pytest.mark.parametrize(
    "down",
    [
        idle("x", on_trial=True),
        *(idle("x", state=state) for state in sorted(SWITCHING)),
        idle("x", available=False),
        idle("x", last_seen=NOW - 4000),
        waiting("x", turn=MARK, given_at=NOW - 10),
        idle("x", turn=MARK, given_at=NOW - 10),
    ],
)
def test_unavailable_device_holds_the_others_back(down):
    assert changed([down, waiting("a")]) == ([], [])
    assert changed([replace(down, value="paris"), waiting("a")])[0] == ["a"]


def test_connected_device_is_not_silent():
    assert changed([idle("x", available=True, last_seen=NOW - 4000), waiting("a")])[0] == ["a"]


def test_devices_without_the_label_share_one_group():
    given, _ = changed([waiting("a", None), waiting("b", None)])
    assert len(given) == 1


@pytest.mark.parametrize(
    "over",
    [
        idle("x", running=4, turn=MARK, given_at=NOW),
        idle("x", turn=MARK, given_at=NOW, tries=((4, "rolled back@1"),)),
        idle("x", turn=MARK, given_at=NOW, before="refused@1", tries=((4, "rolled back@2"), (4, "refused@1"))),
        waiting("x", turn=MARK, given_at=NOW - TURN_S),
        waiting("x", turn=MARK, given_at=NOW + 10),
        waiting("x", turn=(3, "p1"), given_at=NOW),
        waiting("x", turn=(4, "p0"), given_at=NOW),
    ],
)
def test_turn_ends_with_outcome_time_or_plan(over):
    assert "x" in changed([over])[1]


@pytest.mark.parametrize(
    "going_on",
    [
        idle("x", state="trial", running=4, on_trial=True, turn=MARK, given_at=NOW - 2 * TURN_S),
        idle("x", state="switch", turn=MARK, given_at=NOW - 2 * TURN_S),
        waiting("x", turn=MARK, given_at=NOW, before="refused@1", tries=((4, "refused@1"),)),
    ],
)
def test_turn_goes_on_until_its_outcome(going_on):
    assert changed([going_on]) == ([], [])


def test_turns_end_when_the_plan_is_gone():
    held = [idle("x", turn=MARK, given_at=NOW), idle("y", turn=MARK, given_at=NOW, state="trial", on_trial=True)]
    assert [one.device for one in next_turns(None, held, NOW).end] == ["x", "y"]


def test_paused_plan_gives_no_turn_and_keeps_those_that_are_given():
    members = [waiting("a"), idle("x", "paris", turn=MARK, given_at=NOW)]
    assert changed(members, a_plan(state="paused")) == ([], [])


def test_device_that_waits_for_another_release_gets_none():
    assert changed([waiting("a", target=5)]) == ([], [])


members = st.builds(
    Member,
    device=st.text("abcdefgh", min_size=3, max_size=6),
    value=st.sampled_from([None, "berlin", "paris"]),
    state=st.sampled_from(["idle", "armed", "switch", "trial", "rollback"]),
    running=st.sampled_from([None, 3, 4]),
    on_trial=st.booleans(),
    target=st.sampled_from([None, 4]),
    waits=st.booleans(),
    available=st.sampled_from([None, True, False]),
    last_seen=st.sampled_from([NOW, NOW - 4000]),
    turn=st.sampled_from([None, MARK, (3, "p0")]),
    given_at=st.sampled_from([NOW - 1, NOW - 2 * TURN_S]),
)


@settings(max_examples=60)
@given(st.lists(members, max_size=12, unique_by=lambda one: one.device), st.integers(1, 4))
def test_never_more_unavailable_because_of_a_turn(found, most):
    turns = next_turns(a_plan(max_unavailable=most), found, NOW)
    for value in {one.value or "" for one in turns.give}:
        group = [one for one in found if (one.value or "") == value]
        ended = {one.device for one in turns.end}
        down = {one.device for one in group if one.on_trial or one.state in SWITCHING or one.available is False}
        down |= {one.device for one in group if one.turn and one.device not in ended}
        assert len(down | {one.device for one in turns.give if (one.value or "") == value}) <= most
