"""The frame path of a running device: frames in, events published; a frame that fails affects no other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection

from edge.capture.recorder import Recorders
from edge.config.schema import CameraConfig, RecognitionConfig
from edge.errors import FinesightError, GpuError
from edge.messaging.device_publisher import DevicePublisher
from edge.recognition.gallery_drift import GalleryDrift
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.pipeline import FrameDetections, Pipeline, Result
from edge.telemetry.counters import Counters
from edge.telemetry.timing import StageTimer
from edge.types import Event, Frame

log = logging.getLogger(__name__)

_FAILURE_PAUSE_S = 1.0


class FrameLoop:
    """Runs the pipeline on frames and publishes its events; every method is called by one thread."""

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        publisher: DevicePublisher,
        recorders: Recorders,
        gallery_drift: GalleryDrift,
        counters: Counters,
        timer: StageTimer,
        on_gpu_error: Callable[[GpuError], None] = lambda _: None,
    ) -> None:
        self.pipeline = pipeline
        self.observers: list[Callable[[Frame, Result], None]] = []  # called for each recognised frame; must not wait
        self.event_observers: list[Callable[[Event], None]] = []  # called for each event; must not wait
        self._publisher, self._recorders, self._gallery_drift = publisher, recorders, gallery_drift
        self._counters, self._timer, self._on_gpu_error = counters, timer, on_gpu_error

    def recognise(self, frames: list[Frame], stop: threading.Event) -> None:
        """Recognise frames taken together: run the detector once on all, then go frame by frame.

        Args:
            frames: of different cameras.
            stop: ends the pause after a failure.
        """
        for frame in frames:
            self._recorders.recognised(frame)
        try:
            detected = self.pipeline.detect(frames)
        except Exception as error:
            log.exception("cameras %s: the detector failed", ", ".join(frame.camera for frame in frames))
            for frame in frames:
                self._counters.add("frames_failed", camera=frame.camera)
            self._pause_after(error, stop)
            return
        for frame, detections in zip(frames, detected, strict=True):
            self._recognise_frame(frame, detections, stop)

    def reidentify(self) -> None:
        """Search some of the departed objects again, if another gallery has become active."""
        try:
            self._publish(self.pipeline.reidentify())
        except FinesightError:
            self._counters.add("recalls_failed")
            log.exception("searching departed objects failed")

    def end_tracks(self, camera: str) -> None:
        """End every track of a camera."""
        self._publish(self.pipeline.end_tracks(camera))

    def replace_pipeline(self, pipeline: Pipeline, changed: Collection[str]) -> None:
        """Use another pipeline, which continues the tracks except those of cameras that changed."""
        pipeline.take_over(self.pipeline, changed)
        self.pipeline = pipeline

    def _recognise_frame(self, frame: Frame, detections: FrameDetections, stop: threading.Event) -> None:
        try:
            result = self.pipeline.process(frame, detections)
        except Exception as error:
            self._counters.add("frames_failed", camera=frame.camera)
            log.exception("camera %s: frame %d failed", frame.camera, frame.index)
            self._pause_after(error, stop)
            return
        self._counters.add("frames_recognised", camera=frame.camera)
        self._counters.add("looks", result.embedded, camera=frame.camera)
        self._timer.add(result.timings.stages_ms)
        self._publish(result.events)
        for observe in self.observers:
            observe(frame, result)

    def _pause_after(self, error: Exception, stop: threading.Event) -> None:
        if isinstance(error, GpuError):  # every frame fails until the CPU takes over
            self._on_gpu_error(error)
        stop.wait(_FAILURE_PAUSE_S)

    def _publish(self, events: list[Event]) -> None:
        for event in events:
            if event.type == "end":
                self._counters.add("answers", result="unknown" if event.decision.match is None else "known")
                self._gallery_drift.add(event.decision, self.pipeline.models)
            if "capture_to_decision" in event.latency_ms:
                self._timer.add({"capture_to_decision": event.latency_ms["capture_to_decision"]})
            self._publisher.publish_event(event)
            for observe in self.event_observers:
                observe(event)
            self._counters.add("events", camera=event.camera, type=event.type)


def build_pipeline(
    models: LoadedModels, recognition: RecognitionConfig, cameras: dict[str, CameraConfig], counts: Counters
) -> Pipeline:
    """Build a pipeline for these cameras."""
    return Pipeline(models, cameras, recognition, counts, time.monotonic_ns)
