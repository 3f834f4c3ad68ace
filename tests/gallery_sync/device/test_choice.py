"""Which release a device takes: base, candidate, pin or group release."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gallery_sync.device.choice import Choice, choose
from gallery_sync.formats.rollouts import Rollouts, Wave
from tests.rollout_samples import bucket, device_in, group, pin, plan, release, rollouts

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=timezone.utc)
FIRST, SECOND = device_in(0), device_in(1)
BASE, CANDIDATE = release(4), release(5)


def labels_of(device_id: str, **other: str) -> dict[str, str]:
    return {"device": device_id, "line": "demo"} | other


def taken(device_id: str | None, listed: Rollouts | None, known: int = 4, begun: int = 0, **labels: str) -> Choice:
    return choose(BASE, listed, labels_of(device_id or "", **labels), device_id, known, NOW, begun)


def test_without_rollouts_every_device_takes_the_base():
    assert taken(FIRST, None) == Choice(BASE)
    assert taken(FIRST, rollouts(), known=0) == Choice(BASE)


def test_device_of_an_open_wave_takes_the_candidate():
    listed = rollouts(plan=plan(5))
    assert taken(FIRST, listed) == Choice(CANDIDATE, listed.plan)
    assert taken(FIRST, listed, known=0) == Choice(CANDIDATE, listed.plan)


def test_device_of_a_later_wave_follows_the_base_and_says_why():
    found = taken(SECOND, rollouts(plan=plan(5)))
    assert found == Choice(BASE, None, "wave 2 of 2 of rollout spring is not open yet")
    opened = rollouts(plan=plan(5, open_waves=2))
    assert taken(SECOND, opened).release == taken(FIRST, opened).release == CANDIDATE


def test_device_of_no_wave_follows_the_base():
    small = plan(5, waves=[Wave(buckets=2000)])
    assert taken(SECOND, rollouts(plan=small)) == Choice(BASE, None, "this device is in no wave of rollout spring")


def test_device_that_is_not_selected_or_excluded_follows_the_base():
    selector = {"terms": [{"key": "group", "values": ["lab"]}]}
    listed = rollouts(plan=plan(5, selector=selector))
    assert taken(FIRST, listed) == Choice(BASE)
    assert taken(FIRST, listed, group="lab").release == CANDIDATE
    excluding = rollouts(plan=plan(5, exclude=[selector]))
    assert taken(FIRST, excluding, group="lab") == Choice(BASE)
    assert taken(FIRST, excluding).release == CANDIDATE


def test_paused_plan_starts_nobody_and_says_why():
    listed = rollouts(plan=plan(5, state="paused", reason="3 of 10 failed"))
    assert taken(FIRST, listed) == Choice(BASE, None, "rollout spring is paused: 3 of 10 failed")
    assert taken(FIRST, listed, begun=5).release == BASE  # it drops what it prepares


@pytest.mark.parametrize("change", [{"state": "paused"}, {"open_waves": 0}, {"deadline": "2020-01-01T00:00:00Z"}])
def test_device_on_the_candidate_keeps_it(change):
    listed = rollouts(plan=plan(5, **change))
    assert taken(SECOND, listed, known=5) == Choice(CANDIDATE, listed.plan)


def test_device_on_the_candidate_keeps_it_when_its_label_changes():
    listed = rollouts(plan=plan(5, selector={"terms": [{"key": "group", "values": ["lab"]}]}))
    assert taken(FIRST, listed, known=5, group="shop").release == CANDIDATE


def test_deadline_stops_a_device_that_did_not_begin():
    late = rollouts(plan=plan(5, deadline="2026-11-28T11:59:59Z"))
    assert taken(FIRST, late) == Choice(BASE, None, "the deadline of rollout spring is over")
    assert taken(FIRST, late, begun=5).release == CANDIDATE
    assert taken(FIRST, rollouts(plan=plan(5, deadline="2026-11-28T12:00:00Z"))).release == CANDIDATE
    assert taken(FIRST, rollouts(plan=plan(5, deadline="soon"))).release == BASE


def test_pin_wins_and_the_first_one_that_matches_counts():
    listed = rollouts(plan=plan(5), pins=[pin("site=berlin", 3), pin("", 6)], groups=[group("", 7)])
    assert taken(FIRST, listed, site="berlin", known=3) == Choice(release(3), None, "pinned at release 3")
    assert taken(FIRST, listed, known=4) == Choice(release(6), None, "pinned at release 6")


def test_device_that_is_newer_than_its_pin_stays():
    listed = rollouts(pins=[pin("", 3)])
    why = "pinned at release 3; it has release 4, which is newer, and stays there"
    assert taken(FIRST, listed) == Choice(BASE, None, why)
    assert taken(FIRST, listed, known=9).release is None


def test_newest_of_base_and_group_releases_counts():
    listed = rollouts(groups=[group("site=berlin", 5), group("site=berlin", 6, "group=lab"), group("", 3)])
    assert taken(FIRST, listed).release == BASE
    assert taken(FIRST, listed, site="berlin").release == release(6)
    assert taken(FIRST, listed, site="berlin", group="lab").release == release(5)
    overtaken = rollouts(groups=[group("", 6)], plan=plan(5))
    assert taken(FIRST, overtaken) == Choice(release(6))


def test_device_that_left_its_group_stays_where_it_is():
    found = taken(FIRST, rollouts(groups=[group("site=berlin", 5)]), known=5, site="rome")
    assert (found.release, found.plan) == (CANDIDATE, None)
    assert "release 5, which is newer than what it should take" in str(found.reason)


def test_held_releases_are_for_no_device():
    assert taken(FIRST, rollouts(held=[release(9)])) == Choice(BASE)


def test_device_without_an_enrolment_follows_the_base_alone():
    listed = rollouts(plan=plan(5, open_waves=2), pins=[pin("", 3)], groups=[group("", 6)])
    assert taken(None, listed) == Choice(BASE)


def test_aborted_candidate_is_left_by_a_newer_base():
    back = release(6, rollback_to=4)
    found = choose(back, rollouts(), labels_of(FIRST), FIRST, 5, NOW)
    assert found == Choice(back)


def test_line_without_a_base_has_its_candidate():
    listed = rollouts(plan=plan(5))
    assert choose(None, listed, labels_of(FIRST), FIRST, 0, NOW).release == CANDIDATE
    assert choose(None, listed, labels_of(SECOND), SECOND, 0, NOW).release is None


SELECTORS = st.sampled_from(["", "site=a", "site!=a", "site=a|b", "group=lab", "device!=shelf-1"])
SEQUENCES = st.integers(1, 9)


@st.composite
def listed_rollouts(draw: st.DrawFn) -> Rollouts:
    chosen = None
    if draw(st.booleans()):
        limits = sorted(draw(st.sets(st.integers(1, 10_000), min_size=1, max_size=4)))
        chosen = plan(
            draw(SEQUENCES),
            waves=[Wave(buckets=limit) for limit in limits],
            open_waves=draw(st.integers(0, len(limits))),
            state=draw(st.sampled_from(["running", "paused"])),
            selector=pin(draw(SELECTORS), 1).selector,
            exclude=[pin(one, 1).selector for one in draw(st.lists(SELECTORS.filter(bool), max_size=2))],
            deadline=draw(st.sampled_from([None, "2026-11-28T11:00:00Z", "2026-11-28T13:00:00Z"])),
        )
    return rollouts(
        plan=chosen,
        pins=[pin(one, draw(SEQUENCES)) for one in draw(st.lists(SELECTORS, max_size=2))],
        groups=[group(one, draw(SEQUENCES)) for one in draw(st.lists(SELECTORS, max_size=2))],
    )


DEVICES = st.integers(0, 300).map(lambda n: f"shelf-{n}")
LABELS = st.fixed_dictionaries({}, optional={"site": st.sampled_from("abc"), "group": st.just("lab")})
NUMBERS = st.integers(0, 10)


@given(listed_rollouts(), DEVICES, LABELS, SEQUENCES, NUMBERS)
@settings(max_examples=80, deadline=None)
def test_choice_is_the_same_each_time_and_never_goes_down(listed, device_id, labels, base, known):
    labels = labels_of(device_id, **labels)

    def again() -> Choice:
        copied = Rollouts.model_validate_json(listed.model_dump_json(by_alias=True))
        return choose(release(base), copied, dict(reversed(labels.items())), device_id, known, NOW)

    found = choose(release(base), listed, labels, device_id, known, NOW)
    assert found == again()
    assert found.release is None or found.release.sequence >= known
    if found.release is not None:  # and that is where it stays
        assert choose(release(base), listed, labels, device_id, found.release.sequence, NOW).release == found.release


@given(listed_rollouts(), DEVICES, LABELS, SEQUENCES, NUMBERS)
@settings(max_examples=80, deadline=None)
def test_candidate_is_taken_in_an_open_wave_of_a_running_plan_alone(listed, device_id, labels, base, known):
    labels = labels_of(device_id, **labels)
    found, chosen = choose(release(base), listed, labels, device_id, known, NOW), listed.plan
    if chosen is None or found.plan is None or known == chosen.release.sequence:
        return
    assert found.release == chosen.release
    assert chosen.state == "running"
    assert chosen.selects(labels)
    assert bucket(device_id) < max([0, *(wave.buckets for wave in chosen.waves[: chosen.open_waves])])
    assert not any(one.selector.matches(labels) for one in listed.pins)


@given(listed_rollouts(), DEVICES, LABELS, SEQUENCES)
@settings(max_examples=80, deadline=None)
def test_pins_win_and_paused_plans_start_nobody(listed, device_id, labels, base):
    labels = labels_of(device_id, **labels)
    found = choose(release(base), listed, labels, device_id, 0, NOW)
    if first := next((one for one in listed.pins if one.selector.matches(labels)), None):
        assert (found.release, found.plan) == (first.release, None)
    elif listed.plan is not None and listed.plan.state == "paused":
        assert found.plan is None


@given(listed_rollouts(), st.lists(DEVICES, min_size=1, max_size=20), SEQUENCES)
@settings(max_examples=40, deadline=None)
def test_waves_are_cumulative(listed, devices, base):
    """Who has the candidate with some open waves has it with more, too."""
    if (chosen := listed.plan) is None:
        return
    before: set[str] = set()
    for count in range(len(chosen.waves) + 1):
        opened = listed.model_copy(update={"plan": chosen.model_copy(update={"open_waves": count})})
        now = {
            one
            for one in devices
            if choose(release(base), opened, labels_of(one), one, 0, NOW - timedelta(days=1)).plan is not None
        }
        assert before <= now
        before = now
