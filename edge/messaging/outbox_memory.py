"""The messages of an outbox that are not on disk yet: waiting for the writer, or being written.

Rules:
1. Waiting messages are bounded. The oldest of the lowest priority is dropped first.
2. A message being written is never dropped, since it may reach the disk. Those messages are extra to the bound, and at
   most as large. When writing fails they wait again, before all newer messages.
3. The cost of a message does not depend on how many wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from edge.messaging.outbox_file import OutboxMessage


class OutboxMemory:
    """Messages by event id; not thread-safe, the owner holds a lock."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._queues: dict[int, OrderedDict[str, OutboxMessage]] = {}  # waiting, by priority, in the order put
        self._waiting_bytes = 0
        self._writing: dict[str, OutboxMessage] = {}

    def __len__(self) -> int:
        return len(self._writing) + sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[OutboxMessage]:
        return chain(self._writing.values(), *(queue.values() for queue in self._queues.values()))

    def find(self, event_id: str) -> OutboxMessage | None:
        """Return the message with this id, if any."""
        found = (queue.get(event_id) for queue in (self._writing, *self._queues.values()))
        return next(filter(None, found), None)

    @property
    def size(self) -> int:
        """Bytes of all messages."""
        return self._waiting_bytes + sum(message.size for message in self._writing.values())

    def put(self, message: OutboxMessage) -> list[OutboxMessage]:
        """Add a message; return the messages dropped for it."""
        self._queues.setdefault(message.priority, OrderedDict())[message.event_id] = message
        self._waiting_bytes += message.size
        return self._drop_excess()

    def discard(self, event_id: str) -> None:
        """Remove a message, if it is here."""
        self._writing.pop(event_id, None)
        for queue in self._queues.values():
            if (message := queue.pop(event_id, None)) is not None:
                self._waiting_bytes -= message.size

    def renumber(self, offset: int) -> None:
        """Add to the sequence of every message."""

        def renumbered(message: OutboxMessage) -> OutboxMessage:
            return replace(message, sequence=message.sequence + offset)

        self._writing = {key: renumbered(message) for key, message in self._writing.items()}
        for queue in self._queues.values():
            for key, message in queue.items():
                queue[key] = renumbered(message)

    def start_writing(self) -> list[OutboxMessage]:
        """Return all messages in order, and mark them as being written."""
        taken = sorted(self, key=lambda message: message.sequence)
        self._writing = {message.event_id: message for message in taken}
        self._queues, self._waiting_bytes = {}, 0
        return taken

    def finish_writing(self) -> None:
        """Remove the messages being written: they are on disk."""
        self._writing = {}

    def fail_writing(self) -> list[OutboxMessage]:
        """Let the messages being written wait again; return those dropped because they no longer fit."""
        for message in reversed(self._writing.values()):
            queue = self._queues.setdefault(message.priority, OrderedDict())
            queue[message.event_id] = message
            queue.move_to_end(message.event_id, last=False)
            self._waiting_bytes += message.size
        self._writing = {}
        return self._drop_excess()

    def _drop_excess(self) -> list[OutboxMessage]:
        dropped = []
        while self._waiting_bytes > self._max_bytes:
            lowest = min(priority for priority, queue in self._queues.items() if queue)
            _, message = self._queues[lowest].popitem(last=False)
            self._waiting_bytes -= message.size
            dropped.append(message)
        return dropped
