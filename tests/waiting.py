"""Waiting for something that another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

DEADLINE_S = 60.0  # of a test that fails; a busy machine takes its time
LONG_DEADLINE_S = 180.0  # likewise, of a step that starts several programs, or runs under strace
T = TypeVar("T")


def until(condition: Callable[[], T], what: str | Callable[[], str], deadline_s: float = DEADLINE_S) -> T:
    """Return the first answer of a condition that is true; fail, saying what was expected, if none comes in time."""
    deadline = time.monotonic() + deadline_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.005)
    return answer
