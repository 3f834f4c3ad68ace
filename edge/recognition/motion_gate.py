"""Detect whether anything moved in a camera's frames since its detector last ran.

Rules:
1. The background is the newest frame that the detector ran on: slow motion adds up until it shows.
2. Motion is a change above the noise of its place and above the mean noise of the frame. Noise is learned from frame to
   frame, so that a flickering lamp does not count as motion.
3. Without motion, the detector still runs once in `sweep_s`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.config.schema import MotionConfig
from edge.imaging import image
from edge.types import Image

_SIZE = (96, 54)  # pixels of the compared image; measured on 1280x720, one busy core: 120 us a frame
_MIN_SIDE_PX = 180  # of the shorter side, enough to make the compared image from
_MIN_CHANGE = 6.0  # grey levels that are a change where there is no noise
_NOISE_FACTOR = 6.0  # a change is this many times the noise
_MAX_NOISE = 10.0  # grey levels: a larger change between two frames is motion and is not learned as noise
_LEARNING_S = 5.0  # time constant of the learned noise
_MIN_PIXELS = 2  # changed pixels of the compared image that are motion


class MotionGate:
    """Decides when the detector of one camera need not run."""

    def __init__(self, config: MotionConfig) -> None:
        self._sweep_s = config.sweep_s
        self._background: NDArray[np.float32] | None = None  # None before the detector ran
        self._newest = np.zeros(_SIZE[::-1], np.float32)
        self._noise = np.zeros(_SIZE[::-1], np.float32)
        self._learned_s = 0.0  # duration over which noise was learned
        self._newest_s = self._detected_s = float("-inf")

    def is_detector_due(self, image_rgb: Image, now_s: float) -> bool:
        """Return whether something moved in the next frame, or a sweep is due."""
        step = max(1, min(image_rgb.shape[:2]) // _MIN_SIDE_PX)
        green = np.ascontiguousarray(image_rgb[::step, ::step, 1])  # most of luma
        small = image.resize(green, *_SIZE, "area").astype(np.float32)
        if np.isfinite(self._newest_s):
            elapsed_s = max(0.0, now_s - self._newest_s)
            self._learned_s = min(_LEARNING_S, self._learned_s + elapsed_s)
            gain = min(1.0, elapsed_s / max(self._learned_s, 1e-6))
            self._noise += gain * (np.minimum(np.abs(small - self._newest), _MAX_NOISE) - self._noise)
        self._newest, self._newest_s = small, now_s
        if self._background is None or not 0 <= now_s - self._detected_s < self._sweep_s:
            return True
        changed = np.abs(small - self._background) > np.maximum(
            _MIN_CHANGE, _NOISE_FACTOR * np.maximum(self._noise, self._noise.mean())
        )
        return int(changed.sum()) >= _MIN_PIXELS

    def note_detection(self) -> None:
        """Take the newest frame as the background: the detector ran on it."""
        self._background, self._detected_s = self._newest, self._newest_s
