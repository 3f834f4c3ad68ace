"""Whether the network of this device costs money by the byte, as NetworkManager says.

A device without NetworkManager or without `busctl`, or one that does not answer, is not metered: the operator says
`metered: yes` there.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

_COMMAND = (
    "busctl", "--system", "--timeout=2", "get-property", "org.freedesktop.NetworkManager",
    "/org/freedesktop/NetworkManager", "org.freedesktop.NetworkManager", "Metered",
)  # fmt: skip
_METERED = {"u 1", "u 3"}  # NMMetered: yes, and guessed to be
_LIMIT_S = 5.0
_VALID_S = 60.0


def ask_network_manager() -> str:
    """Return the property `Metered` of NetworkManager as busctl prints it, such as `u 4`; empty: it cannot be read."""
    try:
        done = subprocess.run(_COMMAND, capture_output=True, timeout=_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout[:100].decode("ascii", "replace").strip() if done.returncode == 0 else ""


class MeteredNetwork:
    """Asks at most once a minute."""

    def __init__(
        self, ask: Callable[[], str] = ask_network_manager, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._metered = False
        self._valid_until_s: float | None = None

    def __call__(self) -> bool:
        """Return whether the network is metered."""
        now_s = self._clock()
        if self._valid_until_s is None or now_s >= self._valid_until_s:
            self._metered = self._ask() in _METERED
            self._valid_until_s = now_s + _VALID_S
        return self._metered
