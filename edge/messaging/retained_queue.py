"""The queue of outgoing messages that are not events: device state, replies and the Frigate mirror.

Rules:
1. For each topic only the latest message counts. A retained one is sent again on every connection; an empty one,
   which clears the topic, until the broker has acknowledged it.
2. Other messages are sent only while connected; otherwise they are dropped and counted.
3. Any thread may put messages; only the publisher thread takes them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edge.telemetry.counters import Counters

_MAX_ONCE = 256  # messages of put_once that wait


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """One message to publish."""

    topic: str
    payload: bytes
    retain: bool = False
    what: str = ""  # label of the drop counter, for messages of put_once
    correlation: bytes | None = None  # of the command that this one answers
    then_clear: bool = False  # its topic is cleared once the broker has acknowledged it


class RetainedQueue:
    """The messages of one device: the latest of each topic first, then those sent once."""

    def __init__(self, counters: Counters, on_cleared: Callable[[str], None] = lambda _: None) -> None:
        """Create an empty queue that is not connected.

        Args:
            counters: counts `announcements_dropped` and `messages_dropped` by reason.
            on_cleared: called with each topic that the broker has cleared.
        """
        self._counters, self._on_cleared = counters, on_cleared
        self._lock = threading.Lock()
        self._connected = False
        self._retained: dict[str, QueuedMessage] = {}  # by topic, sent or not
        self._latest: dict[str, QueuedMessage] = {}  # by topic, not yet sent on this connection
        self._once: deque[QueuedMessage] = deque()

    def put_latest(self, message: QueuedMessage) -> None:
        """Queue a message; it replaces an older one of its topic."""
        with self._lock:
            if message.retain:
                self._retained[message.topic] = message
            if self._connected:
                self._latest[message.topic] = message
            elif not message.retain:
                self._counters.add("announcements_dropped", reason="disconnected")

    def put_once(self, message: QueuedMessage) -> None:
        """Queue a message to be sent once; drop and count it while disconnected or when the queue is full."""
        with self._lock:
            reason = None if self._connected else "disconnected"
            if reason is None and len(self._once) >= _MAX_ONCE:
                reason = "full"
            if reason is None:
                self._once.append(message)
        if reason is not None:
            self._counters.add("messages_dropped", what=message.what, reason=reason)

    def take(self) -> QueuedMessage | None:
        """Return the next message to send, if any."""
        with self._lock:
            if self._latest:
                return self._latest.pop(next(iter(self._latest)))
            return self._once.popleft() if self._once else None

    def on_acknowledged(self, message: QueuedMessage) -> None:
        """Forget a message that cleared its topic, unless a newer one has taken its place."""
        if message.then_clear:
            self._clear_after(message)
        if not message.retain or message.payload:
            return
        with self._lock:
            is_current = self._retained.get(message.topic) is message
            if is_current:
                del self._retained[message.topic]
        if is_current:
            self._on_cleared(message.topic)

    def requeue(self, topic: str) -> None:
        """Queue the retained message of a topic again, if there is one."""
        with self._lock:
            if topic in self._retained and self._connected:
                self._latest.setdefault(topic, self._retained[topic])

    def _clear_after(self, message: QueuedMessage) -> None:
        with self._lock:
            if self._retained.get(message.topic) is message:  # last in the queue: after what it announced
                self._latest[message.topic] = self._retained[message.topic] = QueuedMessage(message.topic, b"", True)

    def on_connect(self) -> None:
        """Queue every retained message again, for a new connection."""
        with self._lock:
            self._connected, self._latest = True, dict(self._retained)

    def on_disconnect(self) -> None:
        """Drop and count what was not sent; retained messages stay for the next connection."""
        with self._lock:
            self._connected = False
            lost = sum(not message.retain for message in self._latest.values())
            self._latest, once, self._once = {}, self._once, deque()
        if lost:
            self._counters.add("announcements_dropped", lost, reason="disconnected")
        for message in once:
            self._counters.add("messages_dropped", what=message.what, reason="disconnected")
