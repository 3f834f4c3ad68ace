"""Cameras over real RTSP, from a server that can be killed. Waits are for conditions, with a deadline."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.capture.camera_policy import Policy, policy_for
from edge.capture.frame_source import CaptureOptions
from edge.capture.latest_frames import LatestFrames
from edge.capture.open_source import open_source
from edge.config.camera_url import parse_source
from edge.diagnostics.camera_probe import probe_camera
from edge.errors import CaptureError
from edge.imaging.image import encode_image
from tests.integration.live_cameras import BACKENDS, StateLog, read_to_end, starting
from tests.integration.rtsp_server import RtspServer
from tests.waiting import DEADLINE_S

ORANGE = (224, 96, 16)
QUICK = CaptureOptions(open_timeout_s=30, read_timeout_s=20)  # longer than a busy machine takes
SOON = Policy(first_wait_s=0.05, longest_wait_s=0.2, stalled_after_s=20.0, reopen_after_s=30.0)


@pytest.fixture
def state_log():
    return StateLog()


@pytest.fixture
def start(state_log):
    with starting(state_log, QUICK, SOON) as start_camera:
        yield start_camera


@pytest.fixture(scope="module")
def orange():
    with RtspServer("colour:{:02x}{:02x}{:02x}".format(*ORANGE), size=(322, 242)) as server:
        yield server


def dead_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_have_the_right_size_and_colours(orange, start, state_log, backend):
    """322 pixels are 966 bytes a row, which GStreamer pads to 968: a wrong stride would smear the colour."""
    latest_frames = LatestFrames()
    camera = start("cam", orange.url, backend, latest_frames)
    reason = state_log.wait_for("cam", "online")
    frame = latest_frames.take(DEADLINE_S)
    assert frame.image_rgb.shape == (242, 322, 3)
    assert np.abs(frame.image_rgb.astype(int) - ORANGE).max() <= 12
    assert frame.time_source in {"arrival", "rtcp"}
    assert reason.startswith(f"322x242 by {backend}")
    assert camera.decode_path.startswith(backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_camera_delivers_scaled_frames(orange, backend):
    options = CaptureOptions(open_timeout_s=30, read_timeout_s=20, max_px=161)
    source = open_source(parse_source(orange.url), backend, options)
    picture = next(picture for _ in range(100) if (picture := source.read(0.5)) is not None)
    assert source.decode_path.rstrip(")").endswith("scaled to at most 161 px")
    source.close()
    assert picture.image_rgb.shape == (121, 161, 3)
    assert np.abs(picture.image_rgb.astype(int) - ORANGE).max() <= 12


def test_custom_pipeline_is_scaled_by_the_device():
    line = "videotestsrc num-buffers=2 ! videoconvert ! video/x-raw,format=RGB,width=50,height=40 ! appsink name=sink"
    pictures = read_to_end(open_source(parse_source(f"gst:{line}"), options=CaptureOptions(max_px=25)))
    assert [picture.image_rgb.shape for picture in pictures] == [(20, 25, 3)] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_camera_reconnects_when_it_is_back(start, state_log, backend):
    latest_frames = LatestFrames()
    with RtspServer("colour:2040e0") as server:
        camera = start("cam", server.url, backend, latest_frames)
        state_log.wait_for("cam", "online")
        server.kill()
        state_log.wait_for("cam", "reconnecting", "offline")
        while latest_frames.take(0) is not None:
            pass
        frames = camera.frames
        server.start()
        state_log.wait_for("cam", "reconnecting", "offline", "online")
        assert latest_frames.take(DEADLINE_S).index >= frames
        assert camera.reconnects >= 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_dead_camera_does_not_affect_another(orange, start, state_log, backend):
    latest_frames = LatestFrames()
    start("dead", f"rtsp://127.0.0.1:{dead_port()}/camera", backend, latest_frames)
    start("alive", orange.url, backend, latest_frames)
    reason = state_log.wait_for("dead", "reconnecting", "offline")
    assert "connect" in reason
    state_log.wait_for("alive", "online")
    frames = [latest_frames.take(DEADLINE_S) for _ in range(10)]
    assert {frame.camera for frame in frames} == {"alive"}
    assert [state for state, _ in state_log.states["alive"]] == ["online"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_slow_reader_gets_the_newest_frame(orange, start, state_log, backend):
    latest_frames = LatestFrames()
    camera = start("cam", orange.url, backend, latest_frames)
    first = latest_frames.take(DEADLINE_S)
    before = camera.dropped["superseded"]
    pause = threading.Event()
    for _ in range(int(DEADLINE_S / 0.02)):
        if camera.dropped["superseded"] >= before + 5:
            break
        pause.wait(0.02)
    newest = latest_frames.take(DEADLINE_S)
    assert newest.index >= first.index + 6
    assert newest.captured_ns > first.captured_ns
    assert newest.index - first.index - 1 <= camera.dropped["superseded"] + camera.dropped["backlog"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_path_is_a_404(orange, backend):
    with pytest.raises(CaptureError, match="404"):
        read_to_end(open_source(parse_source(orange.url + "x"), backend, QUICK))


@pytest.mark.parametrize("backend", BACKENDS)
def test_error_of_a_dead_port_hides_the_password(backend):
    url = f"rtsp://admin:hunter2@127.0.0.1:{dead_port()}/camera"
    with pytest.raises(CaptureError, match="connect") as error:
        read_to_end(open_source(parse_source(url), backend, QUICK))
    assert "hunter2" not in str(error.value)
    assert "***" in str(error.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_failed_opens_leak_no_sockets(backend):
    """A camera that is unreachable for a month is tried 80,000 times."""
    source = parse_source(f"rtsp://127.0.0.1:{dead_port()}/camera")
    open_files = []
    for _ in range(30):
        with pytest.raises(CaptureError):
            read_to_end(open_source(source, backend, QUICK))
        open_files.append(len(list(Path("/proc/self/fd").iterdir())))
    assert open_files[-1] <= open_files[4] + 5


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_backends_read_the_same_video_to_its_end(tmp_path, backend):
    """A video made here: 20 frames of red, 20 of green."""
    path = make_video(tmp_path)
    pictures = read_to_end(open_source(parse_source(f"file://{path}"), backend))
    assert len(pictures) == 40
    assert [round(picture.pts_s * 20) for picture in pictures] == list(range(40))
    for at, colour in ((10, (200, 30, 30)), (30, (30, 200, 30))):
        assert np.abs(pictures[at].image_rgb.mean((0, 1)) - colour).max() <= 12


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_frame_of_a_video_is_delivered(tmp_path, start, state_log, backend):
    source = f"file://{make_video(tmp_path)}"
    latest_frames = LatestFrames()
    camera = start("cam", source, backend, latest_frames, policy_for(parse_source(source), "every_frame"))
    assert [frame.index for frame in latest_frames.frames()] == list(range(40))
    assert camera.reason == "end of stream after 40 frames"


@pytest.mark.parametrize("backend", BACKENDS)
def test_error_names_a_bad_file(tmp_path, backend):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "noise.mp4").write_bytes(b"no video at all" * 100)
    for name in ("empty.mp4", "noise.mp4", "none.mp4"):
        with pytest.raises(CaptureError, match=name):
            read_to_end(open_source(parse_source(f"file://{tmp_path}/{name}"), backend))


def test_photos_play_in_order_and_end(tmp_path):
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    for number, colour in enumerate(colours):
        data = encode_image(np.full((90, 120, 3), colour, np.uint8), ".png")
        (tmp_path / f"{number}.png").write_bytes(data)
    with RtspServer(f"photos:{tmp_path}", fps=10, size=(320, 240), seconds=0.5) as server:
        pictures = read_to_end(open_source(parse_source(server.url), "gstreamer"))
    nearest = [int(np.argmax(picture.image_rgb[120, 160])) for picture in pictures]
    assert nearest == sorted(nearest)
    assert set(nearest) == {0, 1, 2}
    assert len(pictures) >= 12


def test_custom_pipeline_with_a_missing_element_is_an_error():
    with pytest.raises(CaptureError, match="nosuchelement"):
        open_source(parse_source("gst:nosuchelement ! appsink name=sink"))


def test_custom_pipeline_is_read():
    line = "videotestsrc num-buffers=5 ! videoconvert ! video/x-raw,format=RGB,width=50,height=40 ! appsink name=sink"
    pictures = read_to_end(open_source(parse_source(f"gst:{line}")))
    assert [picture.image_rgb.shape for picture in pictures] == [(40, 50, 3)] * 5


def test_stream_may_change_its_resolution():
    line = (
        "videotestsrc num-buffers=3 ! video/x-raw,width=50,height=40 ! concat name=both"
        " videotestsrc num-buffers=3 ! video/x-raw,width=31,height=20 ! both."
        " both. ! videoconvert ! video/x-raw,format=RGB ! appsink name=sink sync=false"
    )
    pictures = read_to_end(open_source(parse_source(f"gst:{line}")))
    assert [picture.image_rgb.shape for picture in pictures] == [(40, 50, 3)] * 3 + [(20, 31, 3)] * 3


def make_video(folder):
    """Write MPEG-4 Part 2 in MP4, which OpenCV can encode without other libraries."""
    import cv2

    path = folder / "two colours.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 20, (160, 120))
    for number in range(40):
        bgr = (30, 30, 200) if number < 20 else (30, 200, 30)
        writer.write(np.full((120, 160, 3), bgr, np.uint8))
    writer.release()
    return path


def test_probe_measures_what_a_camera_sends(orange):
    report = probe_camera(parse_source(orange.url), "gstreamer", QUICK, seconds=2.0)
    assert (report.codec, report.width, report.height) == ("h264", 322, 242)
    assert report.rate_hz == pytest.approx(15, rel=0.5)  # by arrivals, which a busy machine bunches
    assert report.group_of_pictures is not None
    assert "avdec_h264" in report.decode_path
    assert report.load_cores > 0


def test_probe_of_a_silent_port_names_it():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/camera"
        with pytest.raises(CaptureError, match=r"127\.0\.0\.1"):
            probe_camera(parse_source(url), "gstreamer", replace(QUICK, open_timeout_s=1), seconds=1.0)
