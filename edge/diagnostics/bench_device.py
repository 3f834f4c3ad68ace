"""One device under measurement: the pipeline of a camera and an outbox, run frame by frame on the calling thread."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from edge.config.schema import CameraConfig, DeviceConfig
from edge.diagnostics.bench_frames import CAMERA, ReadFrame
from edge.messaging.outbox import Outbox
from edge.messaging.payload import event_payload, priority_of, topic_of
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.pipeline import Pipeline
from edge.telemetry.counters import Counters
from edge.telemetry.timing import StageTimer
from edge.types import Box, Event


@dataclass(frozen=True, slots=True)
class FrameSample:
    """What one frame cost."""

    captured_s: float  # when the frame was captured
    stages_ms: dict[str, float]
    process_ms: float  # wall time from motion or detector to decision
    frame_ms: float  # wall time of everything, reading included
    cpu_ms: float  # processor time of all threads, reading included
    waited_ms: float  # of process_ms, in which the thread did not run
    looks: int  # tracks that were embedded


class FrameClock:
    """A clock that shows when the newest frame was captured, in nanoseconds."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        """Return the time."""
        return self.now_ns


class BenchDevice:
    """Runs frames through a pipeline and keeps what each cost."""

    def __init__(self, config: DeviceConfig, camera: CameraConfig, models: LoadedModels, folder: Path) -> None:
        """Build the parts.

        Args:
            config: of the device.
            camera: whose frames it gets.
            models: to recognise with.
            folder: an empty one, for the outbox.

        Raises:
            OutboxError: the folder cannot be written.
        """
        self.config, self.models = config, models
        self.counts = Counters()
        self.samples: list[FrameSample] = []
        self.events: list[Event] = []
        self.size_px = (0, 0)  # height and width of the newest frame
        self._clock = FrameClock()
        self._timer = StageTimer()
        self._pipeline = Pipeline(models, {CAMERA: camera}, config.recognition, self.counts, self._clock)
        self._outbox = Outbox(folder / "outbox.sqlite", self.counts)
        self._topic = topic_of("finesight", config.site, config.device, CAMERA, "events")

    def __enter__(self) -> BenchDevice:  # noqa: PYI034  Self is not in Python 3.10
        return self

    def __exit__(self, *_exception: object) -> None:
        self._outbox.close()

    def end(self) -> None:
        """End every track: the source has ended. This is not measured."""
        self.events += self._pipeline.end_tracks(CAMERA)

    def take(self, read: ReadFrame) -> list[tuple[int, Box]]:
        """Recognise a frame and queue its events, as the frame loop of a device does.

        Returns:
            the tracks in the frame: their ids and boxes in pixels.

        Raises:
            EngineError: a model failed.
        """
        frame, config = replace(read.frame), self.config
        frame.halves.update(read.frame.halves)  # those that another device needs are its own work
        self._clock.now_ns = max(self._clock.now_ns, frame.captured_ns)
        cpu_ns, own_ns, started_ns = time.process_time_ns(), time.thread_time_ns(), time.perf_counter_ns()
        result = self._pipeline.process(frame)
        processed_ns, own_ns = time.perf_counter_ns(), time.thread_time_ns() - own_ns
        messages = [
            (event_payload(event, config.site, config.device, CAMERA, number), priority_of(event.type), event.event_id)
            for number, event in enumerate(result.events, len(self.events))
        ]
        made_ns = time.perf_counter_ns()
        for payload, priority, event_id in messages:
            self._outbox.put(self._topic, payload, priority, event_id)
        queued_ns = time.perf_counter_ns()
        self.counts.add("frames_recognised", camera=CAMERA)
        self.counts.add("looks", result.embedded, camera=CAMERA)
        self._timer.add(result.timings.stages_ms)
        done_ns = time.perf_counter_ns()
        cpu_ms = (time.process_time_ns() - cpu_ns) / 1e6
        stages_ms = read.stages_ms | result.timings.stages_ms
        stages_ms["telemetry"] = (done_ns - queued_ns) / 1e6
        if messages:
            stages_ms |= {"payload": (made_ns - processed_ns) / 1e6, "outbox": (queued_ns - made_ns) / 1e6}
        self.events += result.events
        self.size_px = frame.image_rgb.shape[:2]
        self.samples.append(
            FrameSample(
                frame.captured_ns / 1e9,
                stages_ms,
                (processed_ns - started_ns) / 1e6,
                sum(read.stages_ms.values()) + (done_ns - started_ns) / 1e6,
                read.cpu_ms + read.stages_ms.get("view", 0.0) + cpu_ms,
                max(0.0, (processed_ns - started_ns - own_ns) / 1e6),
                result.embedded,
            )
        )
        return [(one.track.track_id, one.track.box_px) for one in result.objects]
