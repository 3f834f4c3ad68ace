"""The state machine: every state with every outcome, and convergence from anywhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gallery_sync.agent.machine import (
    AT_REST,
    BEFORE_SWITCH,
    MOST_STORES,
    SWITCHED,
    Facts,
    Held,
    Outcome,
    Serving,
    State,
    Step,
    Target,
    Task,
    next_step,
)
from gallery_sync.agent.policy import Policy

POLICY = Policy()
OLD, NEW, NEWER = (Target("demo", n, f"bundle-{n}", n, n) for n in (1, 2, 3))
SERVES_OLD, SERVES_NEW = Serving("demo", 1), Serving("demo", 2)
ON_TRIAL = Serving("demo", 2, "t1")
NOW = 1_800_000_000.0


def task_in(state: State, **changes: object) -> Task:
    """A task as a walk through the states leaves it."""
    trial = "t1" if state in SWITCHED | {State.QUARANTINE, State.FAILSAFE} else None
    stores = 0 if state in AT_REST else 3
    return replace(Task(state, NEW, NOW, stores=stores, trial=trial, boot_id="boot-1"), **changes)


def facts(outcome: str | None, serving: Serving = SERVES_OLD, **changes: object) -> Facts:
    told = Outcome(outcome, f"it was {outcome}") if outcome else None  # type: ignore[arg-type]
    known = {"now": NOW, "boot_id": "boot-1", "new_trial": "t1", "outcome": told, "wanted": NEW, "serving": serving}
    return Facts(**(known | changes))  # type: ignore[arg-type]


def serving_in(state: State) -> Serving:
    return ON_TRIAL if state in {State.TRIAL, State.CONFIRM, State.ROLLBACK} else SERVES_OLD


def step(state: State, outcome: str | None, serving: Serving | None = None, **changes: object) -> Step:
    return next_step(task_in(state), facts(outcome, serving or serving_in(state), **changes), POLICY)


def test_every_state_is_done():
    """The way of a release that nothing happens to; `followed` says what comes next when the action is done."""
    followed = {
        State.IDLE: State.CHECK,
        State.CHECK: State.GATE,
        State.GATE: State.FETCH,
        State.FETCH: State.VERIFY,
        State.VERIFY: State.STAGE,
        State.STAGE: State.PROVE,
        State.PROVE: State.ARMED,
        State.ARMED: State.SWITCH,
        State.TRIAL: State.CONFIRM,
        State.CONFIRM: State.IDLE,
        State.ROLLBACK: State.QUARANTINE,
        State.QUARANTINE: State.IDLE,
        State.FAILSAFE: State.IDLE,
    }
    for state, after in followed.items():
        serving = SERVES_OLD if state is State.ROLLBACK else serving_in(state)
        assert step(state, "done", serving, verdict="good").task.state is after, state
    assert step(State.SWITCH, "done", ON_TRIAL).task.state is State.TRIAL
    assert set(followed) | {State.SWITCH} == set(State)


@pytest.mark.parametrize("outcome", ["later", "failed"])
@pytest.mark.parametrize("state", list(State), ids=lambda state: state.value)
def test_every_state_with_an_error(state, outcome):
    """N5: after an error the agent is idle again, holds the release back, undoes it, or tries again after a wait."""
    found = step(state, outcome, verdict="bad")
    after = found.task.state
    if state in BEFORE_SWITCH - {State.ARMED}:
        assert after is (State.IDLE if outcome == "later" else State.QUARANTINE)
        assert found.store
    elif state is State.TRIAL:
        assert after is State.ROLLBACK
        assert found.store
    elif outcome == "later" and state in {State.CONFIRM, State.ROLLBACK, State.FAILSAFE}:
        assert after is state
        assert found.wait_s >= POLICY.retry_first_s
    elif state is State.SWITCH:
        assert after is (State.IDLE if outcome == "later" else State.QUARANTINE)
    else:
        assert after in {State.IDLE, State.CHECK, State.FETCH, State.SWITCH, State.QUARANTINE}


@pytest.mark.parametrize("state", [state for state in State if state not in AT_REST], ids=lambda state: state.value)
def test_p1_every_state_after_a_kill_is_done_again(state):
    found = step(state, None)
    assert found.store
    assert found.task == replace(task_in(state), stores=3 if state is State.FAILSAFE else 4)


@pytest.mark.parametrize("state", [state for state in State if state in AT_REST], ids=lambda state: state.value)
def test_p1_state_at_rest_after_a_kill_goes_on(state):
    assert step(state, None).task.state in {State.CHECK, State.GATE, State.FETCH}


def test_trial_that_waits_is_not_stored():
    found = step(State.TRIAL, "done", verdict="waiting")
    assert not found.store
    assert found.task == task_in(State.TRIAL)
    assert found.wait_s == POLICY.trial.look_s


def test_p6_third_boot_that_finds_a_trial_rolls_back():
    task = task_in(State.TRIAL)
    for boot in ("boot-2", "boot-3"):
        task = next_step(task, facts(None, ON_TRIAL, boot_id=boot), POLICY).task
        assert task.state is State.TRIAL
        again = next_step(task, facts(None, ON_TRIAL, boot_id=boot), POLICY).task  # a start without a boot
        assert (again.state, again.boots) == (State.TRIAL, task.boots)
    task = next_step(task, facts(None, ON_TRIAL, boot_id="boot-4"), POLICY).task
    assert task.state is State.ROLLBACK
    assert task.failed == "3 boots found the trial unconfirmed"


@pytest.mark.parametrize(
    "state", [state for state in State if state in BEFORE_SWITCH | SWITCHED], ids=lambda state: state.value
)
def test_p5_try_that_does_not_get_on_ends_in_failsafe(state):
    task, starts = task_in(state, stores=1), 0
    while task.state is state:
        task = next_step(task, facts(None, serving_in(state)), POLICY).task
        starts += 1
        assert starts <= MOST_STORES
    assert task.state is State.FAILSAFE
    done = next_step(task, facts("done"), POLICY)
    assert done.task.state is State.IDLE
    assert done.hold == Held("demo", 2, f"28 stores in one try: it does not get on; last in {state.value}", 1, None)


def test_f7_held_release_is_refused_with_its_reason():
    held = Held("demo", 2, "frames failed", 1, NOW + 60)
    found = step(State.GATE, "done", held=held)
    assert (found.task.state, found.reason) == (State.IDLE, "in quarantine: frames failed")
    over = step(State.GATE, "done", held=replace(held, until=NOW - 1))
    assert over.task.state is State.FETCH


def test_quarantine_doubles_with_each_failure():
    first = step(State.QUARANTINE, "done").hold
    assert first is not None
    assert first.until == NOW + 3600
    second = step(State.QUARANTINE, "done", held=first).hold
    assert second is not None
    assert (second.count, second.until) == (2, NOW + 7200)
    assert POLICY.cool_down_s(10**6) == POLICY.quarantine.most_seconds


def test_newer_release_is_taken_while_an_older_one_is_held():
    held_without_end = Held("demo", 2, "failsafe", 1, None)
    assert step(State.GATE, "done", held=held_without_end).task.state is State.IDLE
    found = next_step(Task(State.CHECK, NEW), facts("done", wanted=NEWER), POLICY)
    assert (found.task.state, found.task.release) == (State.GATE, NEWER)


@pytest.mark.parametrize("state", [state for state in State if state in BEFORE_SWITCH], ids=lambda state: state.value)
def test_newer_release_replaces_one_that_is_prepared(state):
    found = step(state, "done", wanted=NEWER)
    assert (found.task.state, found.task.release) == (State.GATE, NEWER)


@pytest.mark.parametrize("state", [State.VERIFY, State.STAGE, State.PROVE, State.ARMED], ids=lambda state: state.value)
def test_urgent_deletion_prepares_the_release_again(state):
    found = step(state, "done", erased=True)
    assert (found.task.state, found.task.release) == (State.FETCH, NEW)


def test_proof_that_goes_on_is_left_to_its_end():
    found = step(State.PROVE, "busy", wanted=NEWER, erased=True, window="waits for 02:00-05:00")
    assert (found.task, found.store, found.wait_s) == (task_in(State.PROVE), False, 0.0)


def test_newer_release_waits_for_the_end_of_a_trial():
    assert step(State.TRIAL, "done", wanted=NEWER).task.state is State.TRIAL


@pytest.mark.parametrize("state", [State.PROVE, State.ARMED], ids=lambda state: state.value)
def test_closed_window_holds_proof_and_switch(state):
    found = step(state, "more" if state is State.PROVE else "done", window="waits for 02:00-05:00")
    assert found.task == task_in(state)
    assert not found.store
    assert found.wait_s == POLICY.poll_s


def test_failure_of_the_network_waits_longer_each_time():
    waits, task = [], task_in(State.FETCH)
    for _ in range(10):
        task = next_step(replace(task, state=State.FETCH), facts("later"), POLICY).task
        waits.append(task.not_before - NOW)
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600]
    gate = next_step(replace(task, state=State.GATE), facts("done"), POLICY)
    assert (gate.task.state, gate.reason) == (State.IDLE, "tried again later: it was later")


def test_c1_wait_that_a_wrong_clock_wrote_is_over():
    task = task_in(State.GATE, not_before=NOW + 12 * 365 * 86400)
    assert next_step(task, facts("done"), POLICY).task.state is State.FETCH
    held = Held("demo", 2, "failed", 1, NOW + 12 * 365 * 86400)
    assert step(State.GATE, "done", held=held).task.state is State.FETCH


def test_p3_lost_journal_adopts_the_trial_of_the_pointer():
    found = next_step(Task(State.CHECK), facts("done", ON_TRIAL), POLICY)
    assert (found.task.state, found.task.trial, found.task.boots) == (State.TRIAL, "t1", 1)
    assert found.task.release == NEW
    unknown = next_step(
        Task(State.CHECK), facts("later", replace(ON_TRIAL, bundle_id="b", gallery_sequence=2), wanted=None), POLICY
    )
    assert unknown.task.release == Target("demo", 2, "b", gallery_sequence=2)


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("outcome", ["done", "more", "later", "failed", "stale", "already"])
@pytest.mark.parametrize("state", sorted(BEFORE_SWITCH, key=lambda state: state.value))
def test_release_that_is_withdrawn_is_dropped_before_the_switch(state, outcome, stays):
    found = step(state, outcome, wanted=None if stays else OLD, stays=stays, waits="paused")
    assert (found.task.state, found.task.stores, found.hold) == (State.IDLE, 0, None)
    assert found.ended is not None
    assert (found.ended.release, found.ended.outcome, found.ended.reason) == (NEW, "postponed", "paused")


@pytest.mark.parametrize("state", sorted(SWITCHED - {State.SWITCH}, key=lambda state: state.value))
def test_release_that_is_withdrawn_after_the_switch_goes_to_its_end(state):
    found = step(state, "done", wanted=OLD, stays=False, waits="paused", verdict="good")
    assert (found.task.release, found.task.state) != (NEW, State.IDLE) or found.ended.outcome == "confirmed"  # type: ignore[union-attr]


def test_base_that_the_device_lacks_replaces_a_withdrawn_candidate():
    found = step(State.ARMED, "done", Serving("demo", 0), wanted=OLD, waits="paused")
    assert (found.task.state, found.task.release) == (State.GATE, OLD)
    assert found.ended is not None


def test_armed_device_waits_for_its_turn_after_its_window():
    closed = step(State.ARMED, "done", window="closed", turn="waits for its turn")
    assert (closed.task.state, closed.reason, closed.waits_for_turn) == (State.ARMED, "closed", False)
    waiting = step(State.ARMED, "done", turn="waits for its turn")
    assert (waiting.task.state, waiting.reason, waiting.waits_for_turn) == (State.ARMED, "waits for its turn", True)
    assert not waiting.store
    assert step(State.ARMED, "done").task.state is State.SWITCH


def test_rollout_that_changes_is_the_same_release():
    planned = replace(NEW, plan="spring", windows=("02:00-03:00",), max_unavailable=1)
    assert planned == NEW
    checked = next_step(task_in(State.CHECK), facts("done", wanted=planned), POLICY)
    assert checked.task.release is planned
    kept = next_step(replace(task_in(State.CHECK), release=planned), facts("done", wanted=NEW), POLICY)
    assert kept.task.release is planned


def test_try_has_begun_with_its_first_store_until_it_ends():
    assert not Task(State.GATE, NEW).has_begun
    assert not Task(State.CHECK, None, stores=1).has_begun
    for task in (Task(State.FETCH, NEW), Task(State.GATE, NEW, stores=2), Task(State.IDLE, NEW, postponed=1)):
        assert task.has_begun


def test_trial_that_a_person_ended_is_over():
    found = step(State.TRIAL, "done", SERVES_OLD, verdict="good")
    assert found.task.state is State.IDLE
    assert found.ended is not None
    assert found.ended.outcome == "taken over"


def test_pair_that_serves_already_is_only_named():
    assert step(State.STAGE, "already", SERVES_NEW).task.state is State.CONFIRM
    found = next_step(Task(State.CONFIRM, NEW), facts("done", SERVES_NEW), POLICY)
    assert found.ended is not None
    assert found.ended.outcome == "confirmed"


def test_damage_of_what_was_staged_is_fetched_again():
    assert step(State.SWITCH, "stale").task == replace(task_in(State.FETCH), stores=4, failed=None)


class Device:
    """A device and a repository, for the state machine to work on."""

    def __init__(self, serving: Serving, before: Serving, wanted: Target) -> None:
        self.serving, self.before, self.wanted = serving, before, wanted
        self.held: dict[int, Held] = {}
        self.proved = {before.sequence, serving.sequence}

    def was_proved(self, task: Task) -> None:
        """Believe a journal that says so."""
        if task.state in SWITCHED | {State.ARMED} and task.release:
            self.proved.add(task.release.sequence)

    def act(self, task: Task, outcome: str) -> str:
        if outcome != "done":
            return outcome
        if task.state is State.PROVE and task.release:
            self.proved.add(task.release.sequence)
        if task.state is State.SWITCH and self.serving.trial != task.trial and task.release:
            self.before = self.before if self.serving.trial else self.serving  # as edge.bundle.slots
            self.serving = Serving("demo", task.release.sequence, task.trial)
        if task.state is State.CONFIRM and self.serving.trial in (None, task.trial):
            self.serving = replace(self.serving, trial=None)
        if task.state in {State.ROLLBACK, State.FAILSAFE} and self.serving.trial is not None:
            self.serving = self.before
        return outcome


states = st.sampled_from(list(State))
outcomes = st.sampled_from(["done", "done", "done", "more", "later", "failed", "stale", "killed"])


@settings(max_examples=150, deadline=None)
@given(
    state=states,
    release=st.sampled_from([None, OLD, NEW, NEWER]),
    trial=st.sampled_from([None, "t1", "t2"]),
    stores=st.integers(0, 40),
    boots=st.integers(0, 5),
    serving=st.sampled_from([Serving(), SERVES_OLD, SERVES_NEW, ON_TRIAL]),
    fates=st.lists(st.tuples(outcomes, st.sampled_from(["waiting", "good", "bad"]), st.booleans()), max_size=60),
    verdict=st.sampled_from(["good", "bad"]),
)
def test_from_anywhere_it_ends_idle_and_serves_a_proved_pair(
    state, release, trial, stores, boots, serving, fates, verdict
):
    device, now, last = Device(serving, SERVES_OLD, NEWER), NOW, ""
    task = Task(state, release, now, stores=stores, trial=trial, boots=boots, boot_id="boot-0")
    device.was_proved(task)
    for turn in range(400):
        outcome, judged, erased = fates[turn] if turn < len(fates) else ("done", verdict, False)
        told = None if outcome == "killed" else Outcome(device.act(task, outcome), outcome)  # type: ignore[arg-type]
        known = Facts(
            now,
            f"boot-{turn}" if outcome == "killed" else "boot-0",
            f"trial-{turn}",
            told,
            device.wanted,
            device.serving,
            held=device.held.get(task.release.sequence if task.release else -1),
            verdict=judged,
            erased=erased,
        )
        found = next_step(task, known, POLICY)
        if found.hold is not None:
            device.held[found.hold.sequence] = found.hold
        task, now = found.task, now + 1.0 + found.wait_s
        last = device.serving.trial or ""
        settled = device.serving.sequence == device.wanted.sequence or device.wanted.sequence in device.held
        if turn >= len(fates) and task.state is State.IDLE and settled and not last:
            break
    else:
        pytest.fail(f"does not come to rest: {task}, {device.serving}")
    assert device.serving.sequence in device.proved
