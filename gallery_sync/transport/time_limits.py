"""Time limits of a pull: a silent, slow or endless server cannot hold it for ever."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge.errors import SyncError
from gallery_sync.transport.errors import InterruptedTransferError

MIN_BYTES_PER_S = 500.0
WINDOW_S = 30.0


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """What one response may take."""

    timeout_s: float = 20.0  # longest time without a byte, to connect, and for all headers of a response
    min_bytes_per_s: float = MIN_BYTES_PER_S  # lowest average rate of a body
    window_s: float = WINDOW_S  # time waited for the network over which the rate is averaged


class Deadline:
    """The end of the time that a whole pull may take."""

    def __init__(self, limit_s: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._end_s = clock() + limit_s

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self._clock() >= self._end_s

    def remaining_s(self) -> float:
        """Return how many seconds are left.

        Raises:
            SyncError: none is left.
        """
        remaining = self._end_s - self._clock()
        if remaining <= 0:
            raise SyncError(
                f"the pull did not end within {self._limit_s:g} s; the next one goes on where it stopped; "
                "--deadline-s allows more"
            )
        return remaining


class RateMeter:
    """Refuses a body that arrives too slowly. Only time spent waiting for the network counts, not that of the disk."""

    def __init__(self, limits: TimeLimits) -> None:
        self._limits = limits
        self._bytes = 0
        self._waited_s = 0.0

    def add(self, count: int, waited_s: float) -> None:
        """Count some bytes.

        Raises:
            InterruptedTransferError: the rate is too low.
        """
        self._bytes += count
        self._waited_s += waited_s
        if self._waited_s < self._limits.window_s:
            return
        if (rate := self._bytes / self._waited_s) < self._limits.min_bytes_per_s:
            raise InterruptedTransferError(
                f"found {rate:.0f} bytes per second, expected at least {self._limits.min_bytes_per_s:g}; "
                "--min-rate allows less"
            )
        self._bytes, self._waited_s = 0, 0.0
