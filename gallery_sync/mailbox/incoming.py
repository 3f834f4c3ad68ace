"""What arrived and nobody took yet: the doorbell, the turn, commands. Filled by one thread, emptied by another.

Rules this module keeps:
1. A doorbell that is not above the last one changes nothing, also after a restart. However many ring, `rang` is true at
   most once in `doorbell_every_s`, a random moment after the first.
2. A turn is kept in memory alone, and each connection begins without one: a retained turn arrives again.
3. Commands wait, a bounded number; more than one a second is a flood.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edge.messaging.settings import ReceivedMessage
from edge.telemetry.counters import Counters
from gallery_sync.formats.reports import Turn
from gallery_sync.mailbox.messages import CommandMessage, Ignored, Ring, Topics, TurnChange, read_message
from gallery_sync.mailbox.numbers import Numbers
from gallery_sync.mailbox.settings import Fleet

MOST_COMMANDS = 32  # at once
_COMMANDS_PER_S = 1.0  # on average


@dataclass(frozen=True, slots=True)
class Chance:
    """Clocks and chance."""

    now: Callable[[], float] = time.time  # Unix seconds
    clock: Callable[[], float] = time.monotonic
    random: random.Random = field(default_factory=random.Random)


class Incoming:
    """What arrived for one device."""

    def __init__(self, topics: Topics, numbers: Numbers, fleet: Fleet, counters: Counters, chance: Chance) -> None:
        """Have nothing.

        Args:
            topics: of the device.
            numbers: remember the last doorbell.
            fleet: how often to listen to the doorbell.
            counters: `doorbells`, `messages_ignored`.
            chance: clocks and chance.
        """
        self._topics, self._numbers, self._fleet = topics, numbers, fleet
        self._counters, self._chance = counters, chance
        self._changed = threading.Condition()  # guards what follows
        self._commands: deque[CommandMessage] = deque()
        self._credit, self._credited_at = float(MOST_COMMANDS), chance.clock()  # of commands
        self._turn: Turn | None = None
        self._ring: Ring | None = None  # the highest that waits
        self._ring_at: float | None = None  # monotonic: when `rang` becomes true; None: nothing rings
        self._rang_at: float | None = None  # monotonic: the last one
        self._has_news = False

    # for the agent

    def wait(self, wait_s: float) -> None:
        """Wait, or until something arrives."""
        clock = self._chance.clock
        until = clock() + wait_s
        with self._changed:
            while not self._has_news:
                now = clock()
                if self._ring_at is not None and self._ring_at <= now:
                    break
                left_s = (until if self._ring_at is None else min(until, self._ring_at)) - now
                if left_s <= 0:
                    return
                self._changed.wait(left_s)
            self._has_news = False

    def nudge(self) -> None:
        """End a wait; from any thread."""
        with self._changed:
            self._note_news()

    def rang(self) -> bool:
        """Return whether the doorbell rang since the last call."""
        with self._changed:
            now = self._chance.clock()
            if self._ring_at is None or self._ring_at > now:
                return False
            ring, self._ring, self._ring_at, self._rang_at = self._ring, None, None, now
        if ring is not None:
            self._numbers.note_doorbell(ring.revision)
        return True

    def ring(self) -> None:
        """Have `rang` be true at once, as for a command."""
        with self._changed:
            self._ring_at = self._chance.clock()
            self._note_news()

    def has_turn(self, sequence: int, plan: str | None) -> bool:
        """Return whether this device has a turn for a release of a plan."""
        turn = self._turn
        return turn is not None and turn.release == sequence and plan in (None, turn.plan)

    def take_commands(self) -> list[CommandMessage]:
        """Return the commands that arrived since the last call."""
        with self._changed:
            taken = list(self._commands)
            self._commands.clear()
        return taken

    # for the thread of the connection

    def forget_turn(self) -> None:
        """Begin without a turn."""
        self._turn = None

    def receive(self, message: ReceivedMessage) -> None:
        """Keep what a message brings, or count why it is ignored."""
        found = read_message(message, self._topics)
        with self._changed:
            if isinstance(found, Ring):
                self._on_ring(found)
            elif isinstance(found, TurnChange):
                self._turn = found.turn
                self._note_news()
            elif isinstance(found, CommandMessage):
                self._on_command(found)
            else:
                self._ignore(found)

    def _note_news(self) -> None:
        self._has_news = True
        self._changed.notify_all()

    def _ignore(self, ignored: Ignored) -> None:
        self._counters.add("messages_ignored", reason=ignored.reason)

    def _on_ring(self, ring: Ring) -> None:
        if ring.revision <= max(self._numbers.rang, self._ring.revision if self._ring else 0):
            self._ignore(Ignored("old"))
            return
        self._counters.add("doorbells")
        self._ring = ring
        if self._ring_at is None:
            soon = self._chance.clock() + self._chance.random.random() * self._fleet.spread_s
            again = soon if self._rang_at is None else self._rang_at + self._fleet.doorbell_every_s
            self._ring_at = max(soon, again)
        self._changed.notify_all()

    def _on_command(self, command: CommandMessage) -> None:
        now = self._chance.clock()
        earned = (now - self._credited_at) * _COMMANDS_PER_S
        self._credit, self._credited_at = min(self._credit + earned, float(MOST_COMMANDS)), now
        if len(self._commands) >= MOST_COMMANDS or self._credit < 1.0:
            self._ignore(Ignored("too_many"))
            return
        self._credit -= 1.0
        self._commands.append(command)
        self._note_news()
