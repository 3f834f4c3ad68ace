"""The gates of a rollout: who counts as what, and what follows."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gallery_sync.formats.reports import Running, Try
from gallery_sync.formats.rollouts import BUCKETS, Gates, Pin, bucket_of, parse_selector
from gallery_sync.rollouts.gates import WaveCount, count, decide, decide_blind, judge, opened
from gallery_sync.trust.clock import write_time
from tests.gallery_sync.rollouts.samples import APPROVED, RELEASE, START, a_plan, a_row

NOW = START + 120.0
STATES = ("waiting", "away", "fetching", "on trial", "confirmed", "rolled back", "quarantined", "installed", "lies")


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("waiting", "waiting"),
        ("away", "away"),
        ("fetching", "in progress"),
        ("on trial", "in progress"),
        ("confirmed", "confirmed"),
        ("rolled back", "failed"),
        ("quarantined", "failed"),
        ("installed", "in progress"),
        ("lies", "failed"),
    ],
)
def test_how_far_a_device_is(state, expected):
    assert judge(a_plan(), a_row("cam", state), NOW) == expected


def test_installed_is_no_success_however_long_it_lasts():
    row = a_row("cam", "installed", last_seen=START + 1e6)
    assert judge(a_plan(), row, START + 1e6) == "in progress"


@pytest.mark.parametrize("wrong", [{"bundle_id": "one"}, {"gallery_sequence": 2}])
def test_confirmed_try_of_another_pair_is_a_failure(wrong):
    good = {"release": 7, "bundle_id": "two", "gallery_sequence": 3, "outcome": "confirmed", "at": NOW}
    assert judge(a_plan(), a_row("cam", "confirmed", report={"tries": [Try(**good | wrong)]}), NOW) == "failed"


@pytest.mark.parametrize("wrong", [{"bundle_id": "one"}, {"gallery_sequence": 2}, {"release": 8}])
def test_confirmed_device_that_runs_another_pair_failed(wrong):
    good = {"line": "demo", "release": 7, "bundle_id": "two", "gallery_sequence": 3}
    assert judge(a_plan(), a_row("cam", "confirmed", report={"running": Running(**good | wrong)}), NOW) == "failed"


def test_confirmed_device_that_runs_nothing_failed():
    assert judge(a_plan(), a_row("cam", "confirmed", report={"running": None}), NOW) == "failed"


def test_confirmed_device_on_trial_again_is_not_done():
    running = Running(line="demo", release=7, bundle_id="two", gallery_sequence=3, trial="t2")
    assert judge(a_plan(), a_row("cam", "confirmed", report={"running": running}), NOW) == "in progress"


def test_confirmed_without_a_trial_is_no_success():
    """Nobody watched it: the pair was there already. An earlier trial of the same pair counts."""
    row = a_row("cam", "confirmed")
    told = row.reported.tries[0].model_copy(update={"trial": None})
    earlier = row.reported.tries[0].model_copy(update={"release": 5})
    assert judge(a_plan(), a_row("cam", "confirmed", report={"tries": [told]}), NOW) == "in progress"
    assert judge(a_plan(), a_row("cam", "confirmed", report={"tries": [told, earlier]}), NOW) == "confirmed"


@pytest.mark.parametrize("left_out", ["release", "gallery_sequence"])
def test_what_a_report_leaves_out_of_its_pair_is_no_success(left_out):
    """A pair that somebody installed from folders has the same bundle, and no number."""
    whole = {"line": "demo", "release": 7, "bundle_id": "two", "gallery_sequence": 3}
    running = Running(**{key: value for key, value in whole.items() if key != left_out})
    assert judge(a_plan(), a_row("cam", "confirmed", report={"running": Running(**whole)}), NOW) == "confirmed"
    assert judge(a_plan(), a_row("cam", "confirmed", report={"running": running}), NOW) == "failed"


def test_pair_of_another_line_is_no_success():
    running = Running(line="other", release=7, bundle_id="two", gallery_sequence=3)
    assert judge(a_plan(), a_row("cam", "confirmed", report={"running": running}), NOW) == "failed"


@pytest.mark.parametrize("trial", [None, ""])
def test_trial_without_an_id_is_none(trial):
    told = a_row("cam", "confirmed").reported.tries[0].model_copy(update={"trial": trial})
    assert judge(a_plan(), a_row("cam", "confirmed", report={"tries": [told]}), NOW) == "in progress"


def test_newest_try_counts():
    tries = [*a_row("cam", "confirmed").reported.tries, *a_row("cam", "rolled back").reported.tries]
    assert judge(a_plan(), a_row("cam", "confirmed", report={"tries": tries}), NOW) == "confirmed"
    assert judge(a_plan(), a_row("cam", "confirmed", report={"tries": tries[::-1]}), NOW) == "failed"


def test_server_remembers_a_try_that_left_the_report():
    row = a_row("cam", "confirmed")
    kept = row.model_copy(
        update={"tries": row.reported.tries, "reported": row.reported.model_copy(update={"tries": []})}
    )
    assert judge(a_plan(), kept, NOW) == "confirmed"


def test_success_of_another_release_is_none():
    other = RELEASE.model_copy(update={"sequence": 6})
    assert judge(a_plan(), a_row("cam", "confirmed", release=other), NOW) == "waiting"


def test_silent_is_who_began_and_sent_no_report_since():
    plan = a_plan(gates=Gates(silent_after_s=600.0))
    assert judge(plan, a_row("cam", "fetching"), START + 60 + 600) == "in progress"
    assert judge(plan, a_row("cam", "fetching"), START + 60 + 601) == "silent"
    assert judge(plan, a_row("cam", "on trial"), START + 60 + 601) == "silent"
    assert judge(plan, a_row("cam", "waiting"), START + 60 + 601) == "waiting"
    assert judge(plan, a_row("cam", "confirmed"), START + 60 + 601) == "confirmed"


@pytest.mark.parametrize(
    "row",
    [
        a_row("cam", "confirmed", labels={"group": "lab"}),
        a_row("cam", "confirmed", line="other"),
        a_row("cam", "confirmed", report={"line": "other"}),
        a_row("cam", "confirmed", report={"device": "somebody"}),
        a_row("cam-9", "confirmed"),
        a_row("cam", "confirmed", labels={"group": "lab", "device": "cam"}),
    ],
)
def test_row_that_the_plan_does_not_select_never_counts(row):
    plan = a_plan(selector=parse_selector("group=shops"), exclude=[parse_selector("device=cam-9")])
    assert judge(plan, row, NOW) is None
    assert opened(plan, count(plan, [row], NOW)) == WaveCount()


def test_label_of_a_report_does_not_replace_the_id():
    row = a_row("cam", "confirmed", labels={"device": "cam-1"})
    assert judge(a_plan(selector=parse_selector("device=cam-1")), row, NOW) is None


def test_pinned_device_does_not_count():
    pin = Pin(selector=parse_selector("device=cam"), release=RELEASE, by="ann", at=write_time(APPROVED))
    assert count(a_plan(), [a_row("cam", "waiting")], NOW, [pin]) == [WaveCount()]


def fleet(**states):
    """Return rows: so many of each state."""
    return [a_row(f"{state}-{i}", state.replace("_", " ")) for state, number in states.items() for i in range(number)]


def decided(plan, rows, now=NOW):
    found = decide(plan, count(plan, rows, now), now)
    return found.action, found.reason


def test_first_failure_pauses_where_none_may_fail():
    assert decided(a_plan(), fleet(confirmed=99, rolled_back=1)) == (
        "pause",
        "1 of 100 devices failed, more than 0 %",
    )


def test_failures_up_to_the_gate_are_allowed():
    plan = a_plan(gates=Gates(max_failed_percent=2.0))
    assert decided(plan, fleet(confirmed=98, rolled_back=2))[0] == "complete"
    assert decided(plan, fleet(confirmed=97, rolled_back=3))[0] == "pause"


def test_away_devices_are_no_denominator():
    plan = a_plan(gates=Gates(max_failed_percent=10.0))
    assert decided(plan, fleet(confirmed=9, rolled_back=1))[0] == "complete"
    assert decided(plan, fleet(confirmed=8, rolled_back=1, away=1000))[0] == "pause"


def test_silent_devices_pause():
    rows = [*fleet(confirmed=8), *(a_row(f"s{i}", "fetching", last_seen=START + 1) for i in range(2))]
    assert decided(a_plan(), rows, START + 3602)[1] == "2 of 10 devices are silent, more than 10 %"


def test_soak_comes_before_the_next_wave():
    plan = a_plan(50, 100, soak_s=600.0)
    rows = fleet(confirmed=50)
    assert decided(plan, rows) == ("wait", "the soak of wave 1 lasts until 2026-11-29T12:10:00Z")
    assert decided(plan, rows, START + 600)[0] == "open"


def test_too_few_confirmed_wait():
    plan = a_plan(min_confirmed=3)
    assert decided(plan, fleet(confirmed=2, fetching=5, away=1))[1] == ("2 of 8 devices confirmed (1 away), 3 must")


def test_empty_wave_waits_and_pauses_at_the_deadline():
    plan, end = a_plan(5, 100), (APPROVED + timedelta(days=1)).timestamp()
    action, reason = decided(plan, [])
    assert (action, "only 0 known devices" in reason) == ("wait", True)
    action, reason = decided(plan, [], end)
    assert (action, reason.startswith("the deadline is over: 0 devices confirmed")) == ("pause", True)


def test_wave_that_adds_nobody_does_not_block():
    plan = a_plan(50, 50.01, 100, open_waves=2)
    rows = [row for row in fleet(confirmed=40) if plan.wave_of(row.device) == 0]
    assert decided(plan, rows)[0] == "open"


def test_last_wave_waits_for_devices_until_the_deadline():
    plan, end = a_plan(), (APPROVED + timedelta(days=1)).timestamp()
    rows = fleet(confirmed=5, waiting=2, fetching=1)
    assert decided(plan, rows) == ("wait", "3 devices have not finished yet")
    rows = [a_row(row.device, "waiting" if i < 1 else "confirmed", last_seen=end) for i, row in enumerate(rows)]
    assert decided(plan, rows, end) == ("complete", "the deadline is over, and the gates hold")


def test_deadline_pauses_while_waves_are_closed():
    end = (APPROVED + timedelta(days=1)).timestamp()
    assert decided(a_plan(50, 100), fleet(confirmed=50), end) == (
        "pause",
        "the deadline is over: 1 of 2 waves are open",
    )


def test_paused_plan_waits_whatever_comes():
    plan = a_plan(state="paused", reason="look")
    assert decided(plan, fleet(rolled_back=5)) == ("wait", "paused: look")
    assert decide_blind(plan, 1e10).action == "wait"


def test_blind_rollout_goes_by_time_alone():
    plan = a_plan(5, 100, soak_s=600.0)
    assert decide_blind(plan, START + 599).action == "wait"
    assert decide_blind(plan, START + 600).action == "open"
    assert decide_blind(plan.model_copy(update={"open_waves": 2}), START + 600).action == "complete"
    assert decide_blind(plan, START + 86400).action == "pause"


rows_strategy = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from(STATES), st.floats(START - 100, START + 5000)), max_size=40
).map(lambda found: [a_row(f"d{number}", state, last_seen=seen) for number, state, seen in found])
plans = st.builds(
    lambda buckets, opened_waves, failed, silent, least, soak: a_plan(
        *(one / 100 for one in sorted(buckets)),
        open_waves=min(opened_waves, len(buckets)),
        gates=Gates(max_failed_percent=failed, max_silent_percent=silent),
        min_confirmed=least,
        soak_s=soak,
    ),
    st.sets(st.integers(1, BUCKETS), min_size=1, max_size=5),
    st.integers(0, 5),
    st.floats(0, 100),
    st.floats(0, 100),
    st.integers(0, 5),
    st.floats(0, 5000),
)
times = st.floats(START - 1000, START + 2 * 86400)


@settings(max_examples=150, deadline=None)
@given(plans, rows_strategy, times)
def test_no_wave_opens_above_a_gate(plan, rows, now):
    counts = count(plan, rows, now)
    found, sums = decide(plan, counts, now), opened(plan, counts)
    if found.action in ("open", "complete"):
        assert sums.failed * 100 <= plan.gates.max_failed_percent * sums.counted
        assert sums.silent * 100 <= plan.gates.max_silent_percent * sums.counted
    if found.action == "open" and plan.open_waves:
        last = plan.waves[plan.open_waves - 1]
        assert now - START >= last.soak_s - 1e-6
        assert sums.confirmed >= last.min_confirmed
    if found.action == "complete":
        assert plan.open_waves == len(plan.waves)
        assert sums.confirmed >= plan.waves[-1].min_confirmed


@settings(max_examples=60, deadline=None)
@given(plans, rows_strategy, times, st.randoms())
def test_order_and_repetition_of_rows_change_nothing(plan, rows, now, random):
    mixed = [*rows, *rows[: len(rows) // 2]]
    random.shuffle(mixed)
    assert count(plan, rows, now) == count(plan, mixed, now)


@settings(max_examples=60, deadline=None)
@given(plans, rows_strategy, times)
def test_reports_of_others_change_nothing(plan, rows, now):
    others = [
        *(row.model_copy(update={"line": "other", "device": f"o{row.device}"}) for row in rows),
        *(a_row(f"x{i}", "rolled back", report={"line": "other"}) for i in range(5)),
        *(a_row(f"y{i}", "confirmed", report={"device": "d1"}) for i in range(5)),
    ]
    assert count(plan, rows, now) == count(plan, [*rows, *others], now)


@settings(max_examples=60, deadline=None)
@given(plans, rows_strategy, times)
def test_devices_of_waves_that_are_not_open_change_no_decision(plan, rows, now):
    """So nobody needs to ask for them."""
    salt, limit = plan.open_buckets()
    asked = [row for row in rows if bucket_of(salt, row.device) < limit]
    assert decide(plan, count(plan, asked, now), now) == decide(plan, count(plan, rows, now), now)


@settings(max_examples=60, deadline=None)
@given(plans, rows_strategy, times)
def test_every_selected_device_counts_once(plan, rows, now):
    for one in count(plan, rows, now):
        parts = one.confirmed + one.failed + one.silent + one.away + one.in_progress + one.waiting
        assert parts == one.devices


def test_newest_row_of_a_device_counts():
    rows = [a_row("cam", "confirmed", last_seen=START + 5), a_row("cam", "rolled back", last_seen=START + 9)]
    for mixed in permutations(rows):
        assert count(a_plan(), mixed, NOW)[0].failed == 1
