"""How a camera is kept, and the clocks by which."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edge.config.camera_url import Source
from edge.config.schema import ViewConfig


@dataclass(frozen=True, slots=True)
class Policy:
    """How a camera is kept."""

    delivery: Literal["newest", "every_frame"] = "newest"
    real_time: bool = False  # frames of a recording come no sooner than their position says
    poll_s: float = 0.25  # longest wait inside a door that can wait
    stalled_after_s: float = 5.0  # without a frame
    reopen_after_s: float = 15.0  # without a frame
    first_wait_s: float = 1.0  # before opening again
    longest_wait_s: float = 30.0
    knock_s: float = 2.0  # between asking for one that is not there, at most
    good_after_s: float = 10.0  # of frames, and the wait starts from the first again
    offline_after: int = 3  # failures in a row
    view: ViewConfig | None = None  # None: every picture is believed


@dataclass(frozen=True, slots=True)
class Timing:
    """Clocks, waiting and chance, so that tests need none of them."""

    monotonic_ns: Callable[[], int] = time.monotonic_ns
    unix_s: Callable[[], float] = time.time
    wait: Callable[[threading.Event, float], object] = threading.Event.wait
    chance: Callable[[], float] = random.random


def policy_for(
    source: Source,
    pacing: Literal["real_time", "every_frame"],
    stalled_after_s: float = 5.0,
    view: ViewConfig | None = None,
) -> Policy:
    """Recordings in order and whole where that is asked for; else every source behaves as a camera does."""
    view = view or (None if source.recorded else ViewConfig())
    if source.recorded and pacing == "every_frame":
        return Policy(delivery="every_frame", stalled_after_s=stalled_after_s, view=view)
    reopen_after_s = max(15.0, 3 * stalled_after_s)
    return Policy(real_time=source.recorded, stalled_after_s=stalled_after_s, reopen_after_s=reopen_after_s, view=view)
