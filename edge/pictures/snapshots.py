"""Snapshots: a JPEG of each recognised object, cut from the frame in which it was recognised.

Rules:
1. The frame path only queues a frame and a box. A thread of this module cuts and encodes.
2. At most _MAX_WAITING wait. A full queue drops its oldest, and counts it.
3. Only recognised objects are pictured: events with a match, of the frame in which they were made.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edge.config.schema import SnapshotConfig
from edge.imaging import image
from edge.recognition.pipeline import Result
from edge.supervised_thread import SupervisedThread
from edge.telemetry.counters import Counters
from edge.types import Event, Frame, Image

log = logging.getLogger(__name__)

MAX_BYTES = 100_000  # some brokers refuse messages above 128 KiB
_MAX_WAITING = 8
_QUALITIES = (85, 70, 50, 30)  # tried in turn until the picture is small enough
_SHRINK = 0.7


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One encoded picture of one recognised object."""

    camera: str
    jpeg: bytes
    event_id: str  # of the event that recognised it
    captured_at: float  # Unix seconds


class Snapshots:
    """The newest snapshot of each camera: `with Snapshots(...) as snapshots`, and pass `observe` each frame."""

    def __init__(self, config: SnapshotConfig, publish: Callable[[str, bytes], None], counters: Counters) -> None:
        """Prepare; entering the context starts the thread.

        Args:
            config: margin and size.
            publish: gets the camera and each JPEG, on the thread of this object.
            counters: counts `snapshots` and `snapshots_dropped`.
        """
        self._config, self._publish, self._counters = config, publish, counters
        self._waiting: deque[tuple[Image, Event]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._newest: dict[str, Snapshot] = {}
        self._thread = SupervisedThread("snapshots", self._run, counters)

    def __enter__(self) -> Snapshots:  # noqa: PYI034  Self is not in Python 3.10
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.stop()

    def observe(self, frame: Frame, result: Result) -> None:
        """Queue the objects that this frame recognised; the frame path calls this, and it returns at once."""
        recognised = [event for event in result.events if _is_pictured(event, frame)]
        if not recognised:
            return
        with self._changed:
            for event in recognised:
                if len(self._waiting) >= _MAX_WAITING:
                    _, dropped = self._waiting.popleft()
                    self._counters.add("snapshots_dropped", camera=dropped.camera, reason="full")
                self._waiting.append((frame.image_rgb, event))
            self._changed.notify()

    def newest(self, camera: str) -> Snapshot | None:
        """Return the newest snapshot of a camera since the start; from any thread."""
        return self._newest.get(camera)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return
                image_rgb, event = self._waiting.popleft()
            try:
                snapshot = Snapshot(
                    event.camera, encode(image_rgb, event, self._config), event.event_id, event.captured_at
                )
                self._newest[event.camera] = snapshot
                self._publish(event.camera, snapshot.jpeg)
                self._counters.add("snapshots", camera=event.camera)
            except Exception:
                self._counters.add("snapshots_dropped", camera=event.camera, reason="failed")
                log.exception("camera %s: a snapshot failed", event.camera)


def encode(image_rgb: Image, event: Event, config: SnapshotConfig) -> bytes:
    """Return the JPEG of the object of an event, of at most MAX_BYTES."""
    height, width = image_rgb.shape[:2]
    x0, y0, x1, y1 = event.box_rel
    picture = image.crop(image_rgb, (x0 * width, y0 * height, x1 * width, y1 * height), config.margin)
    longest_px = float(config.max_px)
    while True:
        picture = image.shrink(picture, longest_px)
        for quality in _QUALITIES:
            jpeg = image.encode_image(picture, ".jpg", quality)
            if len(jpeg) <= MAX_BYTES:
                return jpeg
        longest_px = max(picture.shape[:2]) * _SHRINK


def _is_pictured(event: Event, frame: Frame) -> bool:
    # an object that left before its event was made is no longer where its box says
    return event.decision.match is not None and event.type != "end" and event.captured_ns == frame.captured_ns
