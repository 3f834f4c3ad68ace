"""A clock for message ages that does not jump when the wall clock is set forward."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf

_CLOCK_SET = 1577836800.0  # 2020-01-01: a clock before it was not set yet
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # includes sleep, where the system has it


class AgeClock:
    """The wall clock, less every forward jump since the start.

    A message stamped since the start never looks older than it is, whatever happens to the wall clock. It may look
    younger, at most by the amount the clock was moved.
    """

    def __init__(
        self,
        unix_s: Callable[[], float] = time.time,
        elapsed_s: Callable[[], float] = lambda: time.clock_gettime(_SINCE_BOOT),
    ) -> None:
        self._unix_s, self._elapsed_s = unix_s, elapsed_s
        self._boot_at = inf  # wall-clock time of boot: the smallest seen so far
        self()

    def __call__(self) -> float:
        """Return Unix seconds."""
        now, elapsed_s = self._unix_s(), self._elapsed_s()
        if now >= _CLOCK_SET:
            self._boot_at = min(self._boot_at, now - elapsed_s)
        return min(now, self._boot_at + elapsed_s)
