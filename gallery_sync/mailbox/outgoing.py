"""What goes out, and when: the newest report, once, and answers to commands. Filled by one thread, sent by another.

Rules this module keeps:
1. What is newer replaces what waits. A report in flight is followed by the newest, when the broker has it.
2. A report that a lost connection left unacknowledged is sent again under its number, unless a newer one waits.
3. A change of state goes out at once; a change of words within half a minute; numbers alone every few minutes.
4. An answer waits until the broker has it; only so many wait.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

NUMBERS = frozenset({"fps", "counters", "expires_at", "at"})  # fields that change all the time
WORDS = frozenset({"reason", "cameras", "engine", "problem", "since"})
SOON_S = 30.0
MOST_ANSWERS = 100


@dataclass(frozen=True, slots=True)
class AnswerMessage:
    """An answer to a command."""

    key: str  # of whoever gave it, to learn that the broker has it
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Report:
    """A report that has its number."""

    content: Mapping[str, Any]  # of which it was made
    payload: bytes


class Outgoing:
    """What one device sends."""

    def __init__(self, every_s: float) -> None:
        """Have nothing to send.

        Args:
            every_s: a report goes out that often where nothing but numbers changed.
        """
        self._every_s = every_s
        self._lock = threading.Lock()
        self._newest: Mapping[str, Any] | None = None
        self._sent: _Report | None = None  # last, or in flight
        self._sent_at = 0.0  # monotonic
        self._is_acknowledged = True
        self._in_flight = False
        self._answers: deque[AnswerMessage] = deque()
        self._delivered: list[str] = []

    # for the agent

    def put(self, content: Mapping[str, Any]) -> None:
        """Replace the report that waits."""
        with self._lock:
            self._newest = content

    def add_answer(self, answer: AnswerMessage) -> bool:
        """Let an answer wait; return whether an older one had to go for it."""
        with self._lock:
            self._answers.append(answer)
            is_full = len(self._answers) > MOST_ANSWERS
            if is_full:
                self._answers.popleft()
        return is_full

    def take_delivered(self) -> list[str]:
        """Return the keys of answers that the broker has since the last call."""
        with self._lock:
            delivered, self._delivered = self._delivered, []
        return delivered

    # for the thread of the connection

    def wait_s(self, now: float) -> float | None:
        """Return when the next report is due, in seconds; None: nothing waits, or the broker has to answer first."""
        with self._lock:
            if self._newest is None or self._in_flight:
                return None
            if self._sent is None or not self._is_acknowledged:
                return 0.0
            return max(0.0, self._sent_at + self._gap_s(self._sent.content, self._newest) - now)

    def _gap_s(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} - NUMBERS
        if not changed:
            return self._every_s
        return min(SOON_S, self._every_s) if changed <= WORDS else 0.0

    def take_report(self, number: Callable[[Mapping[str, Any]], bytes | None], now: float) -> bytes | None:
        """Return what to send now, which is in flight then; None: the newest cannot be sent.

        Args:
            number: makes a payload with a number of its own; None: the content is no report.
            now: monotonic.
        """
        with self._lock:
            content, self._newest = self._newest, None
            left = None if self._is_acknowledged else self._sent
        if left is not None and content in (None, left.content):
            payload: bytes | None = left.payload
        else:
            payload = number(content) if content is not None else None
        if payload is None:
            return None
        with self._lock:
            if left is None or payload is not left.payload:
                self._sent = _Report(content or {}, payload)
            self._sent_at, self._in_flight, self._is_acknowledged = now, True, False
        return payload

    def next_answer(self) -> AnswerMessage | None:
        """Return the answer that is to be sent next, which does not wait then; None: none waits."""
        with self._lock:
            return self._answers.popleft() if self._answers else None

    def acknowledged_report(self) -> None:
        """Note that the broker has the report in flight."""
        with self._lock:
            self._in_flight, self._is_acknowledged = False, True

    def acknowledged_answer(self, answer: AnswerMessage) -> None:
        """Note that the broker has an answer."""
        with self._lock:
            self._delivered.append(answer.key)

    def lost(self, answers: Iterable[AnswerMessage]) -> None:
        """Note that the connection ended: what was in flight is sent again, a report only if nothing newer waits."""
        with self._lock:
            if self._in_flight and self._sent is not None and self._newest is None:
                self._newest = self._sent.content
            self._in_flight = False
            self._answers.extendleft(reversed(list(answers)))
