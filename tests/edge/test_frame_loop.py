"""The frame loop: a failure affects only its own frames."""

import threading

import pytest

from edge.capture.recorder import Recorders
from edge.config.schema import CameraConfig, DeviceConfig, RecognitionConfig
from edge.errors import EngineError, GpuError
from edge.frame_loop import FrameLoop
from edge.messaging.device_publisher import DevicePublisher, PublishLatency
from edge.recognition.gallery_drift import GalleryDrift
from edge.recognition.pipeline import Pipeline
from edge.telemetry.timing import StageTimer
from tests.edge.recognition.test_pipeline import Bench
from tests.fakes_engine import frame_at


class Device:
    """Two cameras of one device without a broker, with the scripted engines of a pipeline bench."""

    def __init__(self, folder, outbox, counters):
        self.bench, self.outbox, self.stop = Bench(), outbox, threading.Event()
        self.stop.set()  # so that no test waits for a pause
        self.cameras = {name: CameraConfig(source=f"rtsp://{name}") for name in ("door", "till")}
        self.recognition = RecognitionConfig(min_looks=1, min_object_px=8)
        self.counters, self.timer = counters, StageTimer()
        self.lost = []
        config = DeviceConfig(site="shop", device="one", state_dir=folder, cameras=self.cameras)
        publish_latency = PublishLatency(self.timer, self.bench.clock)
        self.frame_loop = FrameLoop(
            self.pipeline(),
            publisher=DevicePublisher(config, "boot", outbox, publish_latency, counters),
            recorders=Recorders(folder / "ring", counters),
            gallery_drift=GalleryDrift(folder / "first_answers.json"),
            counters=counters,
            timer=self.timer,
            on_gpu_error=self.lost.append,
        )

    def pipeline(self):
        return Pipeline(self.bench.pipeline.models, self.cameras, self.recognition, self.counters, self.bench.clock)

    def show(self, *cameras, at_s):
        self.frame_loop.recognise([frame_at(at_s, None, camera) for camera in cameras], self.stop)

    def topics(self):
        return [message.topic for message in self.outbox.pending(100)]


@pytest.fixture
def device(tmp_path, outbox, counters):
    return Device(tmp_path, outbox, counters)


def test_events_wait_in_the_outbox_and_observers_see_every_frame(device, counters):
    seen, events = [], []
    device.frame_loop.observers.append(lambda frame, result: seen.append((frame.camera, len(result.objects))))
    device.frame_loop.event_observers.append(lambda event: events.append((event.camera, event.type)))
    for n in range(3):
        device.show("door", "till", at_s=n / 10)
    device.frame_loop.end_tracks("door")
    assert device.topics() == [f"finesight/shop/one/{camera}/events" for camera in ("door", "till", "door")]
    assert seen == [("door", 1), ("till", 1)] * 3
    assert events == [("door", "new"), ("till", "new"), ("door", "end")]
    assert counters.total("frames_recognised") == 6
    assert counters.total("events", type="new") == 2
    assert counters.total("events", camera="door", type="end") == 1
    assert device.timer.snapshot()["capture_to_decision"].count == 2


def test_failing_detector_loses_only_its_frames(device, counters):
    device.bench.detector.broken = True
    device.show("door", "till", at_s=0.0)
    device.bench.detector.broken = False
    for n in range(1, 3):
        device.show("door", at_s=n / 10)
    assert counters.total("frames_failed") == 2
    assert counters.total("frames_recognised") == 2
    assert len(device.topics()) == 1


def test_failing_frame_affects_no_other(device, counters):
    device.show("door", "till", at_s=0.0)
    device.bench.embedder.broken = True
    device.show("door", at_s=0.1)
    device.bench.embedder.broken = False
    device.show("till", at_s=0.1)
    assert counters.total("frames_failed", camera="door") == 1
    assert counters.total("frames_failed", camera="till") == 0
    assert device.topics() == ["finesight/shop/one/till/events"]


@pytest.mark.parametrize("part", ["detector", "embedder"])
def test_lost_gpu_is_told(device, part):
    device.show("door", at_s=0.0)
    error = GpuError("CUDA: cudaErrorLaunchFailure")
    getattr(device.bench, part).broken = error
    device.show("door", at_s=1.0)
    getattr(device.bench, part).broken = EngineError("found an embedding of zeros")
    device.show("door", at_s=2.0)
    assert device.lost == [error]


def test_replaced_pipeline_continues_the_tracks(device, counters):
    for n in range(2):
        device.show("door", at_s=n / 10)
    device.frame_loop.replace_pipeline(device.pipeline(), changed=())
    device.frame_loop.end_tracks("door")
    assert counters.total("events", type="new") == 1
    assert counters.total("events", type="end") == 1
