"""Moves a rollout on: looks at the devices, and opens the next wave, pauses or completes.

Rules this module keeps:
1. One look is one decision at most, of `gates`, and one signed change. Nothing is remembered between looks: a process
   that is killed at any place goes on from the signed document.
2. Where the devices cannot be looked at, nothing opens. Only those of open waves are looked at: `decide` goes by them.
3. What was decided for a revision is done for that revision only, see gallery_sync.rollouts.changes.
4. A look that fails is counted and reported like every other one; the next one tries again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from edge.errors import SyncError
from gallery_sync.formats.rollouts import Pin, Plan
from gallery_sync.repository.keys import KeyRing
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.published import read_published
from gallery_sync.rollouts import changes
from gallery_sync.rollouts.changes import ChangedError, Desk
from gallery_sync.rollouts.fleet import Fleet
from gallery_sync.rollouts.gates import Decision, count, decide, decide_blind

NAME = "controller"


@dataclass(frozen=True, slots=True)
class Look:
    """What the controller saw and did."""

    rollout: str | None  # None: none is under way
    did: str  # idle, wait, open, pause, complete, unreachable, changed or failed
    reason: str
    draft: Path | None = None  # waits for signatures
    is_paused: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether nothing goes on by itself any more."""
        return self.is_paused or self.did in ("idle", "complete", "pause")


@dataclass(slots=True)
class Controller:
    """Moves the rollouts of one repository on."""

    repo: Path
    keys: Callable[[], KeyRing]  # read again at each change: they may be rotated
    fleet: Fleet | None  # None: blind
    now: Callable[[], datetime]  # UTC
    counters: Counter[str] = field(default_factory=Counter)  # looks by what was done, and rows that were unreadable

    def look(self) -> Look:
        """Look at the devices once, and do what follows."""
        try:
            found = self._look()
        except ChangedError as error:
            found = Look(None, "changed", str(error))
        except SyncError as error:
            found = Look(None, "failed", str(error))
        self.counters[found.did] += 1
        return found

    def _look(self) -> Look:
        published = read_published(self.repo, SignedMetadata.open(self.repo))
        rollouts = published.rollouts
        if rollouts is None or rollouts.plan is None:
            return Look(None, "idle", "no rollout is under way")
        plan = rollouts.plan
        if plan.state == "paused":
            return Look(plan.id, "wait", f"paused: {plan.reason or 'no reason was given'}", is_paused=True)
        try:
            decision = self._decide(plan, rollouts.pins)
        except SyncError as error:
            return Look(plan.id, "unreachable", f"nothing opens until the devices can be looked at: {error}")
        return self._do(plan, decision, rollouts.revision)

    def _decide(self, plan: Plan, pins: Sequence[Pin]) -> Decision:
        if self.fleet is None:
            return decide_blind(plan, self.now().timestamp())
        found = self.fleet.rows(plan.release.line, plan.release, plan.open_buckets())
        self.counters["unreadable rows"] += found.unreadable
        now = self.now().timestamp()
        return decide(plan, count(plan, found.rows, now, pins), now)

    def _do(self, plan: Plan, decision: Decision, revision: int) -> Look:
        if decision.action == "wait":
            return Look(plan.id, "wait", decision.reason)
        desk = Desk(self.repo, self.keys(), NAME, self.now())
        if decision.action == "open":
            done = changes.open_next(desk, expected=revision, reason=decision.reason)
        elif decision.action == "pause":
            done = changes.pause(desk, decision.reason, expected=revision)
        else:
            done = changes.complete(desk, expected=revision, reason=decision.reason)
        return Look(plan.id, decision.action, decision.reason, done.draft)

    def run(self, say: Callable[[Look], None], wait: Callable[[], None], *, until_end: bool = False) -> Look:
        """Look again and again, until interrupted.

        Args:
            say: called with each look that differs from the one before.
            wait: until the next look.
            until_end: return when no rollout goes on any more: it is complete, paused, or gone.

        Returns:
            The last look.
        """
        last: Look | None = None
        while True:
            found = self.look()
            if found != last:
                say(found)
            last = found
            if until_end and found.has_ended:
                return found
            wait()
