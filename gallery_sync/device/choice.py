"""Which release a device takes: the base of its line, or what the line's rollouts say of it. Pure.

Rules this module keeps:
1. The same documents, device and time give the same choice, on any machine.
2. A device is never sent below what it has. One that has a candidate keeps it, whatever becomes of the plan, until a
   newer release comes.
3. Nobody takes a candidate but the devices that the plan selects, in waves that are open, while the plan runs.
4. A pin wins over everything, and the first pin that matches counts.
5. A device that is not enrolled follows the base alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from gallery_sync.formats.documents import Release
from gallery_sync.formats.rollouts import Pin, Plan, Rollouts
from gallery_sync.trust.clock import read_time


@dataclass(frozen=True, slots=True)
class Choice:
    """What a device should run."""

    release: Release | None  # None: it stays where it is, or the line has no release
    plan: Plan | None = None  # that brings the release, and is under way
    reason: str | None = None  # why it is not what others take


def choose(
    base: Release | None,
    rollouts: Rollouts | None,
    labels: Mapping[str, str],
    device_id: str | None,
    known_sequence: int,
    now: datetime,
    begun: int = 0,
) -> Choice:
    """Return which release a device takes.

    Args:
        base: what every device of the line may run; None: there is none yet.
        rollouts: of the line; None: there are none.
        labels: of the device, see `Enrolment.all_labels`.
        device_id: None: the device is not enrolled.
        known_sequence: of the release that the device runs; 0: none.
        now: for the deadline of a plan.
        begun: sequence number of the release that the device is preparing; a deadline does not stop it. 0: none.
    """
    if rollouts is None or device_id is None:
        return _at_least(known_sequence, Choice(base), base, rollouts)
    pin = next((one for one in rollouts.pins if one.selector.matches(labels)), None)
    if pin is not None:
        return _pinned(pin, known_sequence, base, rollouts)
    best = _best(base, rollouts, labels)
    choice, plan = Choice(best), rollouts.plan
    if plan is not None and plan.release.sequence > _number(best):
        choice = _by_plan(plan, best, labels, device_id, known_sequence, now, begun)
    return _at_least(known_sequence, choice, base, rollouts)


def _pinned(pin: Pin, known_sequence: int, base: Release | None, rollouts: Rollouts) -> Choice:
    reason = f"pinned at release {pin.release.sequence}"
    if pin.release.sequence < known_sequence:
        reason += f"; it has release {known_sequence}, which is newer, and stays there"
        return Choice(_find(known_sequence, base, rollouts), None, reason)
    return Choice(pin.release, None, reason)


def _best(base: Release | None, rollouts: Rollouts, labels: Mapping[str, str]) -> Release | None:
    """Return the newest release that the device may take without a plan."""
    found = [one.release for one in rollouts.groups if one.selects(labels)]
    return max([*([base] if base else []), *found], key=_number, default=None)


def _by_plan(
    plan: Plan,
    best: Release | None,
    labels: Mapping[str, str],
    device_id: str,
    known_sequence: int,
    now: datetime,
    begun: int,
) -> Choice:
    candidate = plan.release
    if known_sequence == candidate.sequence:
        return Choice(candidate, plan)
    if not plan.selects(labels):
        return Choice(best)
    reason = why_not_begin(plan, device_id, now, has_begun=begun == candidate.sequence)
    return Choice(candidate, plan) if reason is None else Choice(best, None, reason)


def why_not_begin(plan: Plan, device_id: str, now: datetime, *, has_begun: bool = False) -> str | None:
    """Return why a device that a plan selects may not take its candidate now; None if it may.

    Args:
        plan: that selects it.
        device_id: of the device.
        now: for the deadline.
        has_begun: it is preparing the candidate already.
    """
    if plan.state == "paused":
        return f"rollout {plan.id} is paused" + (f": {plan.reason}" if plan.reason else "")
    wave = plan.wave_of(device_id)
    if wave is None:
        return f"this device is in no wave of rollout {plan.id}"
    if wave >= plan.open_waves:
        return f"wave {wave + 1} of {len(plan.waves)} of rollout {plan.id} is not open yet"
    if not has_begun and is_over(plan.deadline, now):
        return f"the deadline of rollout {plan.id} is over"
    return None


def is_over(deadline: str | None, now: datetime) -> bool:
    """Return whether a deadline is over; None: there is none. One that cannot be read is over."""
    if deadline is None:
        return False
    end = read_time(deadline)
    return end is None or now > end


def _at_least(known_sequence: int, choice: Choice, base: Release | None, rollouts: Rollouts | None) -> Choice:
    """Return a choice that does not send the device below what it has."""
    if _number(choice.release) >= known_sequence:
        return choice
    stays = f"it has release {known_sequence}, which is newer than what it should take, and stays there"
    return Choice(_find(known_sequence, base, rollouts), None, choice.reason or stays)


def _find(sequence: int, base: Release | None, rollouts: Rollouts | None) -> Release | None:
    """Return the signed release of a number; None if it is not signed any more."""
    signed = [*([base] if base else []), *(rollouts.releases() if rollouts else [])]
    return next((one for one in signed if one.sequence == sequence), None)


def _number(release: Release | None) -> int:
    return release.sequence if release else 0
