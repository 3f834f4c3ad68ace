"""Cameras of a device: switched, restarted and replaced."""

from __future__ import annotations

import threading
from functools import partial
from types import SimpleNamespace

import pytest

from edge.capture.camera import Camera
from edge.capture.cameras import Cameras
from edge.capture.latest_frames import LatestFrames
from edge.config.camera_url import parse_source
from edge.config.schema import CameraConfig
from tests.fakes import FakeSource, a_picture
from tests.waiting import DEADLINE_S

DOOR, ROOF = CameraConfig(source="rtsp://cam/1"), CameraConfig(source="rtsp://cam/2")


class FakeSources:
    """Opens endless sources, which close once `may_close` is set, and keeps the configurations of those opened."""

    def __init__(self):
        self.opened = []
        self.may_close = threading.Event()
        self.may_close.set()

    def build(self, latest_frames, name, config, on_state):
        return Camera(name, parse_source(config.source), partial(self._open, config), latest_frames, on_state)

    def _open(self, config):
        self.opened.append(config)
        return EndlessSource(self.may_close)


class EndlessSource(FakeSource):
    def __init__(self, may_close):
        super().__init__([])
        self._may_close, self._tick = may_close, threading.Event()

    def read(self, timeout_s):
        self._tick.wait(0.002)
        return a_picture()

    def close(self):
        self._may_close.wait(DEADLINE_S)


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def latest_frames():
    return LatestFrames()


@pytest.fixture
def sources():
    return FakeSources()


@pytest.fixture
def cameras(latest_frames, sources):
    cameras = Cameras(partial(sources.build, latest_frames), latest_frames, {"door": DOOR, "roof": ROOF}, Clock())
    yield cameras
    sources.may_close.set()
    cameras.close()


def turn_until(cameras, latest_frames, condition):
    """Run the frame loop's calls until a condition holds."""
    for _ in range(2000):
        cameras.open_due()
        latest_frames.take(0.005)
        if condition():
            return
    pytest.fail(f"states {cameras.states()}")


def statuses_of(cameras, name):
    return [(status.state, status.reason) for status in cameras.status_changes if status.camera == name]


def test_switched_off_camera_is_closed_and_the_other_goes_on(cameras, latest_frames, sources):
    turn_until(cameras, latest_frames, lambda: set(cameras.states().values()) == {"online"})
    cameras.switch("door", on=False)
    assert cameras.states() == {"door": "disabled", "roof": "online"}
    assert not cameras.is_open("door")
    assert statuses_of(cameras, "door")[-1] == ("disabled", "switched off")
    turn_until(cameras, latest_frames, lambda: latest_frames.take(0.1).camera == "roof")
    cameras.switch("door", on=True)
    turn_until(cameras, latest_frames, lambda: cameras.states()["door"] == "online")
    assert [config.source for config in sources.opened].count("rtsp://cam/2") == 1


def test_camera_that_is_not_enabled_starts_disabled(latest_frames, sources):
    off = DOOR.model_copy(update={"enabled": False})
    cameras = Cameras(partial(sources.build, latest_frames), latest_frames, {"door": off}, Clock())
    cameras.open_due()
    assert cameras.states() == {"door": "disabled"}
    assert statuses_of(cameras, "door") == [("disabled", "not enabled in the configuration")]
    assert sources.opened == []


def test_restarted_camera_opens_when_its_predecessor_has_closed(cameras, latest_frames, sources):
    turn_until(cameras, latest_frames, lambda: set(cameras.states().values()) == {"online"})
    sources.may_close.clear()
    cameras.restart("door")
    cameras.open_due()
    assert cameras.states()["door"] == "reconnecting"
    assert len(sources.opened) == 2
    sources.may_close.set()
    turn_until(cameras, latest_frames, lambda: cameras.states()["door"] == "online")
    assert len(sources.opened) == 3
    assert ("offline", "stopped") not in statuses_of(cameras, "door")  # the status of the closed one is ignored


def test_camera_that_hangs_on_close_is_replaced_after_ten_seconds(latest_frames, sources):
    clock = Clock()
    cameras = Cameras(partial(sources.build, latest_frames), latest_frames, {"door": DOOR}, clock)
    turn_until(cameras, latest_frames, lambda: cameras.states() == {"door": "online"})
    sources.may_close.clear()
    cameras.restart("door")
    clock.now_s = 9.0
    cameras.open_due()
    assert len(sources.opened) == 1
    clock.now_s = 10.0
    turn_until(cameras, latest_frames, lambda: cameras.states() == {"door": "online"})
    assert len(sources.opened) == 2
    sources.may_close.set()
    cameras.close()


def test_replace_adds_removes_and_reopens_by_name(cameras, latest_frames, sources):
    turn_until(cameras, latest_frames, lambda: set(cameras.states().values()) == {"online"})
    moved = CameraConfig(source="rtsp://cam/9")
    cameras.replace({"roof": moved, "till": DOOR}, ("roof", "till"))
    assert set(cameras.states()) == {"roof", "till"}
    assert statuses_of(cameras, "roof")[-1] == ("reconnecting", "its configuration changed")
    turn_until(cameras, latest_frames, lambda: set(cameras.states().values()) == {"online"})
    assert sorted(config.source for config in sources.opened[2:]) == ["rtsp://cam/1", "rtsp://cam/9"]


def test_replace_leaves_unchanged_cameras_alone(cameras, latest_frames, sources):
    turn_until(cameras, latest_frames, lambda: set(cameras.states().values()) == {"online"})
    cameras.switch("roof", on=False)
    cameras.replace({"door": DOOR, "roof": ROOF}, ())
    cameras.open_due()
    assert cameras.states() == {"door": "online", "roof": "disabled"}  # the switch keeps its position
    assert len(sources.opened) == 2


def test_drops_are_counted_once_across_restarts(cameras, latest_frames):
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


def test_camera_with_a_wrong_clock_is_listed_while_open(cameras, latest_frames):
    turn_until(cameras, latest_frames, lambda: set(cameras.states().values()) == {"online"})
    for name, offset_s in (("door", -3.25), ("roof", 0.1)):
        for second in range(9):
            cameras._running[name].clock.add(1_700_000_000 + offset_s, 1_700_000_000, second)
    assert cameras.clock_offsets_s() == {"door": -3.25, "roof": 0.1}
    assert cameras.clocks_off() == ("door",)
    cameras.switch("door", on=False)
    assert (cameras.clock_offsets_s(), cameras.clocks_off()) == ({"roof": 0.1}, ())


class HungCameras:
    """Cameras whose library never returns, and a clock on which each wait takes as long as it may."""

    def __init__(self, count):
        self.clock = Clock()
        self.waits_s = []
        self.names = [f"c{number}" for number in range(count)]

    def build(self, name, config, on_state):
        return SimpleNamespace(name=name, start=lambda: None, stop=self._stop, dropped={}, state="stalled")

    def _stop(self, timeout_s=5.0):
        self.waits_s.append(timeout_s)
        self.clock.now_s += timeout_s
        return False


@pytest.mark.parametrize("removed", [0, 3])
def test_hung_cameras_are_waited_for_together(latest_frames, caplog, removed):
    hung = HungCameras(6)
    cameras = Cameras(hung.build, latest_frames, dict.fromkeys(hung.names, DOOR), hung.clock)
    cameras.open_due()
    cameras.replace(dict.fromkeys(hung.names[removed:], DOOR), ())
    assert hung.clock.now_s == 0.0  # a reload waits for none
    cameras.close()
    assert hung.clock.now_s == 5.0
    assert sum(wait_s == 0.0 for wait_s in hung.waits_s) >= 6  # each was asked first
    named = caplog.records[-1].message
    assert all(name in named for name in hung.names)
    assert named.endswith("still in their library after 5 s; left behind")


def test_status_of_an_online_camera_has_no_reason(cameras, latest_frames):
    turn_until(cameras, latest_frames, lambda: set(cameras.states().values()) == {"online"})
    assert statuses_of(cameras, "door")[-1] == ("online", "")
    assert cameras.reasons()["door"] == "6x4 by fake"
