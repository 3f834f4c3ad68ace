"""How long a camera that died is left alone before it is opened again.

Rules:
1. A jittered, doubling wait of 1 to 30 s; delivering well begins it anew.
2. So does coming back: one that is not even there (edge/capture/reconnect.py) is asked for every second or two meanwhile.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge.capture.policy import Policy, Timing
from edge.config.camera_url import Source


class Backoff:
    """The patience with one camera; only its own thread calls it."""

    def __init__(self, policy: Policy, timing: Timing, is_reachable: Callable[[], bool]) -> None:
        self._policy, self._timing, self._is_reachable = policy, timing, is_reachable
        self._failures = 0  # in a row
        self._away = False  # it was not there when it was last asked for

    @property
    def seems_offline(self) -> bool:
        """Whether it failed so often in a row that it is taken for gone."""
        return self._failures >= self._policy.offline_after

    def record_failure(self) -> None:
        """It failed once more."""
        self._failures += 1

    def reset(self) -> None:
        """It delivers well: its failures are forgotten."""
        self._failures = 0

    def next_wait_s(self) -> float:
        """How long to wait now."""
        ceiling_s = min(self._policy.longest_wait_s, self._policy.first_wait_s * 2.0 ** min(self._failures - 1, 16))
        # Between half the ceiling and all of it, so that many cameras of one switch do not come back at once.
        return max(self._policy.first_wait_s, ceiling_s * (0.5 + 0.5 * self._timing.chance()))

    def wait(self, wait_s: float, stop: threading.Event) -> None:
        """Wait, at most until stopped; when a camera that was not there comes back, no longer."""
        was_away, self._away = self._away, not self._is_reachable()
        if not self._away:
            if was_away:  # it came back while it was being opened
                self._failures, wait_s = 0, self._policy.first_wait_s
            self._timing.wait(stop, wait_s)
            return
        until_ns = self._timing.monotonic_ns() + round(wait_s * 1e9)
        while not stop.is_set() and (left_s := (until_ns - self._timing.monotonic_ns()) / 1e9) > 0:
            self._timing.wait(stop, min(left_s, self._policy.reachability_check_s * (0.5 + 0.5 * self._timing.chance())))
            if self._is_reachable():
                self._failures, self._away = 0, False
                break


_TIMEOUT_S = 1.0


def reachability_check(source: Source) -> Callable[[], bool] | None:
    """What asks for a source; None where only opening it tells.

    An RTSP camera is there when its port takes a TCP connection, a V4L2 camera when its device file exists.
    """
    if source.kind == "rtsp":
        return partial(_connects, source.address)
    if source.kind == "v4l2":
        return Path(source.location).exists
    return None


def _connects(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=_TIMEOUT_S).close()
    except (OSError, UnicodeError):  # a name that can be no host's is not there either
        return False
    return True
