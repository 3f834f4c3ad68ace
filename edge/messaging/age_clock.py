"""The clock that ages are measured by: what waits while the wall clock is set forward is none the older for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf

_CLOCK_SET = 1577836800.0  # 2020-01-01: a clock before it was not set yet
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # sleep included, where the system tells


class AgeClock:
    """The wall clock as it would read now by the slowest it was set since the start.

    By it, what was stamped since the start is never taken for older than it is, whatever the clock does; for younger,
    at most by what the clock was moved.
    """

    def __init__(
        self,
        unix_s: Callable[[], float] = time.time,
        elapsed_s: Callable[[], float] = lambda: time.clock_gettime(_SINCE_BOOT),
    ) -> None:
        self._unix_s, self._elapsed_s = unix_s, elapsed_s
        self._began_at = inf  # what elapses, by the wall clock: the least that was seen
        self()

    def __call__(self) -> float:
        """Unix seconds."""
        now, elapsed_s = self._unix_s(), self._elapsed_s()
        if now >= _CLOCK_SET:
            self._began_at = min(self._began_at, now - elapsed_s)
        return min(now, self._began_at + elapsed_s)
