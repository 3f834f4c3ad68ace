"""The demo stream over RTSP: one event for each object, whatever the network does with the time of the frames."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest

from edge.capture.frame_source import CaptureOptions
from edge.capture.open_source import open_source
from edge.config.camera_url import parse_source
from edge.config.schema import DeviceConfig
from edge.demo.score import read_ground_truth
from edge.recognition.scene_clock import SceneClock
from edge.runtime import Runtime
from edge.types import Frame
from tests.integration.live_cameras import BACKENDS
from tests.integration.rtsp_proxy import RtspProxy
from tests.integration.rtsp_server import PATH, RtspServer
from tests.integration.test_device import DEMO, install
from tests.waiting import LONG_DEADLINE_S

MOST_NEW, LEAST_NEW = 32, 24  # of 30 objects; FFmpeg sees the first two seconds of a stream late, and all at once


class Plays:
    """Runs a device until the stream has ended a number of times; keeps the ids of new tracks for each time."""

    def __init__(self, folder, url, backend, plays):
        self.new = [[]]
        self._plays, self._stop = plays, threading.Event()
        install(folder / "state")
        camera = {"source": url, "backend": backend}
        config = {"state_dir": folder / "state", "cameras": {"shelf": camera}, "recognition": {"looks_per_s": 6}}
        self._runtime = Runtime(DeviceConfig.model_validate(config))

    def run(self):
        """Return how often each track was new, by play, and the counters."""
        publisher = self._runtime._publisher
        publish_event, publish_status = publisher.publish_event, publisher.publish_status

        def on_event(event):
            if event.type == "new":
                self.new[-1].append(event.track_id)
            publish_event(event)

        def on_status(status):
            publish_status(status)
            if status.state == "reconnecting":
                self.new.append([])
                if len(self.new) > self._plays:
                    self._stop.set()

        publisher.publish_event, publisher.publish_status = on_event, on_status
        timer = threading.Timer(LONG_DEADLINE_S, self._stop.set)
        timer.start()
        with self._runtime as runtime:
            runtime.run(self._stop)
        timer.cancel()
        return self.new[: self._plays], runtime.counters


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_object_is_new_once_in_each_of_two_plays(tmp_path, backend):
    assert len(read_ground_truth(DEMO / "stream.json").objects) == 31
    with RtspServer(f"file:{DEMO / 'stream.mp4'}") as server:
        plays, counters = Plays(tmp_path, server.url, backend, 2).run()
    counts = [len(new) for new in plays]
    assert len(counts) == 2
    assert all(LEAST_NEW <= count <= MOST_NEW for count in counts), f"{counts} {counters.snapshot()}"
    ids = [track_id for new in plays for track_id in new]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("backend", BACKENDS)
def test_scene_keeps_its_pace_when_the_network_holds_frames_back(backend):
    with RtspServer("colour:2040e0", fps=10) as server, RtspProxy(server.port) as proxy:
        url = f"rtsp://127.0.0.1:{proxy.port}{PATH}"
        frame_source = open_source(parse_source(url), backend, CaptureOptions(read_timeout_s=5))
        frames = []
        while len(frames) < 60:
            picture = frame_source.read(5.0)
            if picture is None:
                continue
            if len(frames) == 25:
                proxy.hold_back(1.0)
            frames.append(
                Frame("cam", len(frames), picture.image_rgb, picture.arrived_ns, 0.0, "arrival", picture.pts_s)
            )
        frame_source.close()
    frames = frames[20:]  # a camera does not deliver the backlog before these
    clock = SceneClock()
    times_s = [clock.time_s(frame) for frame in frames]
    assert max(b.captured_ns - a.captured_ns for a, b in pairwise(frames)) >= 0.8e9
    for (a, b), (time_a_s, time_b_s) in zip(pairwise(frames), pairwise(times_s), strict=True):
        steps = round((b.pts_s - a.pts_s) * 10)
        assert steps >= 1
        assert b.pts_s - a.pts_s == pytest.approx(steps / 10, abs=0.005)
        assert time_b_s - time_a_s == pytest.approx(steps / 10, rel=0.4)
