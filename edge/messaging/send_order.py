"""The order in which messages of the outbox are sent.

Rules:
1. Of the messages that waited for the connection, new and end events go first: updates only refine them.
2. Messages put since then go in their order once that backlog is sent; but new and end events do not wait for old
   updates.
3. Each message is returned once.
"""

from __future__ import annotations

from typing import Protocol

from edge.messaging.outbox_file import OutboxMessage

_URGENT, _UPDATE = (1, 2), 0  # new and end; update: see edge.messaging.payload.priority_of


class Queue(Protocol):
    """The part of an outbox that is used here."""

    def pending(self, limit: int, after: int = 0, priority: int | None = None) -> list[OutboxMessage]:
        """Return the oldest messages above a sequence."""
        ...


class SendOrder:
    """Orders the messages of one connection."""

    def __init__(self, queue: Queue, up_to: int) -> None:
        """Start with the messages that already wait.

        Args:
            queue: the outbox.
            up_to: sequence of the last message put before the connection was made.
        """
        self._queue, self._up_to = queue, up_to
        self._urgent_up_to = self._updates_up_to = 0  # returned so far
        self._live_after: int | None = None if up_to else 0  # None until the backlog is sent

    def next_messages(self, limit: int) -> list[OutboxMessage]:
        """Return up to about `limit` messages to send next; none when all were returned."""
        if self._live_after is None:
            if urgent := self._urgent(limit):
                self._urgent_up_to = urgent[-1].sequence
                return urgent
            updates = self._queue.pending(limit, self._updates_up_to, _UPDATE)
            if old := [message for message in updates if message.sequence <= self._up_to]:
                self._updates_up_to = old[-1].sequence
                return old
            self._live_after = self._up_to
        return self._live(self._live_after, limit)

    def _urgent(self, limit: int) -> list[OutboxMessage]:
        # one query per priority, because the outbox has an index for it; merged so that a `new` goes before its `end`
        found = [message for p in _URGENT for message in self._queue.pending(limit, self._urgent_up_to, p)]
        return sorted(found, key=lambda message: message.sequence)[:limit]

    def _live(self, after: int, limit: int) -> list[OutboxMessage]:
        # at most `limit` urgent messages that overtook old updates still wait for their acknowledgement
        found = self._queue.pending(2 * limit, after)
        if found:
            self._live_after = found[-1].sequence
        return [m for m in found if m.priority not in _URGENT or m.sequence > self._urgent_up_to]
