"""How far a camera's own clock is from the device's, and whether that is too far.

Which of the two is wrong is not known here: a device whose clock was set shows all its cameras off at once.
"""

from __future__ import annotations

from statistics import median

_INTERVAL_S = 1.0
_KEPT = 9  # offsets, one a second: the median of them passes over a few late pictures
_ENOUGH = 5
_OFF_S, _BACK_S = 2.0, 1.0  # buffers and the network make tenths of a second


class ClockOffset:
    """The offset of one camera, from the times of its pictures; told when it crosses the bound, and when it is back."""

    def __init__(self) -> None:
        self.is_off = False
        self._offsets_s: tuple[float, ...] = ()  # the latest; replaced as a whole, for other threads read it
        self._taken_s = float("-inf")

    @property
    def seconds(self) -> float | None:
        """The camera's clock minus ours; None where it does not tell, or not long enough."""
        kept = self._offsets_s
        return median(kept) if len(kept) >= _ENOUGH else None

    def take(self, captured_at: float, arrived_at: float, now_s: float) -> str | None:
        """Take in a picture.

        Args:
            captured_at: when it was taken by the camera's clock, Unix seconds.
            arrived_at: when it arrived by ours.
            now_s: on the monotonic clock; one picture a second counts.

        Returns:
            What is to be told: that the clock is off, or no longer.
        """
        if now_s - self._taken_s < _INTERVAL_S:
            return None
        self._taken_s = now_s
        self._offsets_s = (*self._offsets_s, captured_at - arrived_at)[-_KEPT:]
        offset_s = self.seconds
        was_off = self.is_off
        if offset_s is not None:
            self.is_off = abs(offset_s) > (_BACK_S if was_off else _OFF_S)
        if offset_s is None or self.is_off == was_off:
            return None
        said = f"its clock is {offset_s:+.1f} s from ours"
        return f"{said}, expected at most {_OFF_S:g} s" if self.is_off else f"{said} again"
