"""The order in which waiting messages go to the broker.

Rules:
1. Of what waited for the connection, new and end events go first: they say what is there, updates say it better.
2. What came in since then goes in the order of its coming, once the backlog is through; but a new or an end event does
   not wait for old updates.
3. Each message is given out once.
"""

from __future__ import annotations

from typing import Protocol

from edge.messaging.outbox_file import Waiting

_URGENT, _PATIENT = (1, 2), 0  # new and end, update: edge.messaging.payload.priority_of


class Queue(Protocol):
    """What is asked of an outbox."""

    def pending(self, limit: int, after: int = 0, priority: int | None = None) -> list[Waiting]:
        """The oldest messages above a sequence."""
        ...


class Backlog:
    """What waits, for one connection."""

    def __init__(self, queue: Queue, up_to: int) -> None:
        """Begin with what is there.

        Args:
            queue: the outbox.
            up_to: the sequence of the last message that waited before the connection stood.
        """
        self._queue, self._up_to = queue, up_to
        self._urgent_up_to = self._patient_up_to = 0  # given out so far
        self._live_after: int | None = None if up_to else 0  # None while the backlog lasts

    def next(self, limit: int) -> list[Waiting]:
        """The next messages to send, about so many; none when all were given out."""
        if self._live_after is None:
            if urgent := self._urgent(limit):
                self._urgent_up_to = urgent[-1].sequence
                return urgent
            patient = self._queue.pending(limit, self._patient_up_to, _PATIENT)
            if old := [message for message in patient if message.sequence <= self._up_to]:
                self._patient_up_to = old[-1].sequence
                return old
            self._live_after = self._up_to
        return self._live(self._live_after, limit)

    def _urgent(self, limit: int) -> list[Waiting]:
        # by priority, for which the outbox has an index, and merged: a `new` goes before its `end`
        found = [message for p in _URGENT for message in self._queue.pending(limit, self._urgent_up_to, p)]
        return sorted(found, key=lambda message: message.sequence)[:limit]

    def _live(self, after: int, limit: int) -> list[Waiting]:
        # urgent ones that overtook old updates still wait for their acknowledgement, at most `limit` of them
        found = self._queue.pending(2 * limit, after)
        if found:
            self._live_after = found[-1].sequence
        return [m for m in found if m.priority not in _URGENT or m.sequence > self._urgent_up_to]
