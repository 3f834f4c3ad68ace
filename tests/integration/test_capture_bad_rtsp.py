"""Cameras that refuse, say nothing, send damaged packets or change their codec, over real sockets."""

from __future__ import annotations

import socket
import time
from dataclasses import replace

import numpy as np
import pytest

from edge.capture.frame_source import CaptureOptions
from edge.capture.latest_frames import LatestFrames
from edge.capture.policy import Policy
from tests.integration import rtsp_proxy
from tests.integration.live_cameras import DOORS, PATIENT_S, Seen, starting
from tests.integration.rtsp_proxy import RtspProxy
from tests.integration.rtsp_server import CHANGING, RtspServer

ORANGE = (224, 96, 16)
BLUE = (32, 64, 224)
QUICK = CaptureOptions(open_timeout_s=2, read_timeout_s=2)
SOON = Policy(first_wait_s=0.05, longest_wait_s=0.2, stalled_after_s=1.0, reopen_after_s=4.0)
# Of a camera that works beside one that does not: a busy machine may be slow, and is no fault of its neighbour's.
STEADY = replace(SOON, stalled_after_s=PATIENT_S, reopen_after_s=PATIENT_S)


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
def start(seen):
    with starting(seen, QUICK, SOON) as start_camera:
        yield start_camera


def colour(rgb):
    return "colour:{:02x}{:02x}{:02x}".format(*rgb)


def port_of(url):
    return int(url.rpartition(":")[2].partition("/")[0])


def is_right(frame, rgb):
    return frame.image_rgb.shape == (240, 320, 3) and np.abs(frame.image_rgb.mean((0, 1)) - rgb).max() <= 20


def wait_for_pictures(latest_frames, rgb, in_a_row=5):
    """Until pictures of the right size and colour come one after the other."""
    right = 0
    for _ in range(int(PATIENT_S * 15)):
        frame = latest_frames.take(PATIENT_S)
        assert frame is not None
        right = right + 1 if is_right(frame, rgb) else 0
        if right == in_a_row:
            return
    raise AssertionError(f"found no {in_a_row} pictures of {rgb} in a row")


@pytest.mark.parametrize("method", ["basic", "digest"])
@pytest.mark.parametrize("door", DOORS)
def test_wrong_credentials_are_told_hide_the_password_and_are_tried_again(start, seen, door, method, caplog):
    with RtspServer(colour(ORANGE), login=f"{method}:admin:correct-horse") as server:
        address = server.url.removeprefix("rtsp://")
        wrong = start("wrong", f"rtsp://admin:hunter2@{address}", door, LatestFrames())
        latest_frames = LatestFrames()
        right = start("right", f"rtsp://admin:correct-horse@{address}", door, latest_frames)
        evidence = seen.wait_for("wrong", "reconnecting", "offline")
        seen.wait_for("right", "online")
        wait_for_pictures(latest_frames, ORANGE)
        assert wrong.reconnects >= 3
        assert right.state == "online"
        assert "401" not in str(seen.states["right"])
    for said in (evidence, caplog.text, str(seen.states)):
        assert "401" in said or said is caplog.text
        assert "hunter2" not in said
        assert "correct-horse" not in said


@pytest.mark.parametrize("door", DOORS)
def test_a_port_that_is_open_but_silent_is_told_in_time_and_holds_up_no_other(start, seen, door):
    with socket.create_server(("127.0.0.1", 0)) as silent, RtspServer(colour(ORANGE)) as server:
        latest_frames = LatestFrames()
        start("alive", server.url, door, latest_frames, STEADY)
        seen.wait_for("alive", "online")
        began_s = time.monotonic()
        start("silent", f"rtsp://127.0.0.1:{silent.getsockname()[1]}/camera", door, LatestFrames())
        evidence = seen.wait_for("silent", "reconnecting")
        took_s = time.monotonic() - began_s
        wait_for_pictures(latest_frames, ORANGE)
        assert [state for state, _ in seen.states["alive"]] == ["online"]
    assert "127.0.0.1" in evidence
    assert took_s < 2 * QUICK.open_timeout_s + 1.0  # OpenCV's door asks why, which takes as long again


@pytest.mark.parametrize(
    "harm", [rtsp_proxy.cut_short, rtsp_proxy.garble, rtsp_proxy.garble_some, rtsp_proxy.break_off]
)
@pytest.mark.parametrize("door", DOORS)
def test_a_camera_whose_packets_were_damaged_is_right_again_once_they_are_whole(start, seen, door, harm):
    with RtspServer(colour(ORANGE)) as server, RtspProxy(port_of(server.url)) as line:
        latest_frames = LatestFrames()
        camera = start("cam", f"rtsp://127.0.0.1:{line.port}/camera", door, latest_frames)
        wait_for_pictures(latest_frames, ORANGE)
        line.do_harm(harm, packets=60)
        assert line.whole_again.wait(PATIENT_S)
        wait_for_pictures(latest_frames, ORANGE)
        assert camera.state == "online"
        assert camera.reason.startswith("320x240")


@pytest.mark.parametrize("codec", ["h265", "mjpeg"])
@pytest.mark.parametrize("door", DOORS)
def test_a_camera_that_comes_back_with_another_codec_is_read(start, seen, door, codec):
    latest_frames = LatestFrames()
    with RtspServer(colour(ORANGE)) as server:
        start("cam", server.url, door, latest_frames)
        wait_for_pictures(latest_frames, ORANGE)
        server.kill()
        seen.wait_for("cam", "reconnecting", "offline")
    with RtspServer(colour(BLUE), codec=codec, port=port_of(server.url)):
        seen.wait_for("cam", "reconnecting", "offline", "online")
        wait_for_pictures(latest_frames, BLUE)


@pytest.mark.parametrize("door", DOORS)
def test_a_stream_that_changes_its_codec_under_way_is_opened_again(start, seen, door):
    """Three seconds of what its description says, then H.265: no decoder can go on."""
    latest_frames = LatestFrames()
    with RtspServer(colour(ORANGE), codec=CHANGING) as server:
        camera = start("cam", server.url, door, latest_frames)
        wait_for_pictures(latest_frames, ORANGE)
        seen.wait_for("cam", "reconnecting", "online")
        wait_for_pictures(latest_frames, ORANGE)
    assert camera.reconnects >= 1


def test_a_camera_whose_clock_is_a_year_ahead_is_told_and_read_on(start, seen, caplog):
    """Over RTCP, which GStreamer's door reads; the real time of this machine is its server's."""
    year_s = 365 * 86_400
    with RtspServer(colour(ORANGE)) as server, RtspProxy(port_of(server.url)) as line:
        line.do_harm(rtsp_proxy.clock_ahead(year_s), packets=1_000_000)
        latest_frames = LatestFrames()
        camera = start("cam", f"rtsp://127.0.0.1:{line.port}/camera", "gstreamer", latest_frames)
        began_s, frame = time.monotonic(), None
        while not camera.clock.is_off and time.monotonic() - began_s < PATIENT_S:
            frame = latest_frames.take(PATIENT_S)
        assert camera.clock.seconds == pytest.approx(year_s, abs=2.0)
        assert frame.time_source == "rtcp"
        assert frame.captured_at - time.time() == pytest.approx(year_s, abs=5.0)
        wait_for_pictures(latest_frames, ORANGE)
        assert [state for state, _ in seen.states["cam"]] == ["online"]
    assert "expected at most 2 s" in caplog.text
