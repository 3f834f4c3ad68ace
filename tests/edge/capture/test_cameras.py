from __future__ import annotations

import threading
from functools import partial

import pytest

from edge.capture.camera import Camera
from edge.capture.cameras import Cameras
from edge.capture.latest_frames import LatestFrames
from edge.config.camera_url import parse_source
from edge.config.schema import CameraConfig
from tests.fakes import FakeSource, a_picture

DEADLINE_S = 10.0
DOOR, ROOF = CameraConfig(source="rtsp://cam/1"), CameraConfig(source="rtsp://cam/2")


class Doors:
    """Opens doors that hold their camera until they are let go, and remembers them."""

    def __init__(self):
        self.opened = []
        self.hold = threading.Event()
        self.hold.set()

    def build(self, latest_frames, name, config, on_state):
        return Camera(name, parse_source(config.source), partial(self._open, config), latest_frames, on_state)

    def _open(self, config):
        self.opened.append(config)
        return _Endless(self.hold)


class _Endless(FakeSource):
    def __init__(self, hold):
        super().__init__([])
        self._hold, self._tick = hold, threading.Event()

    def read(self, timeout_s):
        self._tick.wait(0.002)
        return a_picture()

    def close(self):
        self._hold.wait(DEADLINE_S)


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def latest_frames():
    return LatestFrames()


@pytest.fixture
def doors():
    return Doors()


@pytest.fixture
def cameras(latest_frames, doors):
    cameras = Cameras(partial(doors.build, latest_frames), latest_frames, {"door": DOOR, "roof": ROOF}, Clock())
    yield cameras
    doors.hold.set()
    cameras.close()


def turn_until(cameras, latest_frames, condition):
    """Turn the frame loop until something holds."""
    for _ in range(2000):
        cameras.open_due()
        latest_frames.take(0.005)
        if condition():
            return
    pytest.fail(f"states {cameras.states()}")


def told(cameras, name):
    return [(status.state, status.reason) for status in cameras.status_changes if status.camera == name]


def test_a_camera_that_is_switched_off_is_closed_and_the_other_goes_on(cameras, latest_frames, doors):
    turn_until(cameras, latest_frames, lambda: set(cameras.states().values()) == {"online"})
    cameras.switch("door", on=False)
    assert cameras.states() == {"door": "disabled", "roof": "online"}
    assert not cameras.is_open("door")
    assert told(cameras, "door")[-1] == ("disabled", "switched off")
    turn_until(cameras, latest_frames, lambda: latest_frames.take(0.1).camera == "roof")
    cameras.switch("door", on=True)
    turn_until(cameras, latest_frames, lambda: cameras.states()["door"] == "online")
    assert [config.source for config in doors.opened].count("rtsp://cam/2") == 1


def test_what_is_not_enabled_is_disabled_from_the_start(latest_frames, doors):
    off = DOOR.model_copy(update={"enabled": False})
    cameras = Cameras(partial(doors.build, latest_frames), latest_frames, {"door": off}, Clock())
    cameras.open_due()
    assert cameras.states() == {"door": "disabled"}
    assert told(cameras, "door") == [("disabled", "not enabled in the configuration")]
    assert doors.opened == []


def test_a_restarted_camera_opens_when_the_one_before_has_let_go(cameras, latest_frames, doors):
    turn_until(cameras, latest_frames, lambda: set(cameras.states().values()) == {"online"})
    doors.hold.clear()
    cameras.restart("door")
    cameras.open_due()
    assert cameras.states()["door"] == "reconnecting"
    assert len(doors.opened) == 2
    doors.hold.set()
    turn_until(cameras, latest_frames, lambda: cameras.states()["door"] == "online")
    assert len(doors.opened) == 3
    assert ("offline", "stopped") not in told(cameras, "door")  # what the closed one says last is not heard


def test_a_camera_that_hangs_is_replaced_after_a_while(latest_frames, doors):
    clock = Clock()
    cameras = Cameras(partial(doors.build, latest_frames), latest_frames, {"door": DOOR}, clock)
    turn_until(cameras, latest_frames, lambda: cameras.states() == {"door": "online"})
    doors.hold.clear()
    cameras.restart("door")
    clock.now_s = 9.0
    cameras.open_due()
    assert len(doors.opened) == 1
    clock.now_s = 10.0
    turn_until(cameras, latest_frames, lambda: cameras.states() == {"door": "online"})
    assert len(doors.opened) == 2
    doors.hold.set()
    cameras.close()


def test_other_cameras_are_taken_over_by_name(cameras, latest_frames, doors):
    turn_until(cameras, latest_frames, lambda: set(cameras.states().values()) == {"online"})
    moved = CameraConfig(source="rtsp://cam/9")
    cameras.replace({"roof": moved, "till": DOOR}, ("roof", "till"))
    assert set(cameras.states()) == {"roof", "till"}
    assert told(cameras, "roof")[-1] == ("reconnecting", "its configuration changed")
    turn_until(cameras, latest_frames, lambda: set(cameras.states().values()) == {"online"})
    assert sorted(config.source for config in doors.opened[2:]) == ["rtsp://cam/1", "rtsp://cam/9"]


def test_an_unchanged_camera_keeps_running_through_a_reload(cameras, latest_frames, doors):
    turn_until(cameras, latest_frames, lambda: set(cameras.states().values()) == {"online"})
    cameras.switch("roof", on=False)
    cameras.replace({"door": DOOR, "roof": ROOF}, ())
    cameras.open_due()
    assert cameras.states() == {"door": "online", "roof": "disabled"}  # the switch stays where it was put
    assert len(doors.opened) == 2


def test_drops_are_counted_once_over_restarts(cameras, latest_frames):
    turn_until(cameras, latest_frames, lambda: set(cameras.states().values()) == {"online"})
    first = cameras._running["door"]
    first.dropped["unreadable"] += 3
    assert cameras.new_drops()["door", "unreadable"] == 3
    assert cameras.new_drops()["door", "unreadable"] == 0
    cameras.restart("door")
    first.dropped["unreadable"] += 1
    assert cameras.new_drops()["door", "unreadable"] == 1
    turn_until(cameras, latest_frames, lambda: cameras.states()["door"] == "online")
    assert cameras.new_drops()["door", "unreadable"] == 0


def test_a_camera_whose_clock_is_off_is_named_while_it_is_open(cameras, latest_frames):
    turn_until(cameras, latest_frames, lambda: set(cameras.states().values()) == {"online"})
    for name, offset_s in (("door", -3.25), ("roof", 0.1)):
        for second in range(9):
            cameras._running[name].clock.add(1_700_000_000 + offset_s, 1_700_000_000, second)
    assert cameras.clock_offsets_s() == {"door": -3.25, "roof": 0.1}
    assert cameras.clocks_off() == ("door",)
    cameras.switch("door", on=False)
    assert (cameras.clock_offsets_s(), cameras.clocks_off()) == ({"roof": 0.1}, ())
