"""Live cameras for tests: started by name, watched by their states, stopped at the end."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from functools import partial

from edge.capture.camera import Camera
from edge.capture.frame_source import BadPictureError, EndOfStream
from edge.capture.open_source import open_source
from edge.config.camera_url import parse_source
from tests.waiting import DEADLINE_S

BACKENDS = ("opencv", "gstreamer")


class StateLog:
    """The states of cameras, and a way to wait for them."""

    def __init__(self):
        self.states = {}
        self._changed = threading.Condition()

    def on_state(self, camera, state, reason):
        with self._changed:
            self.states.setdefault(camera, []).append((state, reason))
            self._changed.notify_all()

    def wait_for(self, camera, *wanted):
        """Wait until the states of a camera end in the wanted ones; return the last reason."""

        def latest():
            return tuple(state for state, _ in self.states.get(camera, []))[-len(wanted) :]

        with self._changed:
            assert self._changed.wait_for(lambda: latest() == wanted, DEADLINE_S), (
                f"{camera}: expected {wanted}, found {self.states}"
            )
        return self.states[camera][-1][1]


def read_to_end(source, most_reads=400, timeout_s=0.25):
    """Return all pictures of an open source but the unreadable ones, and close it."""
    pictures = []
    try:
        for _ in range(most_reads):
            with suppress(BadPictureError):
                if (picture := source.read(timeout_s)) is not None:
                    pictures.append(picture)
    except EndOfStream:
        return pictures
    finally:
        source.close()
    raise AssertionError(f"found {len(pictures)} pictures and no end")


@contextmanager
def starting(state_log, options, policy):
    """Yield a function that starts a camera, with its own options and policy or these; stop all cameras at the end."""
    cameras = []

    def start_camera(name, url, backend, latest_frames, policy=policy, options=options):
        source = parse_source(url)
        camera = Camera(
            name, source, partial(open_source, source, backend, options), latest_frames, state_log.on_state, policy
        )
        cameras.append(camera)
        camera.start()
        return camera

    yield start_camera
    stopped = [camera.stop(DEADLINE_S) for camera in cameras]
    assert all(stopped)
