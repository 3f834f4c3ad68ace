"""Tell when the frames of one camera were taken: evenly, though late frames arrive in bursts.

A stream that was just opened, or that comes back after a stall, delivers its frames of a second or two at once. By
their arrival, everything in them moves a hundred times too fast, and every track is lost. Rules:

1. A recording has the times of its positions.
2. The time between two frames of a camera is that between their positions in the stream; without usable positions,
   that between their arrivals.
3. The scene's time approaches the time of arrival, the faster the further off it is. It never goes back, so clocks of
   cameras may drift, run at a wrong rate or jump.
"""

from __future__ import annotations

from edge.types import Frame

_TOLERANCE = 0.1  # by which the scene's time may always run faster or slower than the positions
_CORRECTION_S = 5.0  # this far off, it may run slower or faster by all of the step
_LEAST_SHARE = 0.1  # of a step that always remains
_LONGEST_JUMP_S = 5.0  # by which positions may advance more than arrivals: frames were lost; more is another clock


class SceneClock:
    """The scene's time of one camera."""

    def __init__(self) -> None:
        self._frame_index = -1
        self._position_s: float | None = None
        self._arrived_s = float("-inf")
        self._now_s = float("-inf")

    def time_s(self, frame: Frame) -> float:
        """Return when a frame was taken, in seconds since an arbitrary moment; ask for frames in their order."""
        if frame.time_source == "file" and frame.pts_s is not None:
            return frame.pts_s
        arrived_s = frame.captured_ns / 1e9
        if frame.index != self._frame_index or arrived_s != self._arrived_s:
            self._now_s = self._next_s(frame.pts_s, arrived_s)
            self._frame_index, self._position_s, self._arrived_s = frame.index, frame.pts_s, arrived_s
        return self._now_s

    def restart(self) -> None:
        """Take the next frame's arrival for its time: the stream was lost."""
        self._position_s = None

    def _next_s(self, position_s: float | None, arrived_s: float) -> float:
        if position_s is None or self._position_s is None:
            return max(self._now_s, arrived_s)
        step_s = position_s - self._position_s
        if not 0.0 < step_s <= arrived_s - self._arrived_s + _LONGEST_JUMP_S:
            step_s = arrived_s - self._arrived_s
        slack = _TOLERANCE + abs(arrived_s - self._now_s - step_s) / _CORRECTION_S
        slowest_s = self._now_s + step_s * max(_LEAST_SHARE, 1.0 - slack)
        return min(max(arrived_s, slowest_s), self._now_s + step_s * (1.0 + slack))
