"""The messages of an outbox that are not on disk yet: some wait for the writer, some are being written.

Rules:
1. What waits is bounded. The lowest priority goes first, the oldest of it.
2. What is being written is never dropped, for nobody can say yet whether it is lost: it comes on top of the bound, and
   is itself no more than that. When the disk refuses, it waits again, before all that came since.
3. A message costs the same however many wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain

from edge.messaging.outbox_file import Waiting


class OutboxMemory:
    """Messages by event id; its owner sees to it that one thread at a time is here."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._queues: dict[int, OrderedDict[str, Waiting]] = {}  # what waits: by priority, and in the order of coming
        self._waiting_bytes = 0
        self._writing: dict[str, Waiting] = {}

    def __len__(self) -> int:
        return len(self._writing) + sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[Waiting]:
        return chain(self._writing.values(), *(queue.values() for queue in self._queues.values()))

    def find(self, event_id: str) -> Waiting | None:
        """The message of an id."""
        found = (queue.get(event_id) for queue in (self._writing, *self._queues.values()))
        return next(filter(None, found), None)

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return self._waiting_bytes + sum(message.size for message in self._writing.values())

    def put(self, message: Waiting) -> list[Waiting]:
        """Let a message wait; those that had to go."""
        self._queues.setdefault(message.priority, OrderedDict())[message.event_id] = message
        self._waiting_bytes += message.size
        return self._drop_excess()

    def forget(self, event_id: str) -> None:
        """Let go of a message, if it is here."""
        self._writing.pop(event_id, None)
        for queue in self._queues.values():
            if (message := queue.pop(event_id, None)) is not None:
                self._waiting_bytes -= message.size

    def take(self) -> list[Waiting]:
        """All that wait, in the order of their coming; from now on they are being written."""
        taken = sorted(self, key=lambda message: message.sequence)
        self._writing = {message.event_id: message for message in taken}
        self._queues, self._waiting_bytes = {}, 0
        return taken

    def written(self) -> None:
        """The disk has what was being written."""
        self._writing = {}

    def refused(self) -> list[Waiting]:
        """The disk has not got it; what no longer fits."""
        for message in reversed(self._writing.values()):
            queue = self._queues.setdefault(message.priority, OrderedDict())
            queue[message.event_id] = message
            queue.move_to_end(message.event_id, last=False)
            self._waiting_bytes += message.size
        self._writing = {}
        return self._drop_excess()

    def _drop_excess(self) -> list[Waiting]:
        dropped = []
        while self._waiting_bytes > self._max_bytes:
            lowest = min(priority for priority, queue in self._queues.items() if queue)
            _, message = self._queues[lowest].popitem(last=False)
            self._waiting_bytes -= message.size
            dropped.append(message)
        return dropped
