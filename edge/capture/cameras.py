"""The cameras of a running device: switch, restart and replace each one without touching the others.

Rules:
1. Only the frame loop calls this. Nothing here waits: a closed camera may take its time to release its source.
2. The next camera of the same name opens when the previous one has released its source, or has hung for too long.
3. Status changes and frames of a closed camera are ignored.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from functools import partial

from edge.capture.camera import Camera, OnState
from edge.capture.camera_policy import policy_for
from edge.capture.frame_source import CaptureOptions, FrameSource
from edge.capture.latest_frames import LatestFrames
from edge.capture.open_source import SourceOpener
from edge.capture.reconnect import reachability_check
from edge.capture.recorder import Recorders
from edge.config.camera_url import parse_source
from edge.config.schema import CameraConfig
from edge.errors import CaptureError, FinesightError
from edge.telemetry.counters import Counters
from edge.types import CameraState, CameraStatus

log = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 5.0  # for all cameras together
_CLOSE_TIMEOUT_S = 10.0  # a library that takes longer to release a camera hangs

Build = Callable[[str, CameraConfig, OnState], Camera]


class Cameras:
    """All configured cameras, on or off."""

    def __init__(
        self,
        build: Build,
        latest_frames: LatestFrames,
        configs: Mapping[str, CameraConfig],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the cameras; `open_due` opens them."""
        self.status_changes: deque[CameraStatus] = deque()
        self.configs = dict(configs)
        self._build, self._latest_frames, self._clock_s = build, latest_frames, clock_s
        self._on: dict[str, bool] = {}
        self._running: dict[str, Camera] = {}
        self._closing: dict[str, tuple[Camera, float]] = {}  # and when it counts as hung
        self._tokens: dict[str, object] = {}  # of the running cameras; status changes with another token are ignored
        self._counted: dict[Camera, Counter[str]] = {}
        for name in configs:
            self._switch(name, on=configs[name].enabled, why="not enabled in the configuration")

    def open_due(self) -> None:
        """Open every camera that is on and not yet open, once its predecessor has closed."""
        for name, (camera, deadline_s) in list(self._closing.items()):
            if camera.stop(0.0) or self._clock_s() >= deadline_s:
                del self._closing[name]
                self._latest_frames.discard(name)
        for name, config in self.configs.items():
            if self._on[name] and name not in self._running and name not in self._closing:
                token = self._tokens[name] = object()
                camera = self._running[name] = self._build(name, config, partial(self._on_state, token))
                camera.start()

    def is_on(self, name: str) -> bool:
        """Return whether a camera is switched on."""
        return self._on.get(name, False)

    def is_open(self, name: str) -> bool:
        """Return whether a camera is open, so that its frames count."""
        return name in self._running

    def switch(self, name: str, *, on: bool) -> None:
        """Switch a camera on or off."""
        if self._on[name] != on:
            self._switch(name, on=on, why="switched off")

    def restart(self, name: str, why: str = "restarted") -> None:
        """Close a camera and open it again."""
        self._close(name)
        self._queue_status(name, "reconnecting", why)

    def replace(self, configs: Mapping[str, CameraConfig], changed: tuple[str, ...]) -> None:
        """Apply another configuration of the cameras.

        Args:
            configs: of all cameras from now on.
            changed: the cameras among them to open again, or for the first time.
        """
        for name in [name for name in self.configs if name not in configs]:
            self._close(name)
            del self._on[name]
        self.configs = dict(configs)
        for name in changed:
            if self.is_open(name):
                self.restart(name, "its configuration changed")
            self._switch(name, on=configs[name].enabled, why="not enabled in the configuration")

    def states(self) -> dict[str, CameraState]:
        """Return the state of every camera. Call from any thread."""
        running = dict(self._running)
        return {
            name: running[name].state if name in running else "reconnecting" if self.is_on(name) else "disabled"
            for name in list(self.configs)
        }

    def reasons(self) -> dict[str, str]:
        """Return the reason for the state of every open camera. Call from any thread."""
        return {name: camera.reason for name, camera in dict(self._running).items()}

    def clock_offsets_s(self) -> dict[str, float]:
        """Return camera clock minus device clock of the open cameras that send their time. Call from any thread."""
        offsets = {name: camera.clock.seconds for name, camera in dict(self._running).items()}
        return {name: round(offset_s, 3) for name, offset_s in offsets.items() if offset_s is not None}

    def clocks_off(self) -> tuple[str, ...]:
        """Return the open cameras whose clock is too far from the device's. Call from any thread."""
        return tuple(sorted(name for name, camera in dict(self._running).items() if camera.clock.is_off))

    def watch(self) -> None:
        """Report the cameras that hang."""
        for camera in self._running.values():
            camera.watch()

    def new_drops(self) -> Counter[tuple[str, str]]:
        """Return the number of frames dropped since the last call, by camera and reason."""
        fresh: Counter[tuple[str, str]] = Counter()
        cameras = [*self._running.values(), *(camera for camera, _ in self._closing.values())]
        for camera in cameras:
            before = self._counted.get(camera, Counter())
            now = self._counted[camera] = Counter(camera.dropped)
            fresh.update({(camera.name, reason): count for reason, count in (now - before).items()})
        self._counted = {camera: self._counted[camera] for camera in cameras}
        return fresh

    def errors(self) -> dict[str, FinesightError]:
        """Return why files and folders could not be read, by camera."""
        return {name: camera.error for name, camera in self._running.items() if camera.error is not None}

    def close(self) -> None:
        """Close all cameras at once, and wait for them together; one that hangs in its library is left behind."""
        cameras = [*self._running.values(), *(camera for camera, _ in self._closing.values())]
        for camera in cameras:
            camera.stop(0.0)
        deadline_s = self._clock_s() + _STOP_TIMEOUT_S
        hung = [camera.name for camera in cameras if not camera.stop(max(0.0, deadline_s - self._clock_s()))]
        if hung:
            log.warning("cameras %s: still in their library after %g s; left behind", ", ".join(hung), _STOP_TIMEOUT_S)

    def _switch(self, name: str, *, on: bool, why: str) -> None:
        self._on[name] = on
        if not on:
            self._close(name)
            self._queue_status(name, "disabled", why)

    def _close(self, name: str) -> None:
        camera = self._running.pop(name, None)
        if camera is not None:
            del self._tokens[name]
            camera.stop(0.0)
            self._closing[name] = (camera, self._clock_s() + _CLOSE_TIMEOUT_S)

    def _on_state(self, token: object, name: str, state: CameraState, reason: str) -> None:
        """Queue a camera's status change, on the camera's thread."""
        if self._tokens.get(name) is token:
            # what an online camera has for a reason, its size and decoder, would read like a fault
            self._queue_status(name, state, "" if state == "online" else reason)

    def _queue_status(self, name: str, state: CameraState, reason: str) -> None:
        self.status_changes.append(CameraStatus(name, state, reason, time.time()))


def capture_options(camera: CameraConfig) -> CaptureOptions:
    """Return the options to open a camera's source with."""
    return CaptureOptions(
        transport=camera.rtsp_transport,
        latency_ms=camera.latency_ms,
        open_timeout_s=camera.open_timeout_s,
        read_timeout_s=camera.stall_timeout_s,
        max_px=camera.max_px,
    )


def check_recordable(name: str, camera: CameraConfig) -> None:
    """Check that this machine can record the encoded video of a camera.

    Raises:
        CaptureError: it cannot; the message names the camera and says what to do.
    """
    try:
        SourceOpener(parse_source(camera.source), camera.backend, capture_options(camera)).check_recordable()
    except CaptureError as error:
        raise CaptureError(f"camera {name}: {error}") from error


def build_camera(
    latest_frames: LatestFrames,
    recorders: Recorders,
    counters: Counters,
    name: str,
    config: CameraConfig,
    on_state: OnState,
) -> Camera:
    """Return a camera that puts its frames into `latest_frames` and, if configured, records its video."""
    source, options = parse_source(config.source), capture_options(config)
    recorder = recorders.recorder_for(name, config.record_mib * 2**20) if config.record_mib else None
    opener = SourceOpener(
        source, config.backend, options, lambda: counters.add("cameras_without_gstreamer", camera=name)
    )

    def open_frame_source() -> FrameSource:
        if recorder is None:
            return opener.open()
        recorder.connected()
        return opener.open(recorder.put)

    policy = policy_for(source, config.pacing, config.stall_timeout_s, config.view)
    return Camera(
        name,
        source,
        open_frame_source,
        latest_frames,
        on_state,
        policy,
        is_reachable=reachability_check(source),
        counters=counters,
    )
