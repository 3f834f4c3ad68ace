"""The queue of the look-ups: bounded in length, memory and time; first come, first served.

Rules this module keeps:
1. At most `workers` look-ups run at once, each on a thread of its own, at a lower priority than the frame path.
2. The others wait in the order in which they came. Who would wait, or has waited, for more than MAX_WAIT_S is refused,
   and told when to come again: once the queue is through, by the time that look-ups take now.
3. Waiting look-ups hold their pictures in memory, so their number and their bytes are bounded.
4. A client that disconnects gives up its place.

A queue belongs to one event loop; everything but the work itself runs on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

from edge.errors import BusyError, PictureError
from edge.telemetry.timing import StageTimer
from edge.types import Counts

MAX_WAIT_S = 10.0
MAX_WAITING = 32  # half of the connections of the server: the others are for its page
_MAX_BYTES = 80_000_000  # of all pictures that wait or run
_MAX_WORKERS = 2  # each may decode 25 megapixels: 150 MB
_NICE = 5  # below the frame path
_NEWEST = 0.2  # weight of the newest look-up in the mean time
_FIRST_GUESS_S = 0.05

Refusal = Literal["full", "memory", "late"]
T = TypeVar("T")


class LookupQueue:
    """Runs look-ups on worker threads, and lets the others wait their turn."""

    def __init__(
        self,
        counts: Counts,
        timer: StageTimer,
        workers: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make an empty queue; threads start with the first look-ups.

        Args:
            counts: `lookups_waited`, and `lookups_refused` by reason.
            timer: of the stages `lookup_wait` and `lookup`.
            workers: look-ups that run at once; None: one for each core, at most two.
            clock: monotonic seconds.
        """
        self._workers = workers or min(_MAX_WORKERS, len(os.sched_getaffinity(0)))
        self._counts, self._timer, self._clock = counts, timer, clock
        self._pool = ThreadPoolExecutor(self._workers, "kiosk-lookup", _lower_priority)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._running = 0
        self._held_bytes = 0
        self._mean_s = _FIRST_GUESS_S  # that a look-up runs

    def __enter__(self) -> LookupQueue:  # noqa: PYI034  Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """How many look-ups wait."""
        return len(self._waiting)

    def refuse_if_full(self, size_bytes: int) -> None:
        """Refuse a look-up that would find no place.

        Args:
            size_bytes: of its body; 0: not known yet.

        Raises:
            BusyError: there are too many, they are too large, or the wait would be too long.
        """
        if self._running < self._workers:
            return
        if len(self._waiting) >= MAX_WAITING:
            raise self._refuse("full", f"{len(self._waiting)} look-ups are waiting")
        if self._held_bytes + size_bytes > _MAX_BYTES:
            raise self._refuse("memory", f"{self._held_bytes} bytes of pictures are waiting")
        if (expected_s := self._expected_s()) > MAX_WAIT_S:
            raise self._refuse("late", f"the wait would be {expected_s:.0f} s")

    async def run(self, work: Callable[[], T], size_bytes: int, left: Callable[[], Awaitable[None]]) -> T:
        """Run work in its turn, and return what it returns.

        Args:
            work: runs on a worker thread; what it raises is raised here.
            size_bytes: that it holds in memory.
            left: returns once the client has disconnected; awaited during a wait.

        Raises:
            BusyError: as `refuse_if_full`, or the wait was too long.
            PictureError: the client left during the wait; reason `left`.
        """
        self.refuse_if_full(size_bytes)
        came_s = self._clock()
        self._held_bytes += size_bytes
        try:
            if self._running < self._workers:
                self._running += 1
            else:
                await self._wait(left)
            started_s = self._clock()
            try:
                return await asyncio.get_running_loop().run_in_executor(self._pool, work)
            finally:
                took_s = self._clock() - started_s
                self._mean_s += _NEWEST * (took_s - self._mean_s)
                self._timer.add({"lookup_wait": 1e3 * (started_s - came_s), "lookup": 1e3 * took_s})
                self._next()
        finally:
            self._held_bytes -= size_bytes

    async def _wait(self, left: Callable[[], Awaitable[None]]) -> None:
        """Wait for a turn; the look-up then counts as running."""
        turn = asyncio.get_running_loop().create_future()
        leaving = asyncio.ensure_future(left())
        self._waiting.append(turn)
        self._counts.add("lookups_waited")
        has_left = has_turn = False
        try:
            await asyncio.wait((turn, leaving), timeout=MAX_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
            has_left = leaving.done()
            has_turn = turn.done() and not has_left
        finally:
            leaving.cancel()
            if not has_turn:
                self._give_up(turn)
        if has_left:
            raise PictureError("left", "the client disconnected while it waited")
        if not has_turn:
            raise self._refuse("late", f"no turn came within {MAX_WAIT_S:.0f} s")

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if turn.done():
            self._next()
        else:
            self._waiting.remove(turn)

    def _next(self) -> None:
        """Hand the place of a look-up that is done to the first that waits."""
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self._running -= 1

    def _expected_s(self) -> float:
        """Return how long a look-up that came now would wait."""
        return (len(self._waiting) + 1) * self._mean_s / self._workers

    def _refuse(self, reason: Refusal, message: str) -> BusyError:
        self._counts.add("lookups_refused", reason=reason)
        longest_s = MAX_WAIT_S + self._mean_s  # by then those who wait have had their turn, or were refused
        retry_after_s = max(1, math.ceil(min(self._expected_s(), longest_s)))
        return BusyError(f"too many look-ups: {message}; try again in {retry_after_s} s", retry_after_s)


def _lower_priority() -> None:
    """Let the frame path go first. Linux has priorities by thread."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
