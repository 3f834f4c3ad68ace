"""The state machine of the update agent: pure decisions over a task, the facts, and the device's policy.

    IDLE -> CHECK -> GATE -> FETCH -> VERIFY -> STAGE -> PROVE -> ARMED -> SWITCH -> TRIAL -> CONFIRM -> IDLE
    a failure before the switch -> QUARANTINE -> IDLE
    a failure after it -> ROLLBACK -> QUARANTINE -> IDLE
    too many stores -> FAILSAFE -> IDLE

Each state names an action, which the agent carries out before it asks for the next step. An action that is repeated
does no harm, so an agent that was killed starts with the action of the state that it finds.

Rules this module keeps:
1. What serves changes in SWITCH and in ROLLBACK alone. The step that leads there is stored first.
2. A failure of the network or the disk postpones a release; a failure of the release itself quarantines it.
3. A try of a release is stored at most 28 times. Each start of the agent in the middle of a try is a store, too. So a
   release that restarts the device again and again ends in FAILSAFE, which holds it until a newer one or a person
   comes.
4. A pair that is on trial stays only by CONFIRM. The third boot that finds it unconfirmed rolls it back.
5. What a person does wins: a trial that is gone is over.
6. A newer release replaces one that is not switched to yet. A proof that goes on, or a trial, is ended first. So does
   one that a device may not take any more, as when a rollout is paused: it drops what it prepared.
7. What a rollout says of a release is no part of which release it is: a rollout that ends disturbs no try.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Literal

from gallery_sync.agent.policy import Policy

MOST_STORES = 28  # of one try of a release
MOST_BOOTS = 3  # that find a trial unconfirmed
_REASON_LENGTH = 500


class State(Enum):
    """Where a task stands; its action is yet to be done."""

    IDLE = "idle"  # wait until the next check
    CHECK = "check"  # read what is signed, apply urgent deletions
    GATE = "gate"  # may a download start now?
    FETCH = "fetch"  # download what is missing
    VERIFY = "verify"  # check the release as a whole
    STAGE = "stage"  # install it beside what serves
    PROVE = "prove"  # try it in a child process; build its engines
    ARMED = "armed"  # wait for the moment to switch
    SWITCH = "switch"  # make it active, on trial
    TRIAL = "trial"  # watch how it serves
    CONFIRM = "confirm"  # end the trial, raise the security floor
    ROLLBACK = "rollback"  # return to the pair before
    QUARANTINE = "quarantine"  # hold the release back for a while
    FAILSAFE = "failsafe"  # undo the trial, and hold the release back until a newer one or a person comes


AT_REST = frozenset({State.IDLE, State.CHECK, State.GATE})  # nothing is under way; not stored by themselves
BEFORE_SWITCH = frozenset({State.FETCH, State.VERIFY, State.STAGE, State.PROVE, State.ARMED})
SWITCHED = frozenset({State.SWITCH, State.TRIAL, State.CONFIRM, State.ROLLBACK})
_NEXT = {
    State.FETCH: State.VERIFY,
    State.VERIFY: State.STAGE,
    State.STAGE: State.PROVE,
    State.PROVE: State.ARMED,
}
_AFTER = {"failed": State.QUARANTINE, "stale": State.FETCH, "already": State.CONFIRM}


@dataclass(frozen=True, slots=True)
class Target:
    """A release: the pair that a line should run."""

    line: str
    sequence: int  # of the release
    bundle_id: str
    bundle_sequence: int = 0
    gallery_sequence: int = 0
    security_floor: int = 0  # of its bundle head: raised once it is confirmed
    plan: str | None = field(default=None, compare=False)  # the rollout that brings it; None: it is for all
    windows: tuple[str, ...] = field(default=(), compare=False)  # of that rollout; local time; none: always
    deadline: float | None = field(default=None, compare=False)  # Unix seconds: no try begins afterwards
    max_unavailable: int | None = field(default=None, compare=False)  # devices that switch at a time; None: all
    unavailable_by: str = field(default="site", compare=False)  # the label that they share

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"release {self.sequence} of {self.line}"


@dataclass(frozen=True, slots=True)
class Task:
    """What the agent is doing. All of it is in the journal."""

    state: State = State.IDLE
    release: Target | None = None  # that is under way, or that was last
    since: float = 0.0  # Unix seconds: when it entered this state
    stores: int = 0  # of this try
    trial: str | None = None  # id of the trial, from SWITCH on
    baseline: str | None = None  # how the pair before served, see gallery_sync.agent.trial
    boot_id: str | None = None  # of the boot that entered or last found this trial
    boots: int = 0  # further boots that found it unconfirmed
    failed: str | None = None  # why the release is undone or held back
    postponed: int = 0  # failures in a row of the network or the disk
    not_before: float = 0.0  # Unix seconds: no try earlier than this

    @property
    def has_begun(self) -> bool:
        """Whether a try of the release is under way, or was put off."""
        return self.release is not None and (self.state not in AT_REST or self.stores > 0 or self.postponed > 0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the action of a state ended."""

    kind: Literal["done", "more", "busy", "later", "failed", "already", "stale"]
    # done; more: it made progress and goes on; busy: it goes on beside the loop, to its end; later: a fault of the
    # network, the disk or a lock; failed: the release is wrong; already: it serves; stale: what was prepared is gone,
    # so prepare it again
    reason: str | None = None


DONE = Outcome("done")


@dataclass(frozen=True, slots=True)
class Serving:
    """What the pointer of the device says."""

    line: str | None = None  # None: nothing is active, or it was installed manually
    sequence: int | None = None
    trial: str | None = None  # None: confirmed, or activated by a person
    bundle_id: str = ""
    gallery_sequence: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """A release in quarantine."""

    line: str
    sequence: int
    reason: str
    count: int  # how often it failed
    until: float | None  # Unix seconds; None: until a newer release or a person comes


@dataclass(frozen=True, slots=True)
class Facts:
    """What a decision is made of."""

    now: float  # Unix seconds
    boot_id: str
    new_trial: str  # id for a trial that starts now
    outcome: Outcome | None = None  # of the task's action; None: it was not done in this process
    wanted: Target | None = None  # the newest signed release; None: not known
    serving: Serving = Serving()
    gate: str | None = None  # why no download may start now
    window: str | None = None  # why nothing may be proved or switched now
    turn: str | None = None  # why it is not this device's turn to switch
    stays: bool = False  # the device takes no release: it stays at the one that it has
    waits: str | None = None  # why it does not take what other devices take
    held: Held | None = None  # the quarantine of the release that is under way or wanted
    verdict: Literal["waiting", "good", "bad"] = "waiting"  # of the trial
    verdict_reason: str | None = None
    baseline: str | None = None  # how the active pair serves now
    erased: bool = False  # an urgent deletion changed what was prepared


@dataclass(frozen=True, slots=True)
class Ended:
    """How a try of a release ended, for the history."""

    release: Target
    outcome: Literal["confirmed", "rolled back", "refused", "kept", "taken over", "failsafe", "postponed"]
    reason: str | None
    trial: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """What follows."""

    task: Task
    store: bool = False  # write the task to the journal before its action is done
    wait_s: float = 0.0  # before its action is done
    reason: str | None = None  # why it waits, for the report
    waits_for_turn: bool = False
    hold: Held | None = None  # enters the quarantine with the same store
    ended: Ended | None = None  # enters the history with the same store


def next_step(task: Task, facts: Facts, policy: Policy) -> Step:
    """Return what follows from a task, after its action was done or was interrupted.

    Args:
        task: as the journal has it.
        facts: `outcome` is that of the task's action.
        policy: of the device.
    """
    found = _reconcile(task, facts)
    if found is not None:
        return found
    if facts.outcome is None and task.state not in AT_REST:
        return _resume(task, facts)
    if facts.outcome is not None and facts.outcome.kind == "busy":
        return Step(task, reason=facts.outcome.reason)
    if task.state in BEFORE_SWITCH and (replaced := _replaced(task, facts)):
        return replaced
    return _DECIDE[task.state](task, facts, policy)


def _reconcile(task: Task, facts: Facts) -> Step | None:
    """Follow the pointer where it contradicts the task: the journal was lost, or a person was here."""
    trial = facts.serving.trial
    ours = task.state is State.FAILSAFE or (task.state in SWITCHED and task.trial == trial)
    if trial is not None and not ours:
        serving = facts.serving
        release = Target(
            serving.line or "", serving.sequence or 0, serving.bundle_id, gallery_sequence=serving.gallery_sequence
        )
        names = (one for one in (task.release, facts.wanted) if one is not None)
        release = next((one for one in names if (one.line, one.sequence) == (release.line, release.sequence)), release)
        adopted = Task(State.TRIAL, release, facts.now, trial=trial, boot_id=facts.boot_id, boots=1)
        return _stored(task, adopted, facts)
    if trial is None and task.state is State.TRIAL:
        return _end(task, facts, "taken over", "a person ended the trial")
    return None


def _resume(task: Task, facts: Facts) -> Step:
    """Go on after a start of the agent in the middle of a try. It is counted, so that it does not go on for ever."""
    booted = task.state in SWITCHED and task.boot_id not in (None, facts.boot_id)
    boots = task.boots + booted
    resumed = replace(task, boots=boots, boot_id=facts.boot_id if task.state in SWITCHED else task.boot_id)
    if boots >= MOST_BOOTS and task.state in (State.SWITCH, State.TRIAL):
        why = f"{boots} boots found the trial unconfirmed"
        return _stored(task, replace(resumed, state=State.ROLLBACK, since=facts.now, failed=why), facts)
    return _stored(task, resumed, facts)


def _replaced(task: Task, facts: Facts) -> Step | None:
    """Turn to another release, drop what is prepared, or prepare the release again."""
    wanted, release = facts.wanted, task.release
    if facts.stays or (wanted is not None and wanted != release):
        is_back = wanted is None or (release is not None and wanted.sequence < release.sequence)
        dropped = Ended(release, "postponed", facts.waits, None) if is_back and release is not None else None
        if wanted is None or _serves(wanted, facts):
            return Step(Task(State.IDLE, wanted, facts.now), store=True, ended=dropped, reason=facts.waits)
        return Step(Task(State.GATE, wanted, facts.now), store=True, ended=dropped)
    if facts.erased and task.state is not State.FETCH:
        return _stored(task, replace(task, state=State.FETCH, since=facts.now), facts)
    return None


def _idle(task: Task, _facts: Facts, _policy: Policy) -> Step:
    return Step(replace(task, state=State.CHECK))


def _check(task: Task, facts: Facts, policy: Policy) -> Step:
    outcome, wanted = facts.outcome, facts.wanted
    reason = outcome.reason if outcome else None
    if wanted is None or _serves(wanted, facts) or (outcome and outcome.kind != "done"):
        return Step(replace(task, state=State.IDLE), wait_s=policy.poll_s, reason=reason)
    same = task.release == wanted
    if not same:
        return Step(Task(State.GATE, wanted, facts.now))
    return Step(replace(task, state=State.GATE, release=wanted if wanted.plan else task.release))


def _serves(wanted: Target, facts: Facts) -> bool:
    return (facts.serving.line, facts.serving.sequence) == (wanted.line, wanted.sequence)


def _gate(task: Task, facts: Facts, policy: Policy) -> Step:
    reason = _why_held(facts, policy) or _why_later(task, facts, policy) or facts.gate
    if task.release is None or reason:
        idle = replace(task, state=State.IDLE)
        return Step(idle, wait_s=policy.poll_s, reason=reason)
    return _stored(task, replace(task, state=State.FETCH, since=facts.now, stores=0, failed=None), facts)


def _why_held(facts: Facts, policy: Policy) -> str | None:
    held = facts.held
    if held is None:
        return None
    if held.until is not None and not _is_ahead(held.until, facts.now, policy.most_cool_down_s):
        return None
    return f"in quarantine: {held.reason}"


def _why_later(task: Task, facts: Facts, policy: Policy) -> str | None:
    if not _is_ahead(task.not_before, facts.now, policy.most_retry_s):
        return None
    return f"tried again later: {task.failed}"


def _is_ahead(time: float, now: float, most: float) -> bool:
    """Return whether a time is yet to come; a time that is too far ahead was written by a wrong clock."""
    return now < time <= now + most


def _prepare(task: Task, facts: Facts, policy: Policy) -> Step:
    """Decide in FETCH, VERIFY, STAGE and PROVE."""
    outcome = facts.outcome or DONE
    if outcome.kind == "more":
        if task.state is State.PROVE:  # the window is closed
            return Step(task, wait_s=policy.poll_s, reason=outcome.reason)
        return Step(replace(task, state=State.CHECK), reason=outcome.reason)
    if outcome.kind == "later":
        return _postpone(task, facts, policy)
    follows = _AFTER.get(outcome.kind) or _NEXT[task.state]
    failed = _cut(outcome) if outcome.kind == "failed" else None
    return _stored(task, replace(task, state=follows, since=facts.now, failed=failed, postponed=0), facts)


def _armed(task: Task, facts: Facts, policy: Policy) -> Step:
    if facts.window:
        return Step(task, wait_s=policy.poll_s, reason=facts.window)
    if facts.turn:
        return Step(task, wait_s=policy.poll_s, reason=facts.turn, waits_for_turn=True)
    switching = replace(
        task,
        state=State.SWITCH,
        since=facts.now,
        trial=facts.new_trial,
        baseline=facts.baseline,
        boot_id=facts.boot_id,
        boots=0,
    )
    return _stored(task, switching, facts)


def _switch(task: Task, facts: Facts, policy: Policy) -> Step:
    outcome = facts.outcome or DONE
    if facts.serving.trial is not None and facts.serving.trial == task.trial:
        return _stored(task, replace(task, state=State.TRIAL, since=facts.now), facts)
    follows = _AFTER.get(outcome.kind)
    if follows is None:
        return _postpone(task, facts, policy)
    failed = _cut(outcome) if outcome.kind == "failed" else None
    return _stored(task, replace(task, state=follows, since=facts.now, failed=failed, trial=None), facts)


def _trial(task: Task, facts: Facts, policy: Policy) -> Step:
    if facts.verdict == "waiting":
        return Step(task, wait_s=policy.trial.look_s, reason=facts.verdict_reason)
    if facts.verdict == "good":
        return _stored(task, replace(task, state=State.CONFIRM, since=facts.now), facts)
    failed = (facts.verdict_reason or "the trial failed")[:_REASON_LENGTH]
    return _stored(task, replace(task, state=State.ROLLBACK, since=facts.now, failed=failed), facts)


def _confirm(task: Task, facts: Facts, policy: Policy) -> Step:
    if facts.outcome is not None and facts.outcome.kind == "failed":
        return _end(task, facts, "taken over", facts.outcome.reason)
    if facts.outcome is not None and facts.outcome.kind == "later":
        return Step(task, wait_s=policy.retry_s(task.postponed), reason=facts.outcome.reason)
    return _end(task, facts, "confirmed", None)


def _rollback(task: Task, facts: Facts, policy: Policy) -> Step:
    outcome = facts.outcome or DONE
    if outcome.kind == "later":
        return Step(task, wait_s=policy.retry_s(task.postponed), reason=outcome.reason)
    failed = task.failed or "it was undone"
    if outcome.kind == "failed":  # nothing to go back to: a proved pair serves on
        failed = f"{failed}; it serves on: {outcome.reason}"[:_REASON_LENGTH]
    return _stored(task, replace(task, state=State.QUARANTINE, since=facts.now, failed=failed), facts)


def _quarantine(task: Task, facts: Facts, policy: Policy) -> Step:
    if task.release is None:
        return _stored(task, Task(since=facts.now), facts)
    again = facts.held is not None and facts.held.sequence == task.release.sequence
    count = (facts.held.count if facts.held and again else 0) + 1
    until = facts.now + policy.cool_down_s(count)
    reason = task.failed or "it failed"
    held = Held(task.release.line, task.release.sequence, reason, count, until)
    kept = facts.serving.trial is None and facts.serving.sequence == task.release.sequence
    outcome: Literal["kept", "rolled back", "refused"] = "kept" if kept else "rolled back" if task.trial else "refused"
    ended = Ended(task.release, outcome, reason, task.trial)
    return replace(_stored(task, Task(State.IDLE, task.release, facts.now), facts), hold=held, ended=ended)


def _failsafe(task: Task, facts: Facts, policy: Policy) -> Step:
    outcome = facts.outcome or DONE
    if outcome.kind == "later":
        return Step(task, wait_s=policy.retry_s(task.postponed), reason=outcome.reason)
    if task.release is None:
        return Step(Task(since=facts.now), store=True)
    count = facts.held.count + 1 if facts.held else 1
    reason = task.failed or "it was stored too often"
    held = Held(task.release.line, task.release.sequence, reason, count, None)
    ended = Ended(task.release, "failsafe", reason, task.trial)
    return Step(Task(State.IDLE, task.release, facts.now), store=True, hold=held, ended=ended)


def _postpone(task: Task, facts: Facts, policy: Policy) -> Step:
    """Try again later. The wait doubles, and survives a restart."""
    reason = facts.outcome.reason if facts.outcome else None
    not_before = facts.now + policy.retry_s(task.postponed)
    idle = Task(
        State.IDLE,
        task.release,
        facts.now,
        failed=reason and reason[:_REASON_LENGTH],
        postponed=min(task.postponed + 1, 1000),
        not_before=not_before,
    )
    return Step(idle, store=True, reason=reason)


def _end(task: Task, facts: Facts, outcome: Literal["confirmed", "taken over"], reason: str | None) -> Step:
    ended = Ended(task.release, outcome, reason, task.trial) if task.release else None
    return Step(Task(State.IDLE, task.release, facts.now), store=True, reason=reason, ended=ended)


def _stored(before: Task, after: Task, facts: Facts) -> Step:
    """Return a step that is stored, or the way to FAILSAFE when this try was stored too often."""
    stores = (0 if after.state is State.FETCH and before.state in AT_REST else before.stores) + 1
    if after.state is State.IDLE or before.state is State.FAILSAFE:
        return Step(after, store=True)
    if stores > MOST_STORES:
        why = f"{MOST_STORES} stores in one try: it does not get on; last in {before.state.value}"
        return Step(replace(after, state=State.FAILSAFE, since=facts.now, stores=stores, failed=why), store=True)
    return Step(replace(after, stores=stores), store=True)


def _cut(outcome: Outcome) -> str:
    return (outcome.reason or "it failed")[:_REASON_LENGTH]


_DECIDE = {
    State.IDLE: _idle,
    State.CHECK: _check,
    State.GATE: _gate,
    State.FETCH: _prepare,
    State.VERIFY: _prepare,
    State.STAGE: _prepare,
    State.PROVE: _prepare,
    State.ARMED: _armed,
    State.SWITCH: _switch,
    State.TRIAL: _trial,
    State.CONFIRM: _confirm,
    State.ROLLBACK: _rollback,
    State.QUARANTINE: _quarantine,
    State.FAILSAFE: _failsafe,
}
