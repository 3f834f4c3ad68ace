"""Checks whether a camera can be reached."""

from __future__ import annotations

import socket

import pytest

from edge.capture.reconnect import reachability_check
from edge.config.camera_url import Source, parse_source


def test_rtsp_camera_is_reachable_while_its_port_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        is_reachable = reachability_check(parse_source(f"rtsp://root:secret@127.0.0.1:{server.getsockname()[1]}/live"))
        assert is_reachable()
    assert not is_reachable()


def test_invalid_host_name_is_unreachable():
    assert not reachability_check(Source("rtsp", "rtsp://cam..roof/live", "rtsp://cam..roof/live"))()


def test_v4l2_camera_is_reachable_while_its_device_file_exists(tmp_path):
    device = tmp_path / "video7"
    is_reachable = reachability_check(parse_source(f"v4l2://{device}"))
    assert not is_reachable()
    device.touch()
    assert is_reachable()


@pytest.mark.parametrize("text", ["file:///x.mp4", "csi://0", "gst:videotestsrc ! appsink name=sink"])
def test_other_sources_have_no_check(text):
    assert reachability_check(parse_source(text)) is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("rtsp://cam/live", ("cam", 554)),
        ("rtsps://cam/live", ("cam", 322)),
        ("rtsp://u:p@[::1]:8554/x?y=1", ("::1", 8554)),
    ],
)
def test_address_of_an_rtsp_camera(text, address):
    assert parse_source(text).address == address
