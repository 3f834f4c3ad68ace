"""The thread that rings the doorbell when the repository changes, and gives turns.

Rules this module keeps:
1. The number on the doorbell never falls, also after a restart and with a repository that was restored from a backup.
2. A turn is stored before it is published, so that a server that starts again knows who may be switching.
3. While the repository cannot be read, no turn is given or ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from edge.errors import FinesightError
from edge.types import Counts
from gallery_sync.collector import records
from gallery_sync.collector.database import Database
from gallery_sync.collector.queries import find_members
from gallery_sync.collector.turns import Turns, next_turns
from gallery_sync.collector.writer import Writer
from gallery_sync.formats.fields import canonical_json
from gallery_sync.formats.reports import PREFIX, Desired, Turn, device_topic, line_topic
from gallery_sync.formats.rollouts import Plan

log = logging.getLogger(__name__)

STEP_S = 1.0
_LOG_INTERVAL_S = 600.0


class Watch(Protocol):
    """The repository, as this thread sees it."""

    interval_s: float

    @property
    def line(self) -> str:
        """The product line."""
        ...

    def version(self) -> int:
        """Return the version of the timestamp."""
        ...

    def plan(self) -> Plan | None:
        """Return the plan that is under way."""
        ...


Retain = Callable[[str, bytes], None]  # see BrokerLink.retain


class WakeUps:
    """Rings and gives turns; `run` is the target of its thread."""

    def __init__(
        self,
        watch: Watch,
        database: Database,
        writer: Writer,
        retain: Retain,
        counters: Counts,
        *,
        prefix: str = PREFIX,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            watch: the repository.
            database: to read who waits.
            writer: stores turns and the number on the doorbell.
            retain: publishes a retained message.
            counters: counts rings, turns and failures.
            prefix: of the fleet's topics.
            now: Unix seconds.
            clock: monotonic seconds.
        """
        self._watch, self._database, self._writer = watch, database, writer
        self._retain, self._counters, self._prefix = retain, counters, prefix
        self._now, self._clock = now, clock
        self._stop = threading.Event()
        self._rung: int | None = None
        self._look_at = self._logged_at = -1e9
        self._restored = False
        self._plan: tuple[str, Plan | None] | None = None  # line and plan; None: the last look failed
        self.held: dict[str, int] = {}  # devices that wait for a turn, by the value of their label

    def run(self) -> None:
        """Look and act until `stop`."""
        while not self._stop.wait(STEP_S):
            self.step()

    def stop(self) -> None:
        """Make `run` return."""
        self._stop.set()

    def step(self) -> None:
        """Look at the repository if it is time, then give and end turns."""
        try:
            if self._clock() - self._look_at >= self._watch.interval_s:
                self._look_at = self._clock()
                self._plan = None
                self._look()
            if self._plan is not None:
                self._give_turns(*self._plan)
        except FinesightError as error:
            self._counters.add("wake_up_failures")
            if self._clock() - self._logged_at >= _LOG_INTERVAL_S:
                self._logged_at = self._clock()
                log.warning("cannot wake devices: %s", error)

    def _look(self) -> None:
        version, line = self._watch.version(), self._watch.line
        if version != self._rung:
            key = f"rung:{line}"
            number = self._writer.call(lambda db: records.raise_number(db, key, version))
            if number > version:
                log.warning("the repository is at version %d, but devices were woken for %d", version, number)
            desired = Desired(line=line, revision=number)
            self._retain(line_topic(line, self._prefix), canonical_json(desired))
            self._counters.add("rings")
            self._rung = version
        self._plan = line, self._watch.plan()

    def _give_turns(self, line: str, plan: Plan | None) -> None:
        with self._database.reading() as db:
            members = find_members(db, line, plan.unavailable_by if plan else "site")
        if not self._restored:
            for one in members:
                if one.turn is not None:
                    self._publish(one.device, _turn(one.device, one.turn))
            self._restored = True
        turns = next_turns(plan, members, self._now())
        self.held = dict(turns.held)
        if turns.end or turns.give:
            self._change(turns, plan)

    def _change(self, turns: Turns, plan: Plan | None) -> None:
        mark = (plan.release.sequence, plan.id) if plan else (0, "")  # without a plan, turns only end
        now = self._now()
        self._writer.call(lambda db: records.change_turns(db, turns.end, turns.give, mark, now))
        for member in turns.end:
            self._counters.add("turns_ended")
            self._publish(member.device, b"")
        for member in turns.give:
            self._counters.add("turns_given")
            self._publish(member.device, _turn(member.device, mark))
            log.info("device %s may switch to release %d", member.device, mark[0])

    def _publish(self, device: str, payload: bytes) -> None:
        self._retain(device_topic(device, "desired", self._prefix), payload)


def _turn(device: str, mark: tuple[int, str]) -> bytes:
    return canonical_json(Turn(device=device, release=mark[0], plan=mark[1]))
