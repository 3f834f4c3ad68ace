"""A running device: cameras, frame loop, outbox and publisher, wired together.

Threads: one per camera, the caller's for the frame loop, one that writes the outbox, one that publishes. Commands from
MQTT and signals are carried out by the frame loop's thread, between two frames.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

from edge.build import ModelLoading
from edge.bundle.layout import slot_folder
from edge.bundle.reprove import EngineProver
from edge.bundle.starts import STAYS_UP_S
from edge.capture.cameras import Cameras, build_camera
from edge.capture.latest_frames import LatestFrames
from edge.capture.recorder import Recorders
from edge.config.config_file import ConfigFile
from edge.config.running_config import RunningConfig
from edge.config.schema import DeviceConfig
from edge.errors import CommandError, ConfigError, FinesightError
from edge.frame_loop import FrameLoop, build_pipeline
from edge.health_reporter import HealthReporter
from edge.imaging import image
from edge.messaging.command import Command
from edge.messaging.device_publisher import DevicePublisher, PublishLatency
from edge.messaging.outbox import Outbox
from edge.recognition.chosen_engines import proof_options
from edge.recognition.gallery_drift import GalleryDrift
from edge.recognition.loaded_models import LoadedModels
from edge.telemetry.age_clock import AgeClock
from edge.telemetry.agent_report import AgentReports
from edge.telemetry.counters import Counters
from edge.telemetry.health_report import HealthReport, RuntimeState, WaitingUnknowns
from edge.telemetry.systemd import notify_systemd, watchdog_interval_s
from edge.telemetry.timing import StageTimer
from edge.telemetry.vital_signs import VitalSigns, VitalSignsTaker, VitalSignsWriter, monotonic_s
from edge.types import CameraState, Frame

log = logging.getLogger(__name__)

_HEALTH_INTERVAL_S = 60.0
_TICK_S = 0.1
_LOOK_S = 0.1  # for an activated bundle and gallery: a few calls of stat(2)
_WITHOUT_VIEW: frozenset[CameraState] = frozenset(get_args(CameraState)) - {"online"}  # tracks end in these states


class Runtime:
    """A device from start to stop: `with Runtime(config) as runtime: runtime.run(stop)`."""

    def __init__(
        self,
        config: DeviceConfig,
        file: ConfigFile | None = None,
        add_overlay: Callable[[LoadedModels], LoadedModels] = lambda models: models,
        counters: Counters | None = None,
        stop: threading.Event | None = None,
        loading: ModelLoading | None = None,
    ) -> None:
        """Load and open everything but the cameras.

        Args:
            config: the device.
            file: the configuration file, for reloads; None: the configuration cannot be reloaded.
            add_overlay: changes loaded models before they are used: a kiosk adds its taught items.
            counters: created if None.
            stop: set by a signal, which need not wait until the models are loaded.
            loading: of the models, if it has begun, with its own overlay and counters; None: it begins here.

        Raises:
            FinesightError: no bundle and gallery of the device can be used, or the outbox.
            StoppedError: `stop` was set meanwhile; the models are still being loaded.
        """
        image.set_threads(1)  # frames are small: OpenCV's own threads only compete with the engine's
        loading = loading or ModelLoading(config, counters, add_overlay)
        self.counters = loading.counters
        self.timer = StageTimer()
        self.boot_id = secrets.token_hex(8)
        started_ns = self._iterated_ns = time.monotonic_ns()
        self._state: RuntimeState = "starting"
        self._running = RunningConfig(config, file, self.counters)
        self._starts, self._gpu = loading.starts, loading.gpu
        self._stays_up_at = time.monotonic() + STAYS_UP_S
        self._active_models = loading.wait(stop)
        self._engine_prover = EngineProver(
            config.state_dir,
            proof_options(config.engine, config.state_dir),
            self.counters,
            prepare=self._gpu.prepare_trial,
        )
        path, bounds, ages = config.state_dir / "outbox.sqlite", config.outbox, AgeClock()
        self._outbox = Outbox(
            path, self.counters, max_bytes=bounds.max_bytes, max_age_s=bounds.max_age_s, age_clock=ages
        )
        gallery_drift = GalleryDrift(config.state_dir / "first_answers.json")
        latency = PublishLatency(self.timer, time.monotonic_ns)
        self._publisher = DevicePublisher(config, self.boot_id, self._outbox, latency, self.counters)
        self._latest_frames = LatestFrames()
        self._recorders = Recorders(config.state_dir / "ring", self.counters)
        self._frame_loop = FrameLoop(
            build_pipeline(self.models, config.recognition, config.cameras, self.counters),
            publisher=self._publisher,
            recorders=self._recorders,
            gallery_drift=gallery_drift,
            counters=self.counters,
            timer=self.timer,
            on_gpu_error=self._gpu.lose,
        )
        self.observers, self.event_observers = self._frame_loop.observers, self._frame_loop.event_observers
        self.waiting_unknowns: Callable[[], WaitingUnknowns | None] = lambda: None
        build = partial(build_camera, self._latest_frames, self._recorders, self.counters)
        self._cameras = Cameras(build, self._latest_frames, config.cameras)
        self._reporter = HealthReporter(
            boot_id=self.boot_id,
            started_ns=started_ns,
            running=self._running,
            cameras=self._cameras,
            publisher=self._publisher,
            outbox=self._outbox,
            active_models=self._active_models,
            gallery_drift=gallery_drift,
            gpu=self._gpu,
            engine_prover=self._engine_prover,
            agent_reports=AgentReports(config.state_dir, self.counters),
            counters=self.counters,
            timer=self.timer,
        )
        self._vital_signs_taker = VitalSignsTaker(time.time(), monotonic_s())
        self._vital_signs = VitalSignsWriter(config.state_dir, self.vital_signs, self.counters)

    def __enter__(self) -> Runtime:  # noqa: PYI034  Self is not in Python 3.10
        self._state = "running"
        self._publisher.start()
        self._publish_self()
        self._cameras.open_due()
        self._running.keep()
        self._vital_signs.start()
        notify_systemd("READY=1")
        names = ", ".join(self.config.cameras)
        log.info("ready: bundle %s, gallery %s, cameras %s", self.models.bundle_id, self.models.gallery_id, names)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._state = "stopping"
        notify_systemd("STOPPING=1")
        self._cameras.close()
        self._publish_camera_states()
        for name in self.config.cameras:
            self._frame_loop.end_tracks(name)
        self._recorders.close()
        self._publish_health()
        self._publisher.close()
        self._vital_signs.close()
        self._outbox.close()
        if kind is None:  # it was asked to stop
            self._starts.end_well(self._active_models.serving.pair)

    def run(self, stop: threading.Event, *, until_end: bool = False, reload: threading.Event | None = None) -> None:
        """Recognise frames until `stop` is set.

        Args:
            stop: set by a signal.
            until_end: also return once every file has ended and all its frames are recognised.
            reload: set by a signal; the configuration is then read again.
        """
        next_tick = next_look = next_health = time.monotonic()
        watchdog_s = watchdog_interval_s() or _HEALTH_INTERVAL_S
        next_watchdog = next_tick
        connected = False
        while not stop.is_set():
            frames = self._latest_frames.take_several(_TICK_S, self._frame_loop.pipeline.detector_batch_size)
            self._frame_loop.recognise([frame for frame in frames if self._is_wanted(frame)], stop)
            if self._frame_loop.pipeline.models is not self.models:
                self._frame_loop.pipeline.swap_models(self.models)
            self._iterated_ns = time.monotonic_ns()
            now = self._iterated_ns / 1e9
            self._handle_commands(reload)
            self._cameras.open_due()
            self._publish_camera_states()
            self._frame_loop.reidentify()
            if now >= next_look:
                next_look = now + _LOOK_S
                self._look_at_pointer()
            if now >= next_tick:
                next_tick = now + 1.0
                self._tick(now)
            if now >= next_watchdog:  # fed by the frame loop: if it hangs, systemd restarts the process
                next_watchdog = now + watchdog_s
                notify_systemd("WATCHDOG=1")
            # health is not queued while disconnected, so it is published on each new connection
            was_connected, connected = connected, self._publisher.connected
            if now >= next_health or (connected and not was_connected):
                next_health = now + _HEALTH_INTERVAL_S
                self._publish_health()
            if not frames and self._latest_frames.drained:  # no camera to wait for
                if until_end:
                    return
                stop.wait(_TICK_S)

    def _look_at_pointer(self) -> None:
        """Swap in what was activated, and tell everybody."""
        if self._active_models.swap_if_ready():
            self._vital_signs.hurry()
            self._publish_self_and_health()

    def _tick(self, now: float) -> None:
        """Do what is done once a second."""
        self._cameras.watch()
        self._count_drops()
        if self._running.overlay_changed():
            with contextlib.suppress(CommandError):  # logged
                self._reload()
        if now >= self._stays_up_at:
            pair = self._active_models.serving.pair
            self._starts.end_well(pair)
            self._engine_prover.check(slot_folder(self.config.state_dir, pair.slot))

    @property
    def config(self) -> DeviceConfig:
        """The configuration that runs."""
        return self._running.config

    @property
    def fallback(self) -> str | None:
        """Why the active bundle and gallery do not serve; None: they do."""
        return self._active_models.serving.fallback

    @property
    def models(self) -> LoadedModels:
        """The active bundle and gallery; from any thread."""
        return self._active_models.models

    def refresh_overlay(self) -> None:
        """Add the current overlay to the active models, from the next frame on; call it from any thread."""
        self._active_models.refresh_overlay()

    def publish_snapshot(self, camera: str, jpeg: bytes) -> None:
        """Publish the picture of a recognised object, retained; from any thread."""
        self._publisher.publish_snapshot(camera, jpeg)

    def camera_errors(self) -> dict[str, FinesightError]:
        """Return why files and folders could not be read, by camera."""
        return self._cameras.errors()

    def _is_wanted(self, frame: Frame) -> bool:
        if self._cameras.is_open(frame.camera):
            return True
        self.counters.add("frames_dropped", camera=frame.camera, reason="closed")
        return False

    def _publish_camera_states(self) -> None:
        """Publish the cameras' new states; end the tracks of cameras without a usable view."""
        while self._cameras.status_changes:
            status = self._cameras.status_changes.popleft()
            self._publisher.publish_status(status)
            if status.state in _WITHOUT_VIEW:
                self._frame_loop.end_tracks(status.camera)
                self._recorders.stream_lost(status.camera)

    def _handle_commands(self, reload: threading.Event | None) -> None:
        """Carry out the commands since the last call, from messages or a signal."""
        if reload is not None and reload.is_set():
            reload.clear()
            with contextlib.suppress(CommandError):  # logged
                self._reload()
        for received in self._publisher.take_commands():
            if received.kind == "home_assistant":
                self._publish_self_and_health()
                continue
            outcome: dict[str, Any] | CommandError
            try:
                outcome = self._execute(received.command(self.config.cameras))
            except CommandError as error:
                outcome = error
            self._publisher.publish_reply(received, outcome)

    def _execute(self, command: Command) -> dict[str, Any]:
        """Carry out a command; return its result.

        Raises:
            CommandError: it failed and changed nothing.
        """
        log.info("command %s%s", command.verb, f" {command.camera}" if command.camera else "")
        if command.verb == "reload":
            return self._reload()
        if command.camera is None:
            self._publish_health()
            return {"state": self._state}
        if command.verb == "restart_camera":
            if not self._cameras.is_on(command.camera):
                raise CommandError(f"camera {command.camera} is disabled; enable it before you restart it")
            self._cameras.restart(command.camera)
        else:
            self._cameras.switch(command.camera, on=command.verb == "camera/enable")
            self._publisher.publish_switch(command.camera, on=self._cameras.is_on(command.camera))
        return {"camera": command.camera, "enabled": self._cameras.is_on(command.camera)}

    def _reload(self) -> dict[str, Any]:
        """Read the configuration again and apply what can change while the device runs.

        Raises:
            CommandError: it is invalid; the running configuration stays.
        """
        try:
            plan = self._running.plan_reload()
        except ConfigError as error:
            self._publish_self_and_health()
            raise CommandError(str(error)) from error
        self._publish_camera_states()
        for name in (*plan.removed, *plan.changed):
            self._frame_loop.end_tracks(name)
            self._recorders.end(name)
        self._running.use(plan)
        pipeline = build_pipeline(self.models, self.config.recognition, self.config.cameras, self.counters)
        self._frame_loop.replace_pipeline(pipeline, plan.changed)
        self._cameras.replace(self.config.cameras, (*plan.added, *plan.changed))
        self.counters.add("reloads", result="done")
        log.info("configuration reloaded: %s", plan.summary())
        self._vital_signs.hurry()
        self._running.keep()
        self._publish_self_and_health()
        return plan.summary()

    def loop_age_s(self) -> float:
        """Return the seconds since the frame loop's last iteration."""
        return (time.monotonic_ns() - self._iterated_ns) / 1e9

    def vital_signs(self) -> VitalSigns:
        """Return what the update agent reads; from one thread at a time."""
        return self._vital_signs_taker.take(self.report(), self.counters, monotonic_s())

    def report(self) -> HealthReport:
        """Return the state of the device; from any thread."""
        return self._reporter.report(self._state, self.waiting_unknowns())

    def _publish_self_and_health(self) -> None:
        self._publish_self()
        self._publish_health()

    def _publish_health(self) -> None:
        self._count_drops()
        self._publisher.publish_health(self.report())

    def _publish_self(self) -> None:
        switches = {name: self._cameras.is_on(name) for name in self.config.cameras}
        self._publisher.publish_birth(self.report(), self.config.cameras, switches)

    def _count_drops(self) -> None:
        for (camera, reason), count in self._cameras.new_drops().items():
            self.counters.add("frames_dropped", count, camera=camera, reason=reason)
