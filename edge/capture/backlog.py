"""Recognise the pictures that a camera's stream has waiting when it opens: they are stale.

FFmpeg examines a second or two of a stream before it delivers the first picture, and some cameras start with the
pictures since their last key frame. All of these then come at once.
"""

from __future__ import annotations

from collections import deque

_WINDOW_S = 0.15  # of stream positions, over which the pace is measured: one late picture is not the end of a backlog
_LIVE_PACE = 0.8  # share of the positions' time that live pictures take to arrive, at least
_LONGEST_S = 3.0  # after the first picture; a stream that is still as fast has positions that are no times


class Backlog:
    """The backlog of one connection to an RTSP camera."""

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
