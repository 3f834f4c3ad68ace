"""Messages to systemd: ready, watchdog, stopping (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def notify_systemd(state: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send a state to systemd: READY=1, WATCHDOG=1, STOPPING=1, STATUS=...

    Returns:
        Whether it was sent; without a service manager (NOTIFY_SOCKET unset) nothing happens.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)  # called by the frame loop, which must not wait
            # a leading @ stands for the zero byte of an abstract address: sd_notify(3)
            channel.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
    except OSError:
        return False
    return True


def watchdog_interval_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return how often to send WATCHDOG=1: half the systemd timeout; None without a watchdog for this process."""
    timeout_us = environment.get("WATCHDOG_USEC", "")
    watched_pid = environment.get("WATCHDOG_PID", str(os.getpid()))
    if not timeout_us.isdecimal() or watched_pid != str(os.getpid()):
        return None
    return int(timeout_us) / 2e6
