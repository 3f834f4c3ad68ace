"""Reconnect back-off of cameras, and checks whether a camera can be reached at all.

Rules:
1. The wait before a reconnect is jittered and doubles from 1 to 30 s. A camera that delivers well resets it.
2. A camera that cannot even be reached is checked every second or two during the wait. Once it can be reached again, it
   is opened at once and the back-off resets.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge.capture.camera_policy import Policy, Timing
from edge.config.camera_url import Source

_CONNECT_TIMEOUT_S = 1.0


class Backoff:
    """The reconnect back-off of one camera. Only the camera's own thread calls it."""

    def __init__(self, policy: Policy, timing: Timing, is_reachable: Callable[[], bool]) -> None:
        self._policy, self._timing, self._is_reachable = policy, timing, is_reachable
        self._failures = 0  # in a row
        self._was_unreachable = False  # at the last check

    @property
    def seems_offline(self) -> bool:
        """Whether the camera has failed so often in a row that it counts as offline."""
        return self._failures >= self._policy.offline_after

    def record_failure(self) -> None:
        """Count one more failure in a row."""
        self._failures += 1

    def reset(self) -> None:
        """Forget the failures: the camera delivers well."""
        self._failures = 0

    def next_wait_s(self) -> float:
        """Return how long to wait before the next reconnect."""
        ceiling_s = min(self._policy.longest_wait_s, self._policy.first_wait_s * 2.0 ** min(self._failures - 1, 16))
        # Between half the ceiling and all of it, so that the cameras of one switch do not reconnect all at once.
        return max(self._policy.first_wait_s, ceiling_s * (0.5 + 0.5 * self._timing.jitter()))

    def wait(self, wait_s: float, stop: threading.Event) -> None:
        """Wait until the time is over, `stop` is set, or an unreachable camera can be reached again."""
        was_unreachable, self._was_unreachable = self._was_unreachable, not self._is_reachable()
        if not self._was_unreachable:
            if was_unreachable:  # it came back during the last attempt to open it
                self._failures, wait_s = 0, self._policy.first_wait_s
            self._timing.wait(stop, wait_s)
            return
        until_ns = self._timing.monotonic_ns() + round(wait_s * 1e9)
        while not stop.is_set() and (left_s := (until_ns - self._timing.monotonic_ns()) / 1e9) > 0:
            interval_s = self._policy.reachability_check_s * (0.5 + 0.5 * self._timing.jitter())
            self._timing.wait(stop, min(left_s, interval_s))
            if self._is_reachable():
                self._failures, self._was_unreachable = 0, False
                break


def reachability_check(source: Source) -> Callable[[], bool] | None:
    """Return a function that checks whether a source can be reached; None if the only way is to open it.

    An RTSP camera can be reached when its port accepts a TCP connection, a V4L2 camera when its device file exists.
    """
    if source.kind == "rtsp":
        return partial(_accepts_connections, source.address)
    if source.kind == "v4l2":
        return Path(source.location).exists
    return None


def _accepts_connections(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=_CONNECT_TIMEOUT_S).close()
    except (OSError, UnicodeError):  # UnicodeError: the host name is invalid
        return False
    return True
