"""Whether a camera is there at all, asked without opening its stream."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge.source import Source

_TIMEOUT_S = 1.0


def knock_for(source: Source) -> Callable[[], bool] | None:
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
