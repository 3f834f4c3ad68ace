"""The frame path of a running device: frames in, events sent; a frame that fails costs no other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection

from edge.capture.recorder import Recorders
from edge.errors import FinesightError
from edge.messaging.device_publisher import DevicePublisher
from edge.recognition.gallery_drift import GalleryDrift
from edge.recognition.pipeline import FrameDetections, Pipeline, Result
from edge.telemetry.metrics import Counters, StageTimer
from edge.types import Event, Frame

log = logging.getLogger(__name__)

_FAILURE_PAUSE_S = 1.0


class FrameLoop:
    """Drives the pipeline; only the frame loop calls it."""

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        device_publisher: DevicePublisher,
        recorders: Recorders,
        freshness: GalleryDrift,
        counters: Counters,
        timer: StageTimer,
    ) -> None:
        self.pipeline = pipeline
        self.observers: list[Callable[[Frame, Result], None]] = []  # told of each recognised frame; must not wait
        self._device_publisher, self._recorders, self._freshness = device_publisher, recorders, freshness
        self._counters, self._timer = counters, timer

    def recognise(self, frames: list[Frame], stop: threading.Event) -> None:
        """Recognise what was taken at once: one run of the detector, then frame by frame.

        Args:
            frames: of different cameras.
            stop: ends the pause after a failure.
        """
        for frame in frames:
            self._recorders.recognised(frame)
        try:
            glances = self.pipeline.detect(frames)
        except Exception:
            log.exception("cameras %s: the detector failed", ", ".join(frame.camera for frame in frames))
            for frame in frames:
                self._counters.add("frames_failed", camera=frame.camera)
            stop.wait(_FAILURE_PAUSE_S)
            return
        for frame, glance in zip(frames, glances, strict=True):
            self._recognise_one(frame, glance, stop)

    def recall(self) -> None:
        """Search some of what has left again, where another gallery serves since."""
        try:
            self._send(self.pipeline.recall())
        except FinesightError:
            self._counters.add("recalls_failed")
            log.exception("an object that has left cannot be searched again")

    def end_tracks(self, camera: str) -> None:
        """End every track of a camera."""
        self._send(self.pipeline.end_tracks(camera))

    def replace_pipeline(self, pipeline: Pipeline, changed: Collection[str]) -> None:
        """Recognise by another pipeline, which takes the tracks over but for those of cameras that changed."""
        pipeline.take_over(self.pipeline, changed)
        self.pipeline = pipeline

    def _recognise_one(self, frame: Frame, glance: FrameDetections, stop: threading.Event) -> None:
        try:
            result = self.pipeline.process(frame, glance)
        except Exception:
            self._counters.add("frames_failed", camera=frame.camera)
            log.exception("camera %s: frame %d failed", frame.camera, frame.index)
            stop.wait(_FAILURE_PAUSE_S)
            return
        self._counters.add("frames_recognised", camera=frame.camera)
        self._counters.add("looks", result.looks, camera=frame.camera)
        self._timer.add(result.timings.stages_ms)
        self._send(result.events)
        for observe in self.observers:
            observe(frame, result)

    def _send(self, events: list[Event]) -> None:
        for event in events:
            if event.type == "end":
                self._freshness.note(event.decision, self.pipeline.models)
            if "capture_to_decision" in event.latency_ms:
                self._timer.add({"capture_to_decision": event.latency_ms["capture_to_decision"]})
            self._device_publisher.publish_event(event)
            self._counters.add("events", camera=event.camera, type=event.type)
