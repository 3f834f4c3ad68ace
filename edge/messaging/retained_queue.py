"""What a device has to say beside its events, until it is said.

Rules:
1. Of each topic the latest notice counts. A retained one is said again on every connection.
2. What is not retained, or said once, is said while there is a connection, else dropped and counted.
3. Any thread puts; only the publisher's takes.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from edge.telemetry.metrics import Counters

_MOST = 256  # that are said once and wait for their turn


@dataclass(frozen=True, slots=True)
class Notice:
    """One message."""

    topic: str
    payload: bytes
    retain: bool = False
    what: str = ""  # of what is said once: how it is counted when it cannot be said
    correlation: bytes | None = None  # of the message that it answers


class Notices:
    """The notices of one device; those of a state first, then those that are said once."""

    def __init__(self, counters: Counters) -> None:
        """Wait for a connection.

        Args:
            counters: `announcements_dropped` and `messages_dropped` by reason.
        """
        self._counters = counters
        self._lock = threading.Lock()
        self._connected = False
        self._retained: dict[str, Notice] = {}  # by topic, said or not
        self._states: dict[str, Notice] = {}  # by topic, yet to be said on this connection
        self._once: deque[Notice] = deque()

    def put(self, notice: Notice) -> None:
        """Say the latest state of something."""
        with self._lock:
            if notice.retain:
                self._retained[notice.topic] = notice
            if self._connected:
                self._states[notice.topic] = notice
            elif not notice.retain:
                self._counters.add("announcements_dropped", reason="disconnected")

    def put_once(self, notice: Notice) -> None:
        """Say something once, if that is possible now."""
        with self._lock:
            reason = None if self._connected else "disconnected"
            if reason is None and len(self._once) >= _MOST:
                reason = "full"
            if reason is None:
                self._once.append(notice)
        if reason is not None:
            self._counters.add("messages_dropped", what=notice.what, reason=reason)

    def take(self) -> Notice | None:
        """The next to be said."""
        with self._lock:
            if self._states:
                return self._states.pop(next(iter(self._states)))
            return self._once.popleft() if self._once else None

    def begin(self) -> None:
        """A connection stands."""
        with self._lock:
            self._connected, self._states = True, dict(self._retained)

    def end(self) -> None:
        """There is no connection any more; what was not said on it is dropped, but for what is retained."""
        with self._lock:
            self._connected = False
            lost = sum(not notice.retain for notice in self._states.values())
            self._states, once, self._once = {}, self._once, deque()
        if lost:
            self._counters.add("announcements_dropped", lost, reason="disconnected")
        for notice in once:
            self._counters.add("messages_dropped", what=notice.what, reason="disconnected")
