"""Which devices may switch now, where a plan limits how many of a group are unavailable at a time. Pure decisions.

Rules this module keeps:
1. Among the devices with the same value of the plan's label, a turn is given only while fewer than `max_unavailable`
   are unavailable: switching or on trial, waiting for the outcome of a turn, not connected, or silent.
2. A turn ends with the outcome of a try of its release, with its plan, or after TURN_S if the device does not switch.
3. A device that has a turn counts as unavailable until its report shows the outcome: a lost report holds turns back,
   and never gives one too many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gallery_sync.formats.rollouts import Plan

TURN_S = 3600.0  # that a device has for its switch
SWITCHING = frozenset({"switch", "trial", "confirm", "rollback"})  # states of the agent, see gallery_sync.agent.machine


@dataclass(frozen=True, slots=True)
class Member:
    """A device, as turns see it."""

    device: str
    value: str | None  # of the label that its group shares
    state: str  # of its agent
    running: int | None = None  # release
    on_trial: bool = False
    target: int | None = None
    waits: bool = False  # for a turn
    available: bool | None = None
    last_seen: float = 0.0  # Unix seconds
    turn: tuple[int, str] | None = None  # release and plan of the turn that it has
    given_at: float | None = None
    before: str | None = None  # the newest try of that release when the turn was given
    tries: tuple[tuple[int, str], ...] = ()  # release, and what tells a try from others; the newest first

    def newest_try(self, release: int) -> str | None:
        """Return what tells the newest try of a release from others; None: there was none."""
        return next((mark for tried, mark in self.tries if tried == release), None)


@dataclass(frozen=True, slots=True)
class Turns:
    """What changes."""

    give: tuple[Member, ...] = ()
    end: tuple[Member, ...] = ()
    held: Mapping[str, int] = field(default_factory=dict)  # devices that go on waiting, by the value of their label


def next_turns(plan: Plan | None, members: Iterable[Member], now: float) -> Turns:
    """Return which turns begin and which end.

    Args:
        plan: of the line; None: there is none any more.
        members: the devices of each group that has a device which waits or has a turn.
        now: Unix seconds.
    """
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(member.value or "", []).append(member)
    ended, given, held = [], [], {}
    for value, group in groups.items():
        over = [one for one in group if one.turn is not None and _is_over(one, plan, now)]
        ended += over
        if plan is None or plan.max_unavailable is None or plan.state != "running":
            continue
        gone = {one.device for one in over}
        holding = [one for one in group if one.turn is not None and one.device not in gone]
        down = {one.device for one in group if _is_unavailable(one, plan, now)} | {one.device for one in holding}
        waiting = sorted(
            (one for one in group if one.waits and one.target == plan.release.sequence and one.turn is None),
            key=lambda one: (plan.bucket(one.device), one.device),
        )
        # a device that waits while it is unavailable itself gets its turn once it is available
        free = max(0, plan.max_unavailable - len(down))
        able = [one for one in waiting if one.device not in down]
        given += able[:free]
        if left := len(waiting) - len(able[:free]):
            held[value] = left
    return Turns(tuple(given), tuple(ended), held)


def _is_over(member: Member, plan: Plan | None, now: float) -> bool:
    if plan is None or member.turn != (plan.release.sequence, plan.id):
        return True
    if plan.max_unavailable is None:
        return True
    release = plan.release.sequence
    if member.on_trial or member.state in SWITCHING:
        return False
    if member.running == release or member.newest_try(release) != member.before:
        return True
    return member.given_at is not None and not 0 <= now - member.given_at < TURN_S


def _is_unavailable(member: Member, plan: Plan, now: float) -> bool:
    is_silent = member.available is not True and now - member.last_seen > plan.gates.silent_after_s
    return member.on_trial or member.state in SWITCHING or member.available is False or is_silent
