"""Decides how a console may be opened, from where it listens.

Rules this module keeps:
1. On loopback without users, the printed token opens it. As soon as there is a user, people log in.
2. Beyond loopback, there must be a user, and TLS here or in front: no password travels in the clear.
"""

from __future__ import annotations

import ipaddress
from typing import Literal

from edge.errors import ConfigError

_ADD = "`edge-console user add NAME --role admin`"


def decide_access(host: str, *, users: int, has_tls: bool, proxy_https: bool) -> Literal["token", "login"]:
    """Return what opens the console: the printed token, or the log-in of a user.

    Args:
        host: that it listens on.
        users: how many there are.
        has_tls: whether it has a certificate of its own.
        proxy_https: whether a proxy in front ends TLS.

    Raises:
        ConfigError: nobody may listen like this; the message says what to do.
    """
    if is_loopback(host) and not proxy_https:
        return "login" if users else "token"
    missing = []
    if not users:
        missing.append(f"a user: {_ADD}")
    if not has_tls and not proxy_https:
        missing.append(
            "TLS: --tls-certificate FILE --tls-key FILE, or --proxy-https where a proxy in front of it ends TLS"
        )
    if missing:
        where = "a proxy opens it to others" if is_loopback(host) else f"{host} can be reached from other machines"
        raise ConfigError(f"{where}, so the console needs {'; and '.join(missing)}")
    return "login"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
