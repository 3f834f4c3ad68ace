"""Pacing, timeouts and back-off of a camera, and the clocks it uses."""

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
    """Pacing, timeouts and reconnect back-off of one camera."""

    delivery: Literal["newest", "every_frame"] = "newest"
    real_time: bool = False  # deliver frames of a recording at the pace of their positions
    poll_s: float = 0.25  # longest wait of one read, if the library can wait
    stalled_after_s: float = 5.0  # without a frame
    reopen_after_s: float = 15.0  # without a frame
    first_wait_s: float = 1.0  # before the first reconnect
    longest_wait_s: float = 30.0
    reachability_check_s: float = 2.0  # longest interval between two checks of an unreachable camera
    good_after_s: float = 10.0  # of frames, after which the back-off resets
    offline_after: int = 3  # failures in a row, then the state is offline
    view: ViewConfig | None = None  # None: do not check for frozen or obstructed pictures


@dataclass(frozen=True, slots=True)
class Timing:
    """Clocks, waiting and randomness, so that tests can replace them."""

    monotonic_ns: Callable[[], int] = time.monotonic_ns
    unix_s: Callable[[], float] = time.time
    wait: Callable[[threading.Event, float], object] = threading.Event.wait
    jitter: Callable[[], float] = random.random  # 0..1


def policy_for(
    source: Source,
    pacing: Literal["real_time", "every_frame"],
    stalled_after_s: float = 5.0,
    view: ViewConfig | None = None,
) -> Policy:
    """Return the policy of a source: with `every_frame`, a recording drops nothing; else it is paced like a camera."""
    view = view or (None if source.recorded else ViewConfig())
    if source.recorded and pacing == "every_frame":
        return Policy(delivery="every_frame", stalled_after_s=stalled_after_s, view=view)
    reopen_after_s = max(15.0, 3 * stalled_after_s)
    return Policy(real_time=source.recorded, stalled_after_s=stalled_after_s, reopen_after_s=reopen_after_s, view=view)
