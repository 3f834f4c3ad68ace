"""Judge the positions of pictures in a file or stream: which are missing or wrong, and which tell of a backlog."""

from __future__ import annotations

import logging
import math
from collections import deque

log = logging.getLogger(__name__)

DEFAULT_RATE_HZ = 25.0
_LOWEST_HZ, _HIGHEST_HZ = 0.1, 240.0  # that a camera has; a container that says something else gives its clock rate
_LONGEST_GAP_S = 600.0  # between two pictures of a recording
_DISORDER_S = 1.0  # by which pictures may be out of order
_WINDOW_S = 0.15  # of stream positions, over which the pace is measured: one late picture is not the end of a backlog
_LIVE_PACE = 0.8  # share of the positions' time that live pictures take to arrive, at least
_LONGEST_S = 3.0  # after the first picture; a stream that is still as fast has positions that are no times


def plausible_rate_hz(rate_hz: float | None) -> float | None:
    """Return a frame rate if it can be true, else None."""
    return rate_hz if rate_hz is not None and _LOWEST_HZ <= rate_hz <= _HIGHEST_HZ else None


class SteadyPositions:
    """The positions of a recording's pictures: they always increase.

    Rules:
    1. A picture that is a little out of order, or stands still, comes one frame after its predecessor.
    2. So does one without a position, and one that leaps or goes back by more (a clock of 33 bits that starts again,
       files that were joined); the positions after it follow from there.
    """

    def __init__(self, rate_hz: float | None, name: str) -> None:
        """Begin a recording.

        Args:
            rate_hz: what it says; 25 if that cannot be true.
            name: of the recording, for the log.
        """
        self._name = name
        self.step_s = 1.0 / (plausible_rate_hz(rate_hz) or DEFAULT_RATE_HZ)
        self.mended = 0  # pictures by rule 2
        self._offset_s = 0.0
        self._last_s = -self.step_s

    def next_s(self, said_s: float | None) -> float:
        """Return the position of the next picture in seconds, from the one that the library says."""
        following_s = self._last_s + self.step_s
        if said_s is None or not math.isfinite(said_s):
            self._mend()
            position_s = following_s
        else:
            position_s = said_s + self._offset_s
            if position_s - self._last_s > _LONGEST_GAP_S or self._last_s - position_s > _DISORDER_S:
                self._mend()
                self._offset_s = following_s - said_s
                position_s = following_s
            elif position_s <= self._last_s or position_s < 0:
                position_s = following_s
        self._last_s = position_s
        return position_s

    def _mend(self) -> None:
        self.mended += 1
        if self.mended == 1:
            rate = f"1/{1 / self.step_s:.4g} s"
            log.info("%s: pictures without a usable time; each follows the one before by %s", self._name, rate)


class Backlog:
    """Recognises the pictures that a camera's stream has waiting when it opens: they are stale.

    FFmpeg examines a second or two of a stream before it delivers the first picture, and some cameras start with the
    pictures since their last key frame. All of these then come at once.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque()  # position and arrival in seconds
        self._first_s: float | None = None
        self._is_over = False

    def holds(self, position_s: float | None, arrived_s: float) -> bool:
        """Return whether the next picture waited in the backlog; the very first one always counts as waiting.

        Args:
            position_s: in the stream; None: unknown.
            arrived_s: on the monotonic clock.
        """
        if self._is_over or position_s is None:
            return False
        self._first_s = arrived_s if self._first_s is None else self._first_s
        self._recent.append((position_s, arrived_s))
        while len(self._recent) > 1 and position_s - self._recent[1][0] >= _WINDOW_S:
            self._recent.popleft()
        shown_s, took_s = position_s - self._recent[0][0], arrived_s - self._recent[0][1]
        jumped = shown_s < 0.0
        is_live = shown_s >= _WINDOW_S and took_s >= _LIVE_PACE * shown_s
        self._is_over = jumped or is_live or arrived_s - self._first_s > _LONGEST_S
        return not self._is_over
