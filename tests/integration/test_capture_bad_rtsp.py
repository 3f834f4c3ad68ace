"""Cameras that reject credentials, stay silent, send damaged packets or change their codec, over real sockets."""

from __future__ import annotations

import socket
import time
from dataclasses import replace

import numpy as np
import pytest

from edge.capture.camera_policy import Policy
from edge.capture.frame_source import CaptureOptions
from edge.capture.latest_frames import LatestFrames
from tests.integration import rtsp_proxy
from tests.integration.live_cameras import BACKENDS, StateLog, starting
from tests.integration.rtsp_proxy import RtspProxy
from tests.integration.rtsp_server import CHANGING, RtspServer
from tests.waiting import DEADLINE_S

ORANGE = (224, 96, 16)
BLUE = (32, 64, 224)
QUICK = CaptureOptions(open_timeout_s=2, read_timeout_s=2)
SOON = Policy(first_wait_s=0.05, longest_wait_s=0.2, stalled_after_s=1.0, reopen_after_s=4.0)
# For a working camera beside a broken one: a busy machine may be slow, which is not the fault of the broken camera.
STEADY = replace(SOON, stalled_after_s=DEADLINE_S, reopen_after_s=DEADLINE_S)
PATIENT = CaptureOptions(open_timeout_s=DEADLINE_S, read_timeout_s=DEADLINE_S)
BUSY_S = 10.0  # that a busy machine takes longer; OpenCV itself would give up after 30 s


@pytest.fixture
def state_log():
    return StateLog()


@pytest.fixture
def start(state_log):
    with starting(state_log, QUICK, SOON) as start_camera:
        yield start_camera


def colour(rgb):
    return "colour:{:02x}{:02x}{:02x}".format(*rgb)


def port_of(url):
    return int(url.rpartition(":")[2].partition("/")[0])


def is_right(frame, rgb):
    return frame.image_rgb.shape == (240, 320, 3) and np.abs(frame.image_rgb.mean((0, 1)) - rgb).max() <= 20


def wait_for_pictures(latest_frames, rgb, in_a_row=5):
    """Wait for pictures of the right size and colour in a row."""
    right = 0
    for _ in range(int(DEADLINE_S * 15)):
        frame = latest_frames.take(DEADLINE_S)
        assert frame is not None
        right = right + 1 if is_right(frame, rgb) else 0
        if right == in_a_row:
            return
    raise AssertionError(f"found no {in_a_row} pictures of {rgb} in a row")


@pytest.mark.parametrize("method", ["basic", "digest"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_credentials_are_reported_without_the_password(start, state_log, backend, method, caplog):
    with RtspServer(colour(ORANGE), login=f"{method}:admin:correct-horse") as server:
        address = server.url.removeprefix("rtsp://")
        wrong = start("wrong", f"rtsp://admin:hunter2@{address}", backend, LatestFrames())
        latest_frames = LatestFrames()
        known = f"rtsp://admin:correct-horse@{address}"
        right = start("right", known, backend, latest_frames, STEADY, PATIENT)
        reason = state_log.wait_for("wrong", "reconnecting", "offline")
        state_log.wait_for("right", "online")
        wait_for_pictures(latest_frames, ORANGE)
        assert wrong.reconnects >= 3
        assert right.state == "online"
        assert "401" not in str(state_log.states["right"])
    for text in (reason, caplog.text, str(state_log.states)):
        assert "401" in text or text is caplog.text
        assert "hunter2" not in text
        assert "correct-horse" not in text


@pytest.mark.parametrize("backend", BACKENDS)
def test_silent_port_is_reported_in_time_and_delays_no_other_camera(start, state_log, backend):
    with socket.create_server(("127.0.0.1", 0)) as silent, RtspServer(colour(ORANGE)) as server:
        latest_frames = LatestFrames()
        start("alive", server.url, backend, latest_frames, STEADY, PATIENT)
        state_log.wait_for("alive", "online")
        started_s = time.monotonic()
        start("silent", f"rtsp://127.0.0.1:{silent.getsockname()[1]}/camera", backend, LatestFrames())
        reason = state_log.wait_for("silent", "reconnecting")
        took_s = time.monotonic() - started_s
        wait_for_pictures(latest_frames, ORANGE)
        assert [state for state, _ in state_log.states["alive"]] == ["online"]
    assert "127.0.0.1" in reason
    # the OpenCV source diagnoses the failure, which takes as long again
    assert took_s < 2 * QUICK.open_timeout_s + BUSY_S


@pytest.mark.parametrize(
    "harm", [rtsp_proxy.cut_short, rtsp_proxy.garble, rtsp_proxy.garble_some, rtsp_proxy.break_off]
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_camera_recovers_from_damaged_packets(start, state_log, backend, harm):
    with RtspServer(colour(ORANGE)) as server, RtspProxy(port_of(server.url)) as line:
        latest_frames = LatestFrames()
        camera = start("cam", f"rtsp://127.0.0.1:{line.port}/camera", backend, latest_frames)
        wait_for_pictures(latest_frames, ORANGE)
        line.do_harm(harm, packets=60)
        assert line.whole_again.wait(DEADLINE_S)
        wait_for_pictures(latest_frames, ORANGE)
        assert camera.state == "online"
        assert camera.reason.startswith("320x240")


@pytest.mark.parametrize("codec", ["h265", "mjpeg"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_camera_that_comes_back_with_another_codec_is_read(start, state_log, backend, codec):
    latest_frames = LatestFrames()
    with RtspServer(colour(ORANGE)) as server:
        start("cam", server.url, backend, latest_frames)
        wait_for_pictures(latest_frames, ORANGE)
        server.kill()
        state_log.wait_for("cam", "reconnecting", "offline")
    with RtspServer(colour(BLUE), codec=codec, port=port_of(server.url)):
        state_log.wait_for("cam", "reconnecting", "offline", "online")
        wait_for_pictures(latest_frames, BLUE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_stream_that_changes_its_codec_is_reopened(start, state_log, backend):
    """Three seconds as in its description, then H.265: no decoder can go on."""
    latest_frames = LatestFrames()
    with RtspServer(colour(ORANGE), codec=CHANGING) as server:
        camera = start("cam", server.url, backend, latest_frames)
        wait_for_pictures(latest_frames, ORANGE)
        state_log.wait_for("cam", "reconnecting", "online")
        wait_for_pictures(latest_frames, ORANGE)
    assert camera.reconnects >= 1


def test_camera_clock_a_year_ahead_is_reported(start, state_log, caplog):
    """Over RTCP, which only GStreamer reads; the server uses the time of this machine."""
    year_s = 365 * 86_400
    with RtspServer(colour(ORANGE)) as server, RtspProxy(port_of(server.url)) as line:
        line.do_harm(rtsp_proxy.clock_ahead(year_s), packets=1_000_000)
        latest_frames = LatestFrames()
        url = f"rtsp://127.0.0.1:{line.port}/camera"
        camera = start("cam", url, "gstreamer", latest_frames, STEADY, PATIENT)
        started_s, frame = time.monotonic(), None
        while not camera.clock.is_off and time.monotonic() - started_s < DEADLINE_S:
            frame = latest_frames.take(DEADLINE_S)
        assert camera.clock.seconds == pytest.approx(year_s, abs=BUSY_S)
        assert frame.time_source == "rtcp"
        assert frame.captured_at - time.time() == pytest.approx(year_s, abs=BUSY_S)
        wait_for_pictures(latest_frames, ORANGE)
        assert [state for state, _ in state_log.states["cam"]] == ["online"]
    assert "more than 2 s" in caplog.text
