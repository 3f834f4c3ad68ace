"""The collection of unknown objects, wired to a device."""

from __future__ import annotations

from contextlib import ExitStack

from edge.config.schema import CameraConfig, DeviceConfig, KioskConfig, UnknownsConfig
from edge.manifest.model import Preprocess
from edge.recognition.pipeline import Result, TrackedObject
from edge.recognition.tracker import Track
from edge.telemetry.counters import Counters
from edge.telemetry.timing import Timings
from edge.types import Frame
from edge.unknowns.open_unknowns import margin_of, open_unknowns
from tests.edge.kiosk.kiosk_samples import scripted_models
from tests.edge.unknowns.test_collector import NOW, noise_frame, unknown_end
from tests.waiting import until

WHOLE = CameraConfig(source="v4l2://0", framing="whole_frame")


class Device:
    """What a runtime gives to its rooms."""

    def __init__(self, folder, **sections):
        self.config = DeviceConfig(
            state_dir=folder, cameras={"counter": WHOLE, "door": CameraConfig(source="v4l2://1")}, **sections
        )
        self.counters, self.models = Counters(), scripted_models()
        self.observers, self.event_observers, self.waiting_unknowns = [], [], lambda: None

    def see(self, camera):
        frame = Frame(camera, 0, noise_frame(), 1, NOW, "arrival")
        track = Track(7, (100.0, 60.0, 200.0, 160.0), "object", 3, 0.0, 1.0)
        for observe in self.observers:
            observe(frame, Result([], [TrackedObject(track, None)], Timings(), 1, {7: 1.0}))
        for observe in self.event_observers:
            observe(unknown_end(7, camera))


def config(**changes):
    return UnknownsConfig(upload_url="http://127.0.0.1:9/inbox", **changes)


def test_objects_of_the_kiosk_stay_out_unless_its_camera_is_named(tmp_path):
    device = Device(tmp_path / "one", kiosk=KioskConfig(camera="counter"))
    with ExitStack() as stack:
        open_unknowns(device, config(), stack)
        device.see("counter")
        device.see("door")
        until(lambda: device.waiting_unknowns().files, "the object at the door is kept")
    assert device.counters.total("unknowns", camera="counter") == 0
    named = Device(tmp_path / "two", kiosk=KioskConfig(camera="counter"))
    with ExitStack() as stack:
        open_unknowns(named, config(cameras=("counter",)), stack)
        named.see("door")
        named.see("counter")
    assert named.counters.total("unknowns") == named.counters.total("unknowns", camera="counter") == 1


def test_nothing_is_observed_after_the_end(tmp_path):
    device = Device(tmp_path)
    with ExitStack() as stack:
        open_unknowns(device, config(), stack)
        assert (len(device.observers), len(device.event_observers)) == (1, 1)
    assert (device.observers, device.event_observers) == ([], [])
    assert device.waiting_unknowns().files == 0


def test_picture_shows_what_the_embedders_see():
    models = scripted_models(preprocess=Preprocess(width=8, height=8, crop_margin=0.25))
    assert margin_of(models) == 0.25
