"""Measure the offset between a camera's clock and the device's, and decide whether it is too large.

Which of the two clocks is wrong is unknown here: when the device's clock is set, all its cameras are off at once.
"""

from __future__ import annotations

from statistics import median

_INTERVAL_S = 1.0
_KEPT = 9  # latest offsets, one a second: their median ignores a few late pictures
_MIN_OFFSETS = 5
_OFF_S, _BACK_S = 2.0, 1.0  # buffers and the network add tenths of a second


class ClockOffset:
    """The clock offset of one camera, from the times of its pictures."""

    def __init__(self) -> None:
        self.is_off = False
        self._offsets_s: tuple[float, ...] = ()  # the latest; replaced as a whole because other threads read it
        self._last_s = float("-inf")

    @property
    def seconds(self) -> float | None:
        """The camera's clock minus the device's; None if the camera sends no time, or not for long enough."""
        kept = self._offsets_s
        return median(kept) if len(kept) >= _MIN_OFFSETS else None

    def add(self, captured_at: float, arrived_at: float, now_s: float) -> str | None:
        """Add the times of one picture.

        Args:
            captured_at: when it was taken by the camera's clock, Unix seconds.
            arrived_at: when it arrived by the device's clock, Unix seconds.
            now_s: on the monotonic clock; one picture a second counts.

        Returns:
            A message when the clock becomes too far off, and when it is back; else None.
        """
        if now_s - self._last_s < _INTERVAL_S:
            return None
        self._last_s = now_s
        self._offsets_s = (*self._offsets_s, captured_at - arrived_at)[-_KEPT:]
        offset_s = self.seconds
        was_off = self.is_off
        if offset_s is not None:
            self.is_off = abs(offset_s) > (_BACK_S if was_off else _OFF_S)
        if offset_s is None or self.is_off == was_off:
            return None
        if self.is_off:
            return f"its clock is {offset_s:+.1f} s from the device's, more than {_OFF_S:g} s; check both clocks"
        return f"its clock is back to {offset_s:+.1f} s from the device's"
