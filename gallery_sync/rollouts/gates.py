"""Decides how a rollout goes on: from the plan, what is known of the devices, and the time. Pure.

Rules this module keeps:
1. Only a try that a device confirmed is a success, with the id of its trial, and only while it runs that pair,
   confirmed, under the number of the release. "It was installed" or "it is there" is none, and what a report leaves out
   counts against it. A device that says confirmed and runs another pair, or does not say which, has failed. A pair that
   was confirmed under an earlier number needs no second trial.
2. Reports are claims. A row counts only if the plan selects its labels, in the plan's line, its report is of the same
   device and line, and no pin holds the device where it is.
3. A device whose last report is older than the approval is *away*: it is no success, and no failure either.
4. No wave opens while the share of failed or silent devices is above its gate, before the soak is over, or before as
   many devices confirmed as must. A wave without devices is no success.
5. At the deadline a rollout is complete, or it pauses with the reason. It never waits for ever.
6. The order of rows, and rows that are there twice, change nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from gallery_sync.formats.documents import Release
from gallery_sync.formats.reports import FAILED, DeviceRow, Running, Try
from gallery_sync.formats.rollouts import Pin, Plan
from gallery_sync.rollouts.plans import labels_of
from gallery_sync.trust.clock import read_time, write_time

State = Literal["confirmed", "failed", "silent", "away", "in progress", "waiting"]
BLIND = "blind"  # how a decision without a look at devices begins
Action = Literal["wait", "open", "pause", "complete"]


@dataclass(frozen=True, slots=True)
class WaveCount:
    """The devices that one wave adds."""

    devices: int = 0
    confirmed: int = 0
    failed: int = 0
    silent: int = 0
    away: int = 0
    in_progress: int = 0  # they began
    waiting: int = 0  # they did not begin yet

    @property
    def counted(self) -> int:
        """Devices that are not away."""
        return self.devices - self.away

    def __add__(self, other: WaveCount) -> WaveCount:
        """Return the devices of both."""
        return WaveCount(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done with a rollout now."""

    action: Action
    reason: str


def judge(plan: Plan, row: DeviceRow, now: float, pins: Sequence[Pin] = ()) -> State | None:
    """Return how far a device is; None: the plan is not for it, or its report contradicts itself.

    Args:
        plan: a rollout.
        row: what is known of the device.
        now: Unix seconds.
        pins: devices that stay where they are, whatever the plan says.
    """
    if not _is_meant(plan, row, pins) or plan.wave_of(row.device) is None:
        return None
    return _state_of(plan, row, now, _unix(plan.approved_at, float("inf")))


def _state_of(plan: Plan, row: DeviceRow, now: float, approved_at: float) -> State:
    return "away" if row.last_seen < approved_at else _progress(plan, row, now)


def _is_meant(plan: Plan, row: DeviceRow, pins: Sequence[Pin]) -> bool:
    report = row.reported
    if (report.device, report.line) != (row.device, row.line) or row.line != plan.release.line:
        return False
    labels = labels_of(row)
    return plan.selects(labels) and not any(pin.selector.matches(labels) for pin in pins)


def _progress(plan: Plan, row: DeviceRow, now: float) -> State:
    report, release = row.reported, plan.release
    tries = (*report.tries, *row.tries)  # the server keeps those that newer reports have no room for
    last = next((one for one in tries if one.release == release.sequence), None)
    if any(one.release == release.sequence for one in report.quarantine) or (last and last.outcome in FAILED):
        return "failed"
    if last is not None and last.outcome == "confirmed":
        return _of_confirmed(release, last, report.running, had_trial=any(_is_trial_of(release, one) for one in tries))
    if not _has_begun(plan, row):
        return "waiting"
    return "silent" if now - row.last_seen > plan.gates.silent_after_s else "in progress"


def _is_trial_of(release: Release, one: Try) -> bool:
    """Return whether a try was a trial of a release's pair, and passed."""
    pair = (one.bundle_id, one.gallery_sequence)
    return one.outcome == "confirmed" and bool(one.trial) and pair == (release.bundle_id, release.gallery_sequence)


def _of_confirmed(release: Release, last: Try, running: Running | None, *, had_trial: bool) -> State:
    wanted = (release.bundle_id, release.gallery_sequence)
    if running is None or any((one.bundle_id, one.gallery_sequence) != wanted for one in (last, running)):
        return "failed"
    if running.release != release.sequence or running.line not in (None, release.line):
        return "failed"
    return "confirmed" if running.trial is None and had_trial else "in progress"


def _has_begun(plan: Plan, row: DeviceRow) -> bool:
    report, number = row.reported, plan.release.sequence
    runs = report.running is not None and report.running.release == number
    return report.target == number or runs or any(one.release == number for one in report.tries)


def why_not_confirmed(plan: Plan, row: DeviceRow) -> str:
    """Return what is wrong with a device that failed or is silent, for people."""
    number = plan.release.sequence
    held = [one.reason for one in row.reported.quarantine if one.release == number]
    tried = [one.reason for one in (*row.reported.tries, *row.tries) if one.release == number and one.reason]
    return next(iter((*held, *tried)), None) or row.reported.reason or f"last in state {row.reported.state}"


def count(plan: Plan, rows: Iterable[DeviceRow], now: float, pins: Sequence[Pin] = ()) -> list[WaveCount]:
    """Return the devices that each wave adds, by how far they are.

    Args:
        plan: a rollout.
        rows: what is known of the devices.
        now: Unix seconds.
        pins: devices that do not count.
    """
    newest: dict[str, DeviceRow] = {}
    for row in rows:
        known = newest.get(row.device)
        if known is None or _age(known) < _age(row):
            newest[row.device] = row
    found = [Counter[str]() for _ in plan.waves]
    approved_at = _unix(plan.approved_at, float("inf"))
    for row in newest.values():
        wave = plan.wave_of(row.device) if _is_meant(plan, row, pins) else None
        if wave is not None:
            found[wave][_state_of(plan, row, now, approved_at)] += 1
    return [_wave_count(one) for one in found]


def _wave_count(states: Counter[str]) -> WaveCount:
    return WaveCount(states.total(), *(states[name.replace("_", " ")] for name in WaveCount.__slots__[1:]))


def _age(row: DeviceRow) -> tuple[float, int, str]:
    return row.last_seen, row.reported.revision, row.model_dump_json()


def opened(plan: Plan, counts: list[WaveCount]) -> WaveCount:
    """Return the devices of all open waves."""
    return sum(counts[: plan.open_waves], WaveCount())


def decide(plan: Plan, counts: list[WaveCount], now: float) -> Decision:
    """Return what is to be done now.

    Args:
        plan: a rollout.
        counts: what `count` says of it.
        now: Unix seconds.
    """
    if plan.state == "paused":
        return Decision("wait", f"paused: {plan.reason}" if plan.reason else "paused")
    if problem := gate_problem(plan, counts):
        return Decision("pause", problem)
    if plan.deadline is not None and now >= _unix(plan.deadline, 0.0):
        return _at_deadline(plan, counts)
    if plan.open_waves == 0:
        return Decision("open", "no wave is open yet")
    if (left := soak_left(plan, now)) > 0:
        return Decision("wait", f"the soak of wave {plan.open_waves} lasts until {_text(now + left)}")
    return _after_soak(plan, counts)


def _at_deadline(plan: Plan, counts: list[WaveCount]) -> Decision:
    missing = _missing(plan, counts)
    if plan.open_waves == len(plan.waves) and missing is None:
        return Decision("complete", "the deadline is over, and the gates hold")
    lacks = missing or f"{plan.open_waves} of {len(plan.waves)} waves are open"
    return Decision("pause", f"the deadline is over: {lacks}")


def _after_soak(plan: Plan, counts: list[WaveCount]) -> Decision:
    missing = _missing(plan, counts)
    if missing is not None:
        return Decision("wait", missing)
    if plan.open_waves < len(plan.waves):
        return Decision("open", f"the gates of wave {plan.open_waves} hold")
    now_open = opened(plan, counts)
    unfinished = now_open.in_progress + now_open.waiting
    if unfinished:
        return Decision("wait", f"{unfinished} devices have not finished yet")
    return Decision("complete", "all known devices finished, and the gates hold")


def decide_blind(plan: Plan, now: float) -> Decision:
    """Return what is to be done if nothing is known of the devices: only the time counts.

    Args:
        plan: a rollout.
        now: Unix seconds.
    """
    if plan.state == "paused":
        return Decision("wait", f"paused: {plan.reason}" if plan.reason else "paused")
    is_last = plan.open_waves == len(plan.waves)
    left = soak_left(plan, now) if plan.open_waves else 0.0
    if left > 0:
        return Decision("wait", f"{BLIND}: the soak of wave {plan.open_waves} lasts until {_text(now + left)}")
    if not is_last:
        if plan.deadline is not None and now >= _unix(plan.deadline, 0.0):
            return Decision("pause", f"the deadline is over: {plan.open_waves} of {len(plan.waves)} waves are open")
        return Decision("open", f"{BLIND}: the soak is over")
    return Decision("complete", f"{BLIND}: the soak of the last wave is over")


def gate_problem(plan: Plan, counts: list[WaveCount]) -> str | None:
    """Return which gate does not hold; None: all do."""
    now_open = opened(plan, counts)
    for verb, number, most in (
        ("failed", now_open.failed, plan.gates.max_failed_percent),
        ("are silent", now_open.silent, plan.gates.max_silent_percent),
    ):
        if number * 100 > most * now_open.counted:
            return f"{number} of {now_open.counted} devices {verb}, more than {most:g} %"
    return None


def soak_left(plan: Plan, now: float) -> float:
    """Return how long the newest open wave must stay open until the next one may open, in seconds."""
    if plan.open_waves == 0:
        return 0.0
    soak_s = plan.waves[plan.open_waves - 1].soak_s
    return max(_unix(plan.opened_at, now) + soak_s - now, 0.0)


def _missing(plan: Plan, counts: list[WaveCount]) -> str | None:
    """Return why not enough devices confirmed; None: they did."""
    if plan.open_waves == 0:
        return None
    now_open, needed = opened(plan, counts), plan.waves[plan.open_waves - 1].min_confirmed
    if now_open.confirmed >= needed:
        return None
    if now_open.devices < needed:
        return (
            f"{now_open.confirmed} devices confirmed, {needed} must, and the open waves have only "
            f"{now_open.devices} known devices; wait for more, or open the next wave yourself: edge-sync rollout next"
        )
    away = f" ({now_open.away} away)" if now_open.away else ""
    return f"{now_open.confirmed} of {now_open.devices} devices confirmed{away}, {needed} must"


def _text(moment: float) -> str:
    return write_time(datetime.fromtimestamp(moment, timezone.utc))


def _unix(text: str | None, otherwise: float) -> float:
    moment: datetime | None = read_time(text)
    return otherwise if moment is None else moment.timestamp()
