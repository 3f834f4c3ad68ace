"""Maintenance windows: `02:00-05:00`, `Sat,Sun 22:00-06:00`, `Mon-Fri 23:30-24:00`; local time, pure.

A window that ends before it starts reaches into the next day, and belongs to the day on which it starts. When the
clocks change, a window may be an hour shorter or longer; one that falls into the missing hour is open after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_TIMES = re.compile(r"(\d{2}):(\d{2})-(\d{2}):(\d{2})")
_DAY_MIN = 24 * 60


@dataclass(frozen=True, slots=True)
class Window:
    """A span of each of some days."""

    days: frozenset[int]  # 0: Monday
    start_min: int  # since midnight
    end_min: int  # since midnight; 1440: midnight at the end; not after start_min: on the next day

    def is_open(self, local: datetime) -> bool:
        """Return whether a local time is in the window."""
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.start_min < self.end_min:
            return day in self.days and self.start_min <= minute < self.end_min
        return (day in self.days and minute >= self.start_min) or ((day - 1) % 7 in self.days and minute < self.end_min)


def parse_window(text: str) -> Window:
    """Parse a window.

    Raises:
        ValueError: it is not written as a window.
    """
    *days, times = text.split() or [""]
    found = _TIMES.fullmatch(times)
    if found is None or len(days) > 1:
        raise ValueError(f"found the window {text[:80]!r}, expected one such as '02:00-05:00' or 'Sat,Sun 02:00-05:00'")
    start_h, start_m, end_h, end_m = map(int, found.groups())
    start, end = start_h * 60 + start_m, end_h * 60 + end_m
    if start >= _DAY_MIN or end > _DAY_MIN or start_m > 59 or end_m > 59 or start == end:
        raise ValueError(
            f"found the window {text[:80]!r}, expected two different times from 00:00 to 24:00; leave it out for always"
        )
    return Window(_parse_days(days[0], text) if days else frozenset(range(7)), start, end)


def _parse_days(days: str, text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in days.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError(f"found the window {text[:80]!r}, expected days such as Mon-Fri or Sat,Sun")
        start = DAYS.index(first)
        span = (DAYS.index(last) - start) % 7 if dash else 0
        found |= {(start + i) % 7 for i in range(span + 1)}
    return frozenset(found)


def why_closed(
    windows: Sequence[Window], texts: Sequence[str], local: datetime, skipped: timedelta = timedelta()
) -> str | None:
    """Return why nothing may start at a local time; None if there are no windows, or one is open.

    Args:
        windows: of the device or of a rollout.
        texts: the same, for people.
        local: the time on the wall clock.
        skipped: how much the clocks were put forward within the last hour; that hour's windows are open in this one.
    """
    if not windows or any(window.is_open(moment) for window in windows for moment in {local, local - skipped}):
        return None
    return f"waits for the window {', '.join(texts)} (local time)"
