"""Whether anything moved since the detector last looked at a camera's picture.

Rules:
1. The background is the picture that the detector saw last: what creeps adds up until it shows.
2. A change is more than the noise of its place, learned from picture to picture, and of the picture as a whole: a
   flickering lamp is no motion.
3. Without motion the detector sees the whole picture once in `sweep_s` all the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.config.schema import MotionConfig
from edge.imaging import image
from edge.types import Image

_SMALL = (96, 54)  # pixels; measured on 1280x720, one busy core: 120 us a picture
_ENOUGH_PX = 180  # of the shorter side, to make those of
_LEAST = 6.0  # grey levels that are a change where there is no noise
_NOISES = 6.0  # as many times the noise are a change
_LOUDEST = 10.0  # grey levels: what changes by more from one picture to the next moves, and teaches no more noise
_LEARNED_S = 5.0  # how slowly noise is learned
_CELLS = 2  # changed pixels of the small picture that are motion


class MotionGate:
    """Tells of one camera when its detector need not be asked."""

    def __init__(self, config: MotionConfig) -> None:
        self._sweep_s = config.sweep_s
        self._background: NDArray[np.float32] | None = None  # None before the detector saw a picture
        self._newest = np.zeros(_SMALL[::-1], np.float32)
        self._noise = np.zeros(_SMALL[::-1], np.float32)
        self._known_s = 0.0  # over which noise was learned
        self._newest_s = self._swept_s = float("-inf")

    def wants_detector(self, image_rgb: Image, now_s: float) -> bool:
        """Whether something moved in the next picture, or the whole of it is due."""
        step = max(1, min(image_rgb.shape[:2]) // _ENOUGH_PX)
        green = np.ascontiguousarray(image_rgb[::step, ::step, 1])  # most of luma
        small = image.resize(green, *_SMALL, "area").astype(np.float32)
        if np.isfinite(self._newest_s):
            elapsed_s = max(0.0, now_s - self._newest_s)
            self._known_s = min(_LEARNED_S, self._known_s + elapsed_s)
            gain = min(1.0, elapsed_s / max(self._known_s, 1e-6))
            self._noise += gain * (np.minimum(np.abs(small - self._newest), _LOUDEST) - self._noise)
        self._newest, self._newest_s = small, now_s
        if self._background is None or not 0 <= now_s - self._swept_s < self._sweep_s:
            return True
        changed = np.abs(small - self._background) > np.maximum(
            _LEAST, _NOISES * np.maximum(self._noise, self._noise.mean())
        )
        return int(changed.sum()) >= _CELLS

    def note_detection(self) -> None:
        """The detector has seen the newest picture."""
        self._background, self._swept_s = self._newest, self._newest_s
