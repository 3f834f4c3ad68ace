"""A cap on the bytes per second that a device downloads: a token bucket.

Rules this module keeps:
1. Over any time, at most the rate in bytes and one piece are read. TCP holds back the server with what is not read.
2. A piece is small enough that the wait after it is short: a quarter of a second, or that of the smallest piece.
3. A clock that goes back or stops makes a reader wait longer, never shorter.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_LARGEST_PIECE, _SMALLEST_PIECE = 1 << 16, 1 << 10
_PIECES_PER_S = 4


class RateLimit:
    """Makes a reader wait."""

    def __init__(
        self,
        bytes_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Start with an empty bucket.

        Args:
            bytes_per_s: of all bodies that are read through it, above 0.
            clock: seconds, monotonic.
            sleep: waits for some seconds.
        """
        self.bytes_per_s = bytes_per_s
        self.piece_bytes = int(min(_LARGEST_PIECE, max(_SMALLEST_PIECE, bytes_per_s / _PIECES_PER_S)))
        self.waited_s = 0.0
        self._clock = clock
        self._sleep = sleep
        self._tokens = 0.0  # below 0: bytes that were read ahead of time
        self._filled_s = clock()

    def take(self, count: int) -> None:
        """Count some bytes that were read, and wait until they are paid for."""
        now_s = self._clock()
        self._tokens += max(0.0, now_s - self._filled_s) * self.bytes_per_s
        self._tokens = min(self._tokens, float(self.piece_bytes)) - count  # the burst is one piece
        self._filled_s = now_s
        if self._tokens < 0:
            wait_s = -self._tokens / self.bytes_per_s
            self.waited_s += wait_s
            self._sleep(wait_s)
