"""One slot per camera, shared by all: where capture threads leave frames and the pipeline takes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from edge.types import Frame


class Mailbox:
    """The newest frame of every camera, handed out first come, first served.

    Rules:
    1. A camera has one slot. A newer frame takes the older one's place in the queue, so no camera starves.
    2. Nothing here blocks a live camera; `put_when_free` makes a file wait for its reader instead.
    3. A camera announces itself with `add` and leaves with `remove`; `drained` when all have left and all is taken.
    """

    def __init__(self) -> None:
        self._slots: dict[str, Frame] = {}  # in the order in which their cameras began to wait
        self._cameras: set[str] = set()
        self._changed = threading.Condition()

    def add(self, camera: str) -> None:
        """Expect frames of a camera."""
        with self._changed:
            self._cameras.add(camera)

    def remove(self, camera: str) -> None:
        """Expect no more frames of a camera; what it left can still be taken."""
        with self._changed:
            self._cameras.discard(camera)
            self._changed.notify_all()

    def discard(self, camera: str) -> None:
        """Throw away what a camera left that was closed."""
        with self._changed:
            self._slots.pop(camera, None)
            self._changed.notify_all()

    def put_newest(self, frame: Frame) -> bool:
        """Leave a frame in place of an older one; whether there was one, which nobody will see."""
        with self._changed:
            superseded = frame.camera in self._slots
            self._slots[frame.camera] = frame
            self._changed.notify_all()
        return superseded

    def put_when_free(self, frame: Frame, stopping: Callable[[], bool]) -> bool:
        """Leave a frame once the one before it was taken; False when stopping came first (see `wake`)."""
        with self._changed:
            self._changed.wait_for(lambda: frame.camera not in self._slots or stopping())
            if stopping():
                return False
            self._slots[frame.camera] = frame
            self._changed.notify_all()
        return True

    def take(self, timeout_s: float) -> Frame | None:
        """The frame of the camera that has waited longest; None when none came in time."""
        frames = self.take_several(timeout_s, 1)
        return frames[0] if frames else None

    def take_several(self, timeout_s: float, most: int) -> list[Frame]:
        """The frames that are here, of the cameras that have waited longest; none when none came in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._slots or not self._cameras, timeout_s)
            frames = [self._slots.pop(camera) for camera in list(self._slots)[:most]]
            if frames:
                self._changed.notify_all()
        return frames

    @property
    def drained(self) -> bool:
        """Whether every camera has left and every frame was taken."""
        with self._changed:
            return not self._cameras and not self._slots

    def frames(self, stopping: Callable[[], bool] = lambda: False, poll_s: float = 0.5) -> Iterator[Frame]:
        """Every frame taken in turn, until all cameras have ended, or stopping says so."""
        while not stopping():
            frame = self.take(poll_s)
            if frame is not None:
                yield frame
            elif self.drained:
                return

    def wake(self) -> None:
        """Let whoever waits look again at why."""
        with self._changed:
            self._changed.notify_all()
