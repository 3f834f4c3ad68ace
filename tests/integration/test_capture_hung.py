"""Six cameras that accept a connection and then are silent: stopping them, and the end of the process."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.capture.camera_policy import Policy
from edge.capture.frame_source import CaptureOptions
from edge.capture.latest_frames import LatestFrames
from tests.integration.live_cameras import BACKENDS, StateLog, starting
from tests.integration.rtsp_server import RtspServer

# Prints how long closing took and when it was done, then ends as `edge run` does, or by returning from its main module
PROGRAM = """
import select, socket, sys, time
from edge.capture.camera import Camera
from edge.capture.cameras import Cameras
from edge.capture.frame_source import CaptureOptions
from edge.capture.latest_frames import LatestFrames
from edge.capture.open_source import SourceOpener
from edge.config.camera_url import parse_source
from edge.config.schema import CameraConfig
from edge.process import leave

backend, removed, by_leaving = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "leave"
patient = CaptureOptions(open_timeout_s=60, read_timeout_s=60)  # they hang for longer than the end may take
servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(6)]
configs = {
    f"c{number}": CameraConfig(source=f"rtsp://127.0.0.1:{server.getsockname()[1]}/x")
    for number, server in enumerate(servers)
}
latest_frames = LatestFrames()

def build(name, config, on_state):
    source = parse_source(config.source)
    return Camera(name, source, SourceOpener(source, backend, patient).open, latest_frames, on_state)

cameras = Cameras(build, latest_frames, configs)
cameras.open_due()
connections = [server.accept()[0] for server in servers]  # each camera waits for an answer now
if not by_leaving:
    for connection in connections:  # after this one, it waits inside FFmpeg or GStreamer
        connection.recv(4096)
        connection.sendall(b"RTSP/1.0 200 OK\\r\\nCSeq: 1\\r\\n\\r\\n")
    connected, wanted = set(), 1 if backend == "opencv" else len(servers)  # OpenCV opens one source at a time
    while len(connected) < wanted:
        connected |= set(select.select(set(servers) - connected, [], [])[0])
began_s = time.monotonic()
cameras.replace(dict(list(configs.items())[removed:]), ())
print(f"replaced {time.monotonic() - began_s:.2f}")
cameras.close()
print(f"closed {time.monotonic() - began_s:.2f} at {time.monotonic():.2f}", flush=True)
if by_leaving:
    leave(3)
sys.exit(3)
"""


@pytest.mark.parametrize(("removed", "end"), [(0, "leave"), (4, "return")])
@pytest.mark.parametrize("backend", BACKENDS)
def test_hung_cameras_delay_the_end_by_five_seconds_together(backend, removed, end):
    command = [sys.executable, "-c", PROGRAM, backend, str(removed), end]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 3, done.stderr
    ended_s = time.monotonic()
    replaced_s, closed_s, closed_at_s = (float(text) for text in re.findall(r"\d+\.\d+", done.stdout))
    assert replaced_s < 4.0  # it waits for none: one takes 5 s
    assert closed_s < 9.0  # it waits for all together: two would take 10 s
    assert ended_s - closed_at_s < 20.0  # the end waits for none


def test_silent_camera_keeps_no_other_one_waiting():
    """OpenCV opens one source at a time, and this one would take all of its minute."""
    latest_frames, states, options = LatestFrames(), StateLog(), CaptureOptions(open_timeout_s=60)
    with (
        RtspServer("colour:e06010") as server,
        socket.create_server(("127.0.0.1", 0)) as silent,
        starting(states, options, Policy()) as start,
    ):
        start("silent", f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x", "opencv", latest_frames)
        connection = silent.accept()[0]
        began_s = time.monotonic()
        start("good", server.url, "opencv", latest_frames)
        states.wait_for("good", "online")
        assert time.monotonic() - began_s < 45.0
        connection.close()
