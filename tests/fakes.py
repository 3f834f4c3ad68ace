"""Fakes of the modules that touch the outside world, with the same interface."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np

from edge.capture.camera_policy import Timing
from edge.capture.frame_source import EndOfStream, Picture
from edge.telemetry.health_report import HealthReport


class FakeTiming:
    """A clock that advances only when somebody waits."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000
        self.waits_s: list[float] = []
        self.timing = Timing(
            monotonic_ns=lambda: self.now_ns,
            unix_s=lambda: 1_700_000_000 + self.now_ns / 1e9,
            wait=self._wait,
            jitter=lambda: 0.0,
        )

    def _wait(self, _event: threading.Event, seconds: float) -> None:
        self.waits_s.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


class FakeSource:
    """A frame source that plays a script: a Picture is returned, None is a read timeout, an exception is raised."""

    def __init__(self, script: Iterable[Picture | Exception | None], clock: FakeTiming | None = None) -> None:
        self._script = iter(script)
        self._clock = clock
        self.decode_path = "fake"
        self.closed = False

    def read(self, timeout_s: float) -> Picture | None:
        step = next(self._script, EndOfStream())
        if isinstance(step, Exception):
            raise step
        if step is None and self._clock is not None:
            self._clock.advance(timeout_s)
        return step

    def close(self) -> None:
        self.closed = True


def a_picture(pts_s: float | None = None, *, arrived_ns: int = 0, shade: int = 0) -> Picture:
    """Return a small picture of one shade of grey."""
    return Picture(np.full((4, 6, 3), shade, np.uint8), arrived_ns, pts_s, "file" if pts_s is not None else "arrival")


def health_report(**changes) -> HealthReport:
    """A running device without cameras, but for what a test changes."""
    report = {
        "site": "shop",
        "device": "till",
        "boot_id": "boot",
        "at": 1_700_000_000.0,
        "uptime_s": 12.34,
        "state": "running",
        "cameras": {},
        "counters": {},
        "stages": {},
        "outbox_events": 0,
        "outbox_bytes": 0,
        "mqtt_connected": True,
        "versions": {"edge": "0.1.0"},
    }
    return HealthReport(**report | changes)
