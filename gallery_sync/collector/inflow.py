"""Messages that wait for the database: bounded, and the newest of a device wins.

Rules this module keeps:
1. Of each device one report and one availability wait, the newest. What it replaces is counted: a report holds the
   tries of earlier ones, so that little is lost.
2. A device that reports too often waits; its newest report comes in time. Answers that come too often are dropped.
3. At `most_bytes`, whoever receives messages waits a moment, so that the broker keeps what follows. Only when the
   database stays behind for so long that the broker would hang up, messages are dropped, and counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from edge.types import Counts
from gallery_sync.collector.messages import Arrived, Kind

_Key = tuple[str, Kind, int]  # one message waits for each
_ANSWERS: tuple[Kind, ...] = ("answer", "reply")  # of these, all wait

MOST_BYTES = 64 << 20
LONGEST_WAIT_S = 5.0  # for room; well below the keep-alive of the connection
_PACE_S, _AT_ONCE = 1.0, 30  # of a device's messages of one kind: as many at once, then one each
_ANSWERS_AT_ONCE = 100  # a device takes 32 commands at once, and gives two answers to a long one
_OVERHEAD_BYTES = 300  # of a message, beside its payload
_PACED = 4096  # devices that are remembered for their pace, before those that are calm are forgotten


class _Pace:
    """When a device may send again (the generic cell rate algorithm)."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, Kind], float] = {}
        self._forget_at = _PACED

    def wait_s(self, key: tuple[str, Kind], now: float, *, counts: bool = True) -> float:
        """Return how long a message of a device must wait; it counts as sent if `counts`, or if it need not wait."""
        until = max(self._until.get(key, now), now)
        at_once = _ANSWERS_AT_ONCE if key[1] in _ANSWERS else _AT_ONCE
        wait_s = max(0.0, until - now - _PACE_S * (at_once - 1))
        if counts or not wait_s:
            self._until[key] = until + _PACE_S
        if len(self._until) > self._forget_at:
            self._until = {one: until for one, until in self._until.items() if until > now}
            self._forget_at = max(_PACED, 2 * len(self._until))
        return wait_s


class Inflow:
    """The messages that wait; any thread puts, one takes."""

    def __init__(
        self,
        counters: Counts,
        *,
        most_bytes: int = MOST_BYTES,
        longest_wait_s: float = LONGEST_WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin empty.

        Args:
            counters: counts `coalesced` and `dropped` messages, by kind.
            most_bytes: of all that wait.
            longest_wait_s: for room.
            clock: monotonic seconds.
        """
        self._counters, self._clock = counters, clock
        self._most_bytes, self._longest_wait_s = most_bytes, longest_wait_s
        self._changed = threading.Condition()
        self._ready: dict[_Key, Arrived] = {}  # oldest first
        self._delayed: dict[_Key, tuple[float, Arrived]] = {}
        self._pace = _Pace()
        self._bytes = 0
        self._answers = 0  # so far; each has a key of its own
        self._woken = False

    def put(self, message: Arrived) -> None:
        """Let a message wait for the database; wait for room, but not for long."""
        with self._changed:
            now = self._clock()
            is_answer, key = message.kind in _ANSWERS, self._key(message)
            if key in self._ready or key in self._delayed:
                self._replace(key, message)
                return
            wait_s = self._pace.wait_s((message.device, message.kind), now, counts=not is_answer)
            if is_answer and wait_s:
                self._counters.add("dropped", kind=message.kind, reason="too_often")
                return
            if not self._has_room(_size(message)):
                self._counters.add("dropped", kind=message.kind, reason="full")
                return
            self._bytes += _size(message)
            if wait_s:
                self._counters.add("delayed", kind=message.kind)
                self._delayed[key] = (now + wait_s, message)
            else:
                self._ready[key] = message
            self._changed.notify_all()

    def put_back(self, messages: Iterable[Arrived]) -> None:
        """Let messages wait again that could not be stored; those that a newer one replaced are counted."""
        with self._changed:
            older = self._ready
            self._ready = {}
            for message in messages:
                key = self._key(message)
                if key in older or key in self._delayed:
                    self._counters.add("coalesced", kind=message.kind)
                else:
                    self._ready[key] = message
                    self._bytes += _size(message)
            self._ready |= older

    def take(self, most: int, wait_s: float) -> list[Arrived]:
        """Return messages that wait, the oldest first; wait for one, or until `wake` is called."""
        with self._changed:
            deadline = self._clock() + wait_s
            while not (self._release() or self._woken):
                now = self._clock()
                until = min([deadline, *(due for due, _ in self._delayed.values())])
                if now >= deadline:
                    break
                self._changed.wait(max(0.001, until - now))
            self._woken = False
            keys = [key for key, _ in zip(self._ready, range(most), strict=False)]
            taken = [self._ready.pop(key) for key in keys]
            self._bytes -= sum(_size(one) for one in taken)
            self._changed.notify_all()
            return taken

    def wake(self) -> None:
        """Make the running `take`, or the next one, return at once."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def depth(self) -> int:
        """Return how many messages wait."""
        with self._changed:
            return len(self._ready) + len(self._delayed)

    def _key(self, message: Arrived) -> _Key:
        if message.kind in _ANSWERS:
            self._answers += 1
            return message.device, message.kind, self._answers
        return message.device, message.kind, 0

    def _replace(self, key: _Key, message: Arrived) -> None:
        self._counters.add("coalesced", kind=message.kind)
        if key in self._ready:
            self._bytes += _size(message) - _size(self._ready[key])
            self._ready[key] = message
        else:
            due, old = self._delayed[key]
            self._bytes += _size(message) - _size(old)
            self._delayed[key] = (due, message)

    def _has_room(self, size: int) -> bool:
        deadline = self._clock() + self._longest_wait_s
        while self._bytes + size > self._most_bytes:
            left_s = deadline - self._clock()
            if left_s <= 0 or not self._changed.wait(left_s):
                return self._bytes + size <= self._most_bytes
        return True

    def _release(self) -> bool:
        """Move what has waited long enough; return whether anything can be taken."""
        now = self._clock()
        for key in [key for key, (due, _) in self._delayed.items() if due <= now]:
            self._ready[key] = self._delayed.pop(key)[1]
        return bool(self._ready)


def _size(message: Arrived) -> int:
    return len(message.payload) + _OVERHEAD_BYTES
