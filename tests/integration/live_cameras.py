"""Cameras at work in a test: started by name, watched by what they tell, stopped at the end."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial

from edge.capture.camera import Camera
from edge.capture.open_source import open_source
from edge.config.camera_url import parse_source

DOORS = ("opencv", "gstreamer")
PATIENT_S = 20.0


class Seen:
    """What cameras told, and a way to wait for it."""

    def __init__(self):
        self.states = {}
        self._changed = threading.Condition()

    def on_state(self, camera, state, evidence):
        with self._changed:
            self.states.setdefault(camera, []).append((state, evidence))
            self._changed.notify_all()

    def wait_for(self, camera, *wanted):
        """Until the states of a camera end in the wanted ones."""

        def told():
            return tuple(state for state, _ in self.states.get(camera, []))[-len(wanted) :] == wanted

        with self._changed:
            assert self._changed.wait_for(told, PATIENT_S), f"{camera}: expected {wanted}, found {self.states}"
        return self.states[camera][-1][1]


@contextmanager
def starting(seen, options, policy):
    """Gives what starts a camera, by its own policy or this one; stops them all at the end."""
    cameras = []

    def start_camera(name, url, door, latest_frames, policy=policy):
        source = parse_source(url)
        camera = Camera(name, source, partial(open_source, source, door, options), latest_frames, seen.on_state, policy)
        cameras.append(camera)
        camera.start()
        return camera

    yield start_camera
    stopped = [camera.stop(PATIENT_S) for camera in cameras]
    assert all(stopped)
