"""Turns: few searches run at once, some wait for a short time, and the others are asked to come back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from edge.errors import ConsoleError

_AT_ONCE = 2
_WAITING = 8
_WAIT_S = 15.0


class Turns:
    """A bounded queue; any thread may wait in it."""

    def __init__(self, at_once: int = _AT_ONCE, waiting: int = _WAITING, wait_s: float = _WAIT_S) -> None:
        """Let nobody wait yet.

        Args:
            at_once: how many run.
            waiting: how many may wait.
            wait_s: how long, in seconds.
        """
        self._running = threading.Semaphore(at_once)
        self._places = threading.Semaphore(at_once + waiting)
        self._wait_s = wait_s

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn and have it.

        Raises:
            ConsoleError: too many wait already, or it took too long.
        """
        if not self._places.acquire(blocking=False):
            raise ConsoleError("busy", "too many people search at once; try again in a few seconds")
        try:
            if not self._running.acquire(timeout=self._wait_s):
                raise ConsoleError("busy", "the searches before this one take long; try again in a few seconds")
            try:
                yield
            finally:
                self._running.release()
        finally:
            self._places.release()
