"""Hand frames from the capture threads to the pipeline: one slot per camera, the newest frame wins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from edge.types import Frame


class LatestFrames:
    """The newest frame of every camera, first come, first served.

    Rules:
    1. A camera has one slot. A newer frame takes the older one's place in the queue, so no camera starves.
    2. Nothing here blocks a live camera; `put_when_free` makes a file wait for its reader instead.
    3. A camera registers with `add` and leaves with `remove`. `drained` is true when all cameras have left and all
       frames are taken.
    """

    def __init__(self) -> None:
        self._slots: dict[str, Frame] = {}  # in the order in which the cameras began to wait
        self._cameras: set[str] = set()
        self._changed = threading.Condition()

    def add(self, camera: str) -> None:
        """Expect frames of a camera."""
        with self._changed:
            self._cameras.add(camera)

    def remove(self, camera: str) -> None:
        """Expect no more frames of a camera; its last frame can still be taken."""
        with self._changed:
            self._cameras.discard(camera)
            self._changed.notify_all()

    def discard(self, camera: str) -> None:
        """Discard the last frame of a closed camera."""
        with self._changed:
            self._slots.pop(camera, None)
            self._changed.notify_all()

    def put_newest(self, frame: Frame) -> bool:
        """Put a frame in place of an older one; return whether it replaced one that nobody took."""
        with self._changed:
            superseded = frame.camera in self._slots
            self._slots[frame.camera] = frame
            self._changed.notify_all()
        return superseded

    def put_when_free(self, frame: Frame, stopping: Callable[[], bool]) -> bool:
        """Put a frame once the previous one is taken; return False if `stopping` returned true first (see `wake`)."""
        with self._changed:
            self._changed.wait_for(lambda: frame.camera not in self._slots or stopping())
            if stopping():
                return False
            self._slots[frame.camera] = frame
            self._changed.notify_all()
        return True

    def take(self, timeout_s: float) -> Frame | None:
        """Take the frame of the camera that has waited longest; None when no frame came in time."""
        frames = self.take_several(timeout_s, 1)
        return frames[0] if frames else None

    def take_several(self, timeout_s: float, most: int) -> list[Frame]:
        """Take up to `most` frames, of the cameras that have waited longest; empty when no frame came in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._slots or not self._cameras, timeout_s)
            frames = [self._slots.pop(camera) for camera in list(self._slots)[:most]]
            if frames:
                self._changed.notify_all()
        return frames

    @property
    def drained(self) -> bool:
        """Whether every camera has left and every frame is taken."""
        with self._changed:
            return not self._cameras and not self._slots

    def frames(self, stopping: Callable[[], bool] = lambda: False, poll_s: float = 0.5) -> Iterator[Frame]:
        """Yield every frame in turn, until all cameras have ended or `stopping` returns true."""
        while not stopping():
            frame = self.take(poll_s)
            if frame is not None:
                yield frame
            elif self.drained:
                return

    def wake(self) -> None:
        """Make waiting threads check their conditions again."""
        with self._changed:
            self._changed.notify_all()
