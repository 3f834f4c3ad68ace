"""The time by which a device judges expiry.

Rules this module keeps:
1. The time is the later one of the system clock and the clock floor. A device that starts in 1970 judges by the floor.
2. The floor is raised by signed values alone, never by the system clock: one wrong answer of a time server, or a dead
   clock battery, cannot put it into the future.
3. A clock that steps back is no error, by seconds or by decades.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone

BUILT_AT = datetime(2026, 1, 1, tzinfo=timezone.utc)  # no device that runs this code lives before it
_LATEST_S = 253402300799.0  # 9999-12-31T23:59:59, the last time that has a date

Clock = Callable[[], datetime]


def system_time() -> datetime:
    """Return the time of the system clock, also if that is beyond all dates."""
    return datetime.fromtimestamp(min(max(time.time(), 0.0), _LATEST_S), timezone.utc)


def read_time(text: object) -> datetime | None:
    """Read a time such as 2026-11-28T12:00:00Z; None if it is none, or has no time zone."""
    if not isinstance(text, str) or len(text) > 40:
        return None
    try:
        read = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return read.astimezone(timezone.utc) if read.tzinfo else None
    except (ValueError, OverflowError):
        return None


def write_time(moment: datetime) -> str:
    """Return a time as text, to the second."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
