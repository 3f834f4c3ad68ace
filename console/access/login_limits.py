"""Limits how often a password may be tried, for each user name and each client address.

Rules this module keeps:
1. An attempt counts before the password is looked at, so that many at once are no way around; success takes it back.
2. A name counts the same whether there is such a user or not.
3. The window slides: each attempt is forgotten a fixed time after it was made.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict, deque
from collections.abc import Callable

from edge.errors import ConsoleError

WINDOW_S = 900.0
PER_NAME, PER_ADDRESS = 10, 30  # failed attempts in the window
_MOST_KEYS = 20_000  # names and addresses that are remembered


class TooManyAttemptsError(ConsoleError):
    """A password was tried too often; `wait_s` is how long to wait."""

    def __init__(self, wait_s: float) -> None:
        minutes = max(1, round(wait_s / 60 + 0.5))
        super().__init__(
            "limited", f"too many failed attempts; wait {minutes} minute{'' if minutes == 1 else 's'}, then try again"
        )
        self.wait_s = wait_s


class LoginLimits:
    """Counts attempts in memory; any thread may use it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin without attempts; `clock` returns seconds."""
        self._clock, self._lock = clock, threading.Lock()
        self._attempts: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def count(self, name: str, address: str) -> None:
        """Count an attempt.

        Raises:
            TooManyAttemptsError: there were too many; this one does not count.
        """
        now_s = self._clock()
        with self._lock:
            keys = _keys(name, address)
            waits = [self._wait_s(key, most, now_s) for key, most in keys]
            if max(waits) > 0:
                raise TooManyAttemptsError(max(waits))
            for key, _ in keys:
                self._attempts.setdefault(key, deque()).append(now_s)
                self._attempts.move_to_end(key)
            while len(self._attempts) > _MOST_KEYS:
                self._attempts.popitem(last=False)

    def succeed(self, name: str, address: str) -> None:
        """Forget the attempts of a name, and the last one of its address."""
        with self._lock:
            (by_name, _), (by_address, _) = _keys(name, address)
            self._attempts.pop(by_name, None)
            if times := self._attempts.get(by_address):
                times.pop()

    def _wait_s(self, key: tuple[str, str], most: int, now_s: float) -> float:
        times = self._attempts.get(key)
        while times and times[0] <= now_s - WINDOW_S:
            times.popleft()
        if not times:
            self._attempts.pop(key, None)
            return 0.0
        return times[-most] + WINDOW_S - now_s if len(times) >= most else 0.0


def _keys(name: str, address: str) -> tuple[tuple[tuple[str, str], int], tuple[tuple[str, str], int]]:
    return (("name", name.lower()[:100]), PER_NAME), (("address", _network(address)), PER_ADDRESS)


def _network(address: str) -> str:
    """Return what one client can choose its address from: of IPv6, the first 64 bits."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:100]
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)
