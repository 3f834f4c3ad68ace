"""Looks at the repository: applies urgent deletions first, and finds the release that this device takes.

Rules this module keeps:
1. Where nothing changed since the last complete check, one small request says so.
2. A check that fails changes nothing of what is known; it says why, once in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge.errors import FinesightError, one_line
from gallery_sync.agent.doors import Steps, World
from gallery_sync.agent.journal import Journal
from gallery_sync.agent.machine import DONE, Outcome, Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A release that this device must not run."""

    release: Target | None  # None: it is not known which
    reason: str
    at: float  # Unix seconds: since when


@dataclass(frozen=True, slots=True)
class Known:
    """What the last complete check found."""

    wanted: Target | None = None
    refusal: Refusal | None = None
    stays: bool = False  # it takes no release: it stays at the one that it has
    waits: str | None = None  # why it does not take what other devices take
    complete: bool = False  # nothing of it is left to do
    problem: str | None = None  # why the last check was not complete
    served: tuple[str | None, int | None] = (None, None)  # line and release that were active then


class Check:
    """Looks at the repository of one device, now and then."""

    def __init__(self, steps: Steps, journal: Journal, world: World, poll_s: float) -> None:
        """Know nothing yet.

        Args:
            steps: doors to the device and its repository.
            journal: takes the receipts of urgent deletions.
            world: clocks.
            poll_s: how often to look, in seconds.
        """
        self._steps, self._journal, self._world, self._poll_s = steps, journal, world, poll_s
        self.known = Known()
        self.erased = False  # an urgent deletion changed what was prepared
        self._checked_s: float | None = None  # monotonic: the last check

    @property
    def is_due(self) -> bool:
        """Whether it is time to look."""
        since_s = self._checked_s
        return since_s is None or self._world.monotonic() - since_s >= self._poll_s

    def hurry(self) -> None:
        """Have it be time to look: something new is in the repository."""
        self._checked_s = None

    def look(self, begun: int, checked: Callable[[float], None]) -> Outcome:
        """Look at the repository.

        Args:
            begun: sequence number of the release of which a try is under way; 0: none.
            checked: is called with the time of a check that succeeded, in Unix seconds.
        """
        self._checked_s = self._world.monotonic()
        try:
            self._look(begun)
        except FinesightError as error:
            reason = one_line(str(error))
            if reason != self.known.problem:
                log.warning("%s", reason)
            self.known = replace(self.known, complete=False, problem=reason)
            return Outcome("later", reason)
        checked(self._world.now())
        refusal = self.known.refusal
        return Outcome("later", refusal.reason) if refusal else DONE

    def _look(self, begun: int) -> None:
        known, refusal = self.known, self.known.refusal
        if known.complete and not self._has_moved(known) and self._steps.unchanged():
            self.known = replace(known, problem=refusal.reason if refusal else None)
            return
        read = self._steps.read(begun)
        if read.refused and (refusal is None or refusal.reason != read.refused):
            log.warning("%s", read.refused)
            refusal = Refusal(read.refused_release, read.refused, self._world.now())
        if read.waits and read.waits != known.waits:
            log.info("%s", read.waits)
        self.known = Known(
            read.wanted,
            refusal if read.refused else None,
            stays=read.wanted is None and read.refused is None,
            waits=read.waits,
            problem=read.refused,
            served=self._serving(),
        )
        erased = self._steps.erase()
        if erased.receipts:
            self._journal.add_receipts(erased.receipts)
            log.info("%d urgent deletions are applied", len(erased.receipts))
        self.erased = self.erased or erased.changed
        self.known = replace(self.known, complete=True)

    def _has_moved(self, known: Known) -> bool:
        """Return whether the choice may be another one, because another release is active than when it was made."""
        return known.wanted is not None and known.wanted.plan is not None and known.served != self._serving()

    def _serving(self) -> tuple[str | None, int | None]:
        serving = self._steps.serving()
        return serving.line, serving.sequence
