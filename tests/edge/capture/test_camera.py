"""Cameras: states, reconnects, delivery and pacing."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from edge.capture.camera import Camera
from edge.capture.camera_policy import Policy, policy_for
from edge.capture.frame_source import BackendError, BadPictureError, CaptureOptions, EndOfStream, Picture
from edge.capture.latest_frames import LatestFrames
from edge.capture.open_source import choose_backend, open_source
from edge.config.camera_url import parse_source
from edge.config.schema import ViewConfig
from edge.errors import CaptureError
from edge.telemetry.counters import Counters
from tests.fakes import FakeSource, FakeTiming, a_picture

RTSP = parse_source("rtsp://cam/live")
FILE = parse_source("file:///x.mp4")
SHADE = np.full((4, 6, 3), 9, np.uint8)
DEAD = CaptureError("rtsp://cam/live: gone")


class Bench:
    """A camera on a fake clock that plays one script per opening and stops after the last one."""

    def __init__(self, source, *sessions, policy=None, latest_frames=None, back_at_s=None):
        self.clock = FakeTiming()
        self.states = []
        self.sources = []
        self.latest_frames = latest_frames or LatestFrames()
        self._sessions = iter(sessions)
        self.port = None if back_at_s is None else FakeCameraPort(self.clock, back_at_s)
        self.camera = Camera(
            "cam",
            source,
            self._open,
            self.latest_frames,
            self._on_state,
            policy or Policy(),
            self.clock.timing,
            self.port,
        )

    def _open(self):
        session = next(self._sessions, None)
        if session is None:
            self.camera._stop.set()
            session = []
        if isinstance(session, Exception):
            raise session
        self.sources.append(FakeSource(session, self.clock))
        return self.sources[-1]

    def _on_state(self, camera, state, reason):
        self.states.append((state, reason))

    def run(self):
        self.camera.run()
        return [state for state, _ in self.states]

    def run_every_frame(self):
        thread = threading.Thread(target=self.camera.run)
        self.latest_frames.add("cam")
        thread.start()
        frames = list(self.latest_frames.frames())
        thread.join()
        return frames


class FakeCameraPort:
    """A camera that is unreachable until a moment of the fake clock."""

    def __init__(self, clock, back_at_s):
        self._clock, self._back_ns = clock, round(back_at_s * 1e9)
        self.checks = 0

    def __call__(self):
        self.checks += 1
        return self._clock.now_ns >= self._back_ns


def pictures(count, step_s=0.1):
    return [a_picture(i * step_s) for i in range(count)]


def test_first_frame_sets_online():
    bench = Bench(RTSP, [a_picture()])
    assert bench.run()[0] == "online"
    assert bench.states[0][1] == "6x4 by fake"


def test_slow_reader_gets_the_newest_frame_and_drops_are_counted():
    bench = Bench(RTSP, [a_picture(shade=i) for i in range(5)])
    bench.run()
    frame = bench.latest_frames.take(0)
    assert (frame.index, int(frame.image_rgb[0, 0, 0])) == (4, 4)
    assert bench.camera.dropped == {"superseded": 4}
    assert bench.camera.frames == 5


def test_backlog_of_a_stream_is_counted_and_not_delivered():
    """Ten pictures of a second at once, then live ones."""
    waiting = [Picture(SHADE, n * 10**6, n / 10, "arrival") for n in range(10)]
    live = [Picture(SHADE, (n - 9) * 10**8, n / 10, "arrival") for n in range(10, 30)]
    bench = Bench(RTSP, [*waiting, *live])
    assert bench.run()[0] == "online"
    assert bench.camera.frames == 30
    assert 9 <= bench.camera.dropped["backlog"] <= 11


def test_dead_stream_is_reopened():
    bench = Bench(RTSP, [a_picture(), DEAD], [a_picture()])
    assert bench.run()[:3] == ["online", "reconnecting", "online"]
    assert bench.states[1][1] == str(DEAD)
    assert all(source.closed for source in bench.sources)


def test_waits_double_up_to_a_ceiling():
    bench = Bench(RTSP, *[DEAD] * 8)
    bench.run()
    assert bench.clock.waits_s[:8] == [1, 1, 2, 4, 8, 15, 15, 15]  # jitter 0: half of 1 2 4 8 16 30, at least 1


def test_jitter_spreads_the_waits_up_to_the_ceiling():
    bench = Bench(RTSP, *[DEAD] * 8)
    object.__setattr__(bench.clock.timing, "jitter", lambda: 1.0)
    bench.run()
    assert bench.clock.waits_s[:8] == [1, 2, 4, 8, 16, 30, 30, 30]


def test_camera_is_offline_after_three_failures():
    bench = Bench(RTSP, *[DEAD] * 4)
    assert bench.run()[:2] == ["reconnecting", "offline"]
    assert bench.camera.reconnects == 4


def test_ten_good_seconds_reset_the_wait_and_one_frame_does_not():
    flicker = [a_picture(), DEAD]
    good = [a_picture(), *[None, a_picture()] * 41, DEAD]  # each None is a quarter of a second
    bench = Bench(RTSP, DEAD, DEAD, DEAD, flicker, good)
    bench.run()
    assert bench.clock.waits_s[:5] == [1, 1, 2, 4, 1]


def test_camera_that_comes_back_is_opened_within_two_seconds():
    bench = Bench(RTSP, *[DEAD] * 6, [a_picture()], back_at_s=40.0)
    opened_s = []
    opens = bench.camera._open_frame_source
    bench.camera._open_frame_source = lambda: (opened_s.append(bench.clock.now_ns / 1e9), opens())[1]
    bench.run()
    assert opened_s[:7] == [1, 2, 3, 5, 9, 17, 32]  # the seventh found it unreachable: waits of 1 1 2 4 8 15
    assert 40 <= opened_s[7] <= 42


def test_camera_that_comes_back_during_an_open_is_reopened_at_once():
    bench = Bench(RTSP, *[DEAD] * 7, [a_picture()], back_at_s=33.0)
    opened_s = []
    opens = bench.camera._open_frame_source

    def open_slowly():
        opened_s.append(bench.clock.now_ns / 1e9)
        if opened_s[-1] == 32:
            bench.clock.advance(2.0)
        return opens()

    bench.camera._open_frame_source = open_slowly
    bench.run()
    assert opened_s[5:8] == [17, 32, 35]


def test_camera_that_comes_back_without_a_stream_resets_the_wait():
    bench = Bench(RTSP, *[DEAD] * 12, back_at_s=40.0)
    bench.run()
    waits_s = bench.clock.waits_s
    assert waits_s[-5:] == [1, 1, 2, 4, 8]
    assert len(waits_s) - 5 == bench.port.checks - 12


def test_reachable_camera_is_not_checked_during_the_wait():
    bench = Bench(RTSP, *[DEAD] * 6, back_at_s=0.0)
    bench.run()
    assert bench.clock.waits_s[:6] == [1, 1, 2, 4, 8, 15]
    assert bench.port.checks == 6


def test_silent_camera_is_stalled_then_reopened():
    bench = Bench(RTSP, [a_picture(), *[None] * 100], [a_picture()])
    assert bench.run()[:4] == ["online", "stalled", "reconnecting", "online"]
    assert bench.states[1][1] == "no frame for 5.0 s"
    assert bench.states[2][1] == "rtsp://cam/live: no frame for 15 s"


def test_stalled_camera_that_resumes_is_online():
    assert Bench(RTSP, [a_picture(), *[None] * 21, a_picture()]).run()[:3] == ["online", "stalled", "online"]


def test_camera_is_reopened_when_its_stream_ends():
    bench = Bench(RTSP, [a_picture(), EndOfStream()], [a_picture()])
    assert bench.run()[:3] == ["online", "reconnecting", "online"]


def test_file_ends_with_offline():
    bench = Bench(FILE, pictures(3))
    assert bench.run() == ["online", "offline"]
    assert bench.states[-1][1] == "end of stream after 3 frames"
    assert bench.camera.error is None
    assert bench.latest_frames.take(0).index == 2
    assert bench.latest_frames.drained


def test_unreadable_file_is_reported_once_and_not_retried():
    bench = Bench(FILE, CaptureError("file:///x.mp4: the file is empty"), pictures(3))
    assert bench.run() == ["offline"]
    assert str(bench.camera.error) == "file:///x.mp4: the file is empty"
    assert bench.clock.waits_s == []


def test_loop_restarts_without_a_state_change():
    bench = Bench(parse_source("file:///x.mp4?loop=1"), pictures(3), pictures(3))
    assert bench.run() == ["online", "offline"]
    assert bench.states[-1][1] == "stopped"
    assert bench.camera.frames == 6


def test_every_frame_policy_delivers_all_to_a_slow_reader():
    bench = Bench(FILE, pictures(50), policy=policy_for(FILE, "every_frame"))
    assert list(range(50)) == [frame.index for frame in bench.run_every_frame()]
    assert not bench.camera.dropped


def test_real_time_policy_paces_a_file():
    bench = Bench(FILE, pictures(4, step_s=0.5), policy=policy_for(FILE, "real_time"))
    bench.run()
    assert bench.clock.waits_s == [0.5, 0.5, 0.5]
    assert bench.latest_frames.take(0).captured_ns == 2_500_000_000


def test_unreadable_picture_is_counted_and_skipped():
    bench = Bench(FILE, [a_picture(0.0), BadPictureError("b.jpg: empty; give a picture"), a_picture(1.0)])
    assert bench.run() == ["online", "offline"]
    assert bench.camera.dropped["unreadable"] == 1
    assert bench.camera.frames == 2


def test_unexpected_exception_causes_a_reconnect():
    bench = Bench(RTSP, [a_picture(), ZeroDivisionError("bug")], [a_picture()])
    assert bench.run()[:3] == ["online", "reconnecting", "online"]


def test_every_unexpected_exception_is_counted_and_logged_once(caplog):
    bug = ZeroDivisionError("rtsp://u:hunter2@cam/live")
    bench = Bench(RTSP, [a_picture(), bug], bug, bug, [a_picture()])
    counters = bench.camera._counters = Counters()
    assert bench.run()[:4] == ["online", "reconnecting", "offline", "online"]
    assert counters.snapshot()['thread_restarts{thread="capture-cam"}'] == 3
    assert [record.exc_info is not None for record in caplog.records if "capture failed" in record.message] == [True]
    assert not any("hunter2" in reason for _, reason in bench.states)


def test_bug_outside_a_session_restarts_the_thread_of_that_camera_only():
    """Even the report of a state may raise: `run` itself ends."""
    latest_frames, counters, broken = LatestFrames(), Counters(), []
    delivered = threading.Event()

    def on_state(camera, state, reason):
        if len(broken) < 3:
            broken.append(state)
            raise RuntimeError("bug")
        delivered.set()

    class Forever(FakeSource):
        def read(self, timeout_s):
            return a_picture()

    camera = Camera("cam", RTSP, lambda: Forever([]), latest_frames, on_state, counters=counters)
    camera._thread._wait = lambda _s: False
    camera.start()
    assert delivered.wait(60)
    assert camera.stop(10)
    assert counters.snapshot()['thread_restarts{thread="capture-cam"}'] >= 1


def test_video_that_cannot_be_read_here_is_unsupported():
    interlaced = BackendError("rtsp://cam/live: OpenCV cannot read interlaced video")
    bench = Bench(RTSP, interlaced, [interlaced], [a_picture()])
    assert bench.run()[:2] == ["unsupported", "online"]
    assert bench.states[0][1] == str(interlaced)
    file = Bench(FILE, [interlaced], [a_picture()])
    assert file.run() == ["unsupported"]
    assert file.camera.error is interlaced


def test_stream_of_unreadable_pictures_is_reopened(caplog):
    """Each takes a second; the log has one line."""
    bench = Bench(RTSP, [a_picture()], [a_picture()])
    source = FakeSource([a_picture()])

    def damaged(timeout_s):
        bench.clock.advance(1.0)
        raise BadPictureError("rtsp://cam/live: a picture arrived empty")

    source.read = damaged
    opens = iter([source])
    rest = bench.camera._open_frame_source
    bench.camera._open_frame_source = lambda: next(opens, None) or rest()
    assert bench.run()[:2] == ["reconnecting", "online"]
    assert bench.camera.dropped["unreadable"] >= 14
    assert sum("arrived empty" in record.message for record in caplog.records if record.levelname == "ERROR") == 1


def test_captured_ns_is_the_arrival_time():
    bench = Bench(RTSP, [a_picture(arrived_ns=42)])
    bench.run()
    frame = bench.latest_frames.take(0)
    assert (frame.captured_ns, frame.captured_at) == (42, 1_700_000_001)


def test_hanging_camera_delays_no_other_camera_and_no_shutdown():
    latest_frames, release, opened = LatestFrames(), threading.Event(), threading.Event()
    clock, states = FakeTiming(), []

    def hang():
        opened.set()
        release.wait()
        raise DEAD

    stuck = Camera("stuck", RTSP, hang, latest_frames, lambda *state: states.append(state), Policy(), clock.timing)
    stuck.start()
    assert opened.wait(60)
    other = Bench(RTSP, [a_picture()], latest_frames=latest_frames)
    other.run()
    assert latest_frames.take(10).camera == "cam"
    clock.advance(16)
    stuck.watch()
    assert states == [("stuck", "stalled", "the library has not returned for 16 s")]
    assert not stuck.stop(timeout_s=0)
    release.set()
    assert stuck.stop(timeout_s=10)


@pytest.mark.parametrize(
    ("text", "requested", "present", "backend"),
    [
        ("rtsp://cam/x", "auto", {"rtspsrc"}, "gstreamer"),
        ("rtsp://cam/x", "auto", None, "opencv"),
        ("rtsp://cam/x", "opencv", {"rtspsrc"}, "opencv"),
        ("file:///x.mp4", "auto", {"rtspsrc"}, "opencv"),
        ("file:///x.mp4", "gstreamer", {"rtspsrc"}, "gstreamer"),
        ("file:///x.ts", "auto", {"rtspsrc", "tsdemux"}, "gstreamer"),
        ("file:///x.TS", "auto", {"rtspsrc"}, "opencv"),
        ("file:///x.h264", "auto", None, "opencv"),
        ("v4l2://0", "auto", {"v4l2src"}, "opencv"),
        ("v4l2://0", "auto", {"v4l2src", "nvv4l2decoder"}, "gstreamer"),
        ("csi://0", "auto", {"nvarguscamerasrc"}, "gstreamer"),
        ("folder:///x", "auto", None, "folder"),
        ("file:///x.JPG", "auto", None, "folder"),
    ],
)
def test_backend_of_each_source(text, requested, present, backend):
    present = None if present is None else frozenset(present)
    assert backend == choose_backend(parse_source(text), requested, present, CaptureOptions())


@pytest.mark.parametrize(("text", "requested"), [("rtsp://cam/x", "gstreamer"), ("csi://0", "auto")])
def test_missing_gstreamer_is_an_error_if_needed(text, requested):
    with pytest.raises(CaptureError, match="needs GStreamer"):
        choose_backend(parse_source(text), requested, None, CaptureOptions())


def test_udp_needs_gstreamer():
    with pytest.raises(CaptureError, match="needs GStreamer"):
        choose_backend(RTSP, "auto", None, CaptureOptions(transport="udp"))
    with pytest.raises(CaptureError, match="over tcp"):
        open_source(RTSP, "opencv", CaptureOptions(transport="udp"))


def test_bad_files_have_clear_errors(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "noise.mp4").write_bytes(b"no video at all" * 100)
    for name, part in (
        ("empty.mp4", "the file is empty"),
        ("noise.mp4", "FFmpeg cannot read this file of 1500 bytes as a video"),
        ("none.mp4", "no such file"),
    ):
        with pytest.raises(CaptureError, match=part):
            open_source(parse_source(f"file://{tmp_path}/{name}"))
    with pytest.raises(CaptureError, match="this is a folder"):
        open_source(parse_source(f"file://{tmp_path}"))


def test_missing_v4l2_device_is_named():
    with pytest.raises(CaptureError, match="v4l2:///dev/video97: no such device"):
        open_source(parse_source("v4l2:///dev/video97"), "opencv")


def scenes(seconds, image_rgb):
    """Four pictures a second of one scene."""
    arrivals_s = (n / 4 for n in range(1, seconds * 4 + 1))
    return [Picture(image_rgb, round(at_s * 1e9), None, "arrival") for at_s in arrivals_s]


SCENE = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)


def test_frozen_pictures_set_the_state_and_are_not_delivered():
    policy = Policy(view=ViewConfig(frozen_after_s=10))
    bench = Bench(RTSP, scenes(20, SCENE), policy=policy)
    assert bench.run()[:2] == ["online", "frozen"]
    assert bench.states[1][1].startswith("nothing new for 10 s")
    assert bench.camera.dropped["frozen"] == 80 - 40


def test_obstructed_after_it_lasts_and_online_at_once():
    black = np.zeros_like(SCENE)
    policy = Policy(view=ViewConfig(obstructed_after_s=3, frozen_after_s=None))
    pictures = [replace(p, arrived_ns=n * 250_000_000) for n, p in enumerate(scenes(5, black) + scenes(2, SCENE))]
    bench = Bench(RTSP, pictures, policy=policy)
    assert bench.run()[:3] == ["online", "obstructed", "online"]
    assert bench.camera.dropped["obstructed"] == 20


def test_silent_obstructed_camera_is_stalled():
    policy = Policy(view=ViewConfig(obstructed_after_s=1), stalled_after_s=2.0, reopen_after_s=100)
    bench = Bench(RTSP, [*scenes(3, np.zeros_like(SCENE)), *[None] * 12], policy=policy)
    assert bench.run()[:3] == ["online", "obstructed", "stalled"]


def test_tamper_detection_is_default_for_cameras_only():
    assert policy_for(RTSP, "real_time").view == ViewConfig()
    assert policy_for(FILE, "every_frame").view is None
    assert policy_for(FILE, "real_time", view=ViewConfig(frozen_after_s=9)).view.frozen_after_s == 9


def rtcp_pictures(count, offset_s, begin_s=1.0):
    """One picture a second of a camera whose clock differs from that of `FakeTiming`."""
    at_s = [begin_s + second for second in range(count)]
    image_rgb = np.zeros((4, 6, 3), np.uint8)
    return [Picture(image_rgb, round(s * 1e9), None, "rtcp", 1_700_000_000 + s + offset_s) for s in at_s]


@pytest.mark.parametrize("offset_s", [-365 * 86_400.0, 365 * 86_400.0, 3.0])
def test_camera_clock_off_is_reported_once_and_the_camera_goes_on(offset_s, caplog):
    """Events carry the camera's time; durations use the device's clock."""
    script = [step for picture in rtcp_pictures(20, offset_s) for step in (picture, None, None, None, None)]
    bench = Bench(RTSP, script)
    bench.run()
    assert bench.camera.clock.is_off
    assert bench.camera.clock.seconds == pytest.approx(offset_s)
    assert [record.message for record in caplog.records if "clock" in record.message] == [
        f"camera cam: its clock is {offset_s:+.1f} s from the device's, more than 2 s; check both clocks"
    ]
    frame = bench.latest_frames.take(0)
    assert frame.captured_at == 1_700_000_020 + offset_s
    assert frame.captured_ns == 20_000_000_000
    assert bench.states[0][0] == "online"
    assert "stalled" not in [state for state, _ in bench.states]


@pytest.mark.parametrize("jump_s", [-365 * 86_400.0, 365 * 86_400.0])
def test_device_clock_may_jump_by_a_year_while_a_camera_runs(jump_s):
    """The jump changes no state, reopens nothing and changes no wait."""
    bench = Bench(RTSP, [a_picture(), None, a_picture(), None, a_picture(), DEAD], DEAD, [a_picture()])
    steady, calls = bench.clock.timing.unix_s, []

    def jumping():
        calls.append(None)
        return steady() + (jump_s if len(calls) > 1 else 0.0)

    object.__setattr__(bench.clock.timing, "unix_s", jumping)
    assert bench.run()[:3] == ["online", "reconnecting", "online"]
    assert bench.clock.waits_s[:2] == [1, 1]
    assert bench.camera.dropped["superseded"] == 3
    assert abs(bench.latest_frames.take(0).captured_at - steady() - jump_s) < 60
