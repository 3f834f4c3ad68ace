"""The cameras of a running device: each switched, restarted and replaced without touching the others.

Rules:
1. Only the frame loop calls this, and nothing here waits: a camera that is closed may take its time to let go.
2. The next one of the same name opens when the one before has let go, or has hung for too long.
3. What a camera that was closed still says is not heard, and a frame that it left is not looked at.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from functools import partial

from edge.capture.camera import Camera, OnState
from edge.capture.latest_frames import Mailbox
from edge.config.schema import CameraConfig
from edge.errors import FinesightError
from edge.types import CameraState, CameraStatus

_LET_GO_S = 10.0  # a library that holds a camera for longer hangs

Build = Callable[[str, CameraConfig, OnState], Camera]


class Cameras:
    """All cameras that are configured, on or off."""

    def __init__(
        self,
        build: Build,
        mailbox: Mailbox,
        configs: Mapping[str, CameraConfig],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is opened before `open_due`."""
        self.told: deque[CameraStatus] = deque()
        self.configs = dict(configs)
        self._build, self._mailbox, self._clock_s = build, mailbox, clock_s
        self._on: dict[str, bool] = {}
        self._running: dict[str, Camera] = {}
        self._leaving: dict[str, tuple[Camera, float]] = {}  # and until when it may take its time
        self._voices: dict[str, object] = {}  # of the cameras that are heard
        self._counted: dict[Camera, Counter[str]] = {}
        for name in configs:
            self._set(name, on=configs[name].enabled, why="not enabled in the configuration")

    def open_due(self) -> None:
        """Open what is on and not open, once its predecessor has let go."""
        for name, (camera, patience_s) in list(self._leaving.items()):
            if camera.stop(0.0) or self._clock_s() >= patience_s:
                del self._leaving[name]
                self._mailbox.discard(name)
        for name, config in self.configs.items():
            if self._on[name] and name not in self._running and name not in self._leaving:
                voice = self._voices[name] = object()
                camera = self._running[name] = self._build(name, config, partial(self._hear, voice))
                camera.start()

    def is_on(self, name: str) -> bool:
        """Whether a camera is switched on."""
        return self._on.get(name, False)

    def is_open(self, name: str) -> bool:
        """Whether frames of a camera count."""
        return name in self._running

    def switch(self, name: str, *, on: bool) -> None:
        """Switch a camera on or off."""
        if self._on[name] != on:
            self._set(name, on=on, why="switched off")

    def restart(self, name: str, why: str = "restarted") -> None:
        """Close a camera, and open it again."""
        self._retire(name)
        self._tell(name, "reconnecting", why)

    def replace(self, configs: Mapping[str, CameraConfig], changed: tuple[str, ...]) -> None:
        """Go on with other cameras.

        Args:
            configs: all there are to be.
            changed: those among them that are to be opened anew, or for the first time.
        """
        for name in [name for name in self.configs if name not in configs]:
            self._retire(name)
            del self._on[name]
        self.configs = dict(configs)
        for name in changed:
            if self.is_open(name):
                self.restart(name, "its configuration changed")
            self._set(name, on=configs[name].enabled, why="not enabled in the configuration")

    def states(self) -> dict[str, CameraState]:
        """How every camera is; from any thread."""
        running = dict(self._running)
        return {
            name: running[name].state if name in running else "reconnecting" if self.is_on(name) else "disabled"
            for name in list(self.configs)
        }

    def evidence(self) -> dict[str, str]:
        """Why the state of every open camera is what it is; from any thread."""
        return {name: camera.evidence for name, camera in dict(self._running).items()}

    def clock_offsets_s(self) -> dict[str, float]:
        """The clocks minus ours of those open cameras that tell their own time; from any thread."""
        offsets = {name: camera.clock.seconds for name, camera in dict(self._running).items()}
        return {name: round(offset_s, 3) for name, offset_s in offsets.items() if offset_s is not None}

    def clocks_off(self) -> tuple[str, ...]:
        """The open cameras whose clock is too far from ours; from any thread."""
        return tuple(sorted(name for name, camera in dict(self._running).items() if camera.clock.is_off))

    def watch(self) -> None:
        """Let cameras that hang say so."""
        for camera in self._running.values():
            camera.watch()

    def new_drops(self) -> Counter[tuple[str, str]]:
        """Frames dropped since the last time, by camera and reason."""
        fresh: Counter[tuple[str, str]] = Counter()
        here = [*self._running.values(), *(camera for camera, _ in self._leaving.values())]
        for camera in here:
            before = self._counted.get(camera, Counter())
            now = self._counted[camera] = Counter(camera.dropped)
            fresh.update({(camera.name, reason): count for reason, count in (now - before).items()})
        self._counted = {camera: self._counted[camera] for camera in here}
        return fresh

    def errors(self) -> dict[str, FinesightError]:
        """Why files and folders could not be read, by camera."""
        return {name: camera.error for name, camera in self._running.items() if camera.error is not None}

    def close(self) -> None:
        """Close all, and wait for each a little."""
        for camera in self._running.values():
            camera.stop(0.0)
        for camera in self._running.values():
            camera.stop()

    def _set(self, name: str, *, on: bool, why: str) -> None:
        self._on[name] = on
        if not on:
            self._retire(name)
            self._tell(name, "disabled", why)

    def _retire(self, name: str) -> None:
        camera = self._running.pop(name, None)
        if camera is not None:
            del self._voices[name]
            camera.stop(0.0)
            self._leaving[name] = (camera, self._clock_s() + _LET_GO_S)

    def _hear(self, voice: object, name: str, state: CameraState, evidence: str) -> None:
        """Take in what a camera says, on its own thread."""
        if self._voices.get(name) is voice:
            self._tell(name, state, evidence)

    def _tell(self, name: str, state: CameraState, evidence: str) -> None:
        self.told.append(CameraStatus(name, state, evidence, time.time()))
