"""Which pictures are worth sending: not the same one again, and not more than agreed. Decisions only, no clock."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

from edge.imaging.image import grey, resize
from edge.types import Image

HOUR_S, DAY_S = 3600.0, 86_400.0
_WIDTH, _HEIGHT = 9, 8  # of the small grey picture whose neighbours are compared
_ALIKE_BITS = 6  # of 64, by which two pictures of one thing may differ
_REMEMBERED = 16  # pictures of each camera


def fingerprint(picture: Image) -> int:
    """Return 64 bits that stay nearly the same for pictures that look alike: where it gets brighter to the right."""
    values = grey(resize(picture, _WIDTH, _HEIGHT, "area"))
    bits = (values[:, 1:] > values[:, :-1]).ravel()
    return sum(1 << i for i in range(len(bits)) if bits[i])


class Alike:
    """The newest pictures of each camera, to recognise one that shows the same again."""

    def __init__(self, fold_s: float) -> None:
        """Remember nothing yet; `fold_s` is how long a picture stands for others like it, 0: not at all."""
        self._fold_s = fold_s
        self._newest: dict[str, deque[tuple[float, int]]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    def is_known(self, camera: str, bits: int, now_s: float) -> bool:
        """Return whether a picture of a camera looks like one of the last ones; its time starts again then.

        Args:
            camera: its name.
            bits: the fingerprint of the picture.
            now_s: a clock that nobody sets.
        """
        newest = self._newest[camera]
        for at_s, other in newest:
            if now_s - at_s < self._fold_s and (bits ^ other).bit_count() <= _ALIKE_BITS:
                newest.remove((at_s, other))
                newest.append((now_s, other))
                return True
        return False

    def add(self, camera: str, bits: int, now_s: float) -> None:
        """Remember a picture that was kept."""
        self._newest[camera].append((now_s, bits))


def recent(kept_at: Sequence[float], now: float) -> list[float]:
    """Return the times of the last day, oldest first. Times after now are dropped: the clock was set back."""
    return sorted(at for at in kept_at if now - DAY_S < at <= now)


def is_over(kept_at: Sequence[float], now: float, per_hour: int, per_day: int) -> bool:
    """Return whether another picture would be too many.

    Args:
        kept_at: Unix seconds of the pictures that were kept.
        now: Unix seconds.
        per_hour: pictures in an hour.
        per_day: pictures in a day.
    """
    of_day = recent(kept_at, now)
    return len(of_day) >= per_day or sum(at > now - HOUR_S for at in of_day) >= per_hour
