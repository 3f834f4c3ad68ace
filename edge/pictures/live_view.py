"""The annotated live view: the newest frame of each watched camera, with boxes and names, as JPEG.

Rules:
1. Without a viewer, the frame path does one look-up per frame, and nothing is drawn or encoded.
2. One thread draws and encodes for all viewers, each camera at most max_fps times a second.
3. A viewer takes the newest picture when it is ready for one: a slow viewer sees fewer, and delays nobody.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.config.schema import LiveConfig
from edge.imaging import image
from edge.imaging.pyramid import pyramid_of
from edge.recognition.pipeline import Result, TrackedObject
from edge.supervised_thread import SupervisedThread
from edge.telemetry.counters import Counters
from edge.types import Decision, Frame, Image

log = logging.getLogger(__name__)

_QUALITY = 80
_KNOWN, _UNKNOWN, _UNDECIDED = (46, 200, 90), (255, 140, 40), (190, 190, 190)
_PLACEHOLDER_PX = (640, 360)
_FAILURE_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class LivePicture:
    """One picture of the live view."""

    number: int  # grows from picture to picture of a camera
    jpeg: bytes
    names: tuple[str, ...] = field(default=())  # of the objects in it, from left to right


class LiveView:
    """The live view of all cameras: `with LiveView(...) as live`, and pass `observe` each frame."""

    def __init__(self, config: LiveConfig, counters: Counters) -> None:
        self._config, self._counters = config, counters
        self._viewers: Counter[str] = Counter()  # by camera; the frame path reads it without the lock
        self._frames: dict[str, tuple[Frame, list[TrackedObject]]] = {}  # newest, not drawn yet
        self._pictures: dict[str, LivePicture] = {}
        self._changed = threading.Condition()
        self._arrived, self._stop = threading.Event(), threading.Event()
        self._thread = SupervisedThread("live", self._run, counters)

    def __enter__(self) -> LiveView:  # noqa: PYI034  Self is not in Python 3.10
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._arrived.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.stop()

    def observe(self, frame: Frame, result: Result) -> None:
        """Keep a frame if somebody watches its camera; the frame path calls this, and it returns at once."""
        if self._viewers[frame.camera]:
            self._frames[frame.camera] = (frame, result.objects)
            self._arrived.set()

    def enter(self, camera: str) -> bool:
        """Count a viewer in; return False if there are too many. Call `leave` in the end."""
        with self._changed:
            if self._viewers.total() >= self._config.max_clients:
                self._counters.add("pictures_refused", reason="busy")
                return False
            self._viewers[camera] += 1
        return True

    def leave(self, camera: str) -> None:
        """Count a viewer out; the last one takes the camera's picture with it."""
        with self._changed:
            self._viewers[camera] -= 1
            if not self._viewers[camera]:
                self._pictures.pop(camera, None)
                self._frames.pop(camera, None)

    def next_picture(self, camera: str, after: int, timeout_s: float) -> LivePicture | None:
        """Wait for a picture with a number above `after`.

        Returns:
            The newest picture; a grey one if no frame came in time; None if the live view stops.
        """

        def is_newer() -> bool:
            return self._stop.is_set() or (camera in self._pictures and self._pictures[camera].number > after)

        with self._changed:
            came = self._changed.wait_for(is_newer, timeout_s)
            if self._stop.is_set():
                return None
            return self._pictures[camera] if came else LivePicture(after, _placeholder(camera))

    def names(self, camera: str) -> tuple[str, ...]:
        """Return the names of the objects in a camera's newest picture; empty while nobody watches it."""
        with self._changed:
            return self._pictures[camera].names if camera in self._pictures else ()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            self._arrived.wait()
            self._arrived.clear()
            started_s = time.monotonic()
            try:
                for camera in list(self._frames):
                    if (newest := self._frames.pop(camera, None)) is None:
                        continue  # its last viewer has left
                    number += 1
                    self._show(camera, number, *newest)
            except Exception:
                self._counters.add("live_failed")
                log.exception("live: a picture failed")
                self._stop.wait(_FAILURE_PAUSE_S)
            self._stop.wait(max(0.0, started_s + 1 / self._config.max_fps - time.monotonic()))

    def _show(self, camera: str, number: int, frame: Frame, objects: list[TrackedObject]) -> None:
        jpeg = image.encode_image(annotated(frame, objects, self._config.max_px), ".jpg", _QUALITY)
        from_left = sorted(objects, key=lambda one: one.track.box_px[0])
        picture = LivePicture(number, jpeg, tuple(name_of(one.decision) for one in from_left))
        with self._changed:
            if self._viewers[camera]:
                self._pictures[camera] = picture
                self._changed.notify_all()


def name_of(decision: Decision | None) -> str:
    """Return what to call an object: its item and the probability, its category and a question mark, or dots."""
    if decision is None:
        return "..."
    if decision.match is None:
        return f"{decision.category.name}?" if decision.category else "?"
    probability = decision.match.probability
    return decision.match.label + ("" if probability is None else f" {int(100 * probability)}%")  # never 100


def annotated(picture: Image | Frame, objects: Sequence[TrackedObject], width_px: int) -> Image:
    """Return a copy of a frame, at most `width_px` wide, with a box and a name for each object."""
    pyramid = pyramid_of(picture)
    scale = min(1.0, width_px / pyramid.width)
    shown = pyramid.resized(width_px, max(1, round(pyramid.height * scale))) if scale < 1 else pyramid.image_rgb
    canvas = np.array(shown, order="C")  # others use the picture, too
    for one in objects:
        x0, y0, x1, y1 = (edge * scale for edge in one.track.box_px)
        colour = _UNDECIDED if one.decision is None else _KNOWN if one.decision.match else _UNKNOWN
        image.draw_box(canvas, (x0, y0, x1, y1), colour)
        text_y = round(y0) - 6 if y0 > 20 else min(round(y0) + 18, canvas.shape[0] - 4)
        image.draw_text(canvas, name_of(one.decision), (max(0, round(x0)), text_y), colour, 0.55)
    return canvas


def _placeholder(camera: str) -> bytes:
    width, height = _PLACEHOLDER_PX
    canvas = np.full((height, width, 3), 40, np.uint8)
    image.draw_text(canvas, f"{camera}: no picture", (20, height // 2), (220, 220, 220), 0.8)
    return image.encode_image(canvas, ".jpg", _QUALITY)
