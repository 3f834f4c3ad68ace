"""A configured device at work: cameras, pipeline, outbox and publisher, wired together.

Threads: one per camera, the caller's for the pipeline, one that writes the outbox, one that publishes.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge import __version__, image
from edge.bundle import Bundle, read_bundle, read_serving
from edge.capture import Camera, policy_for
from edge.capture_door import open_source
from edge.capture_mailbox import Mailbox
from edge.config import CameraConfig, DeviceConfig, EngineConfig, MqttConfig, RecognitionConfig
from edge.errors import FinesightError
from edge.evidence import LookPolicy
from edge.gallery import Gallery, read_category, read_gallery
from edge.health import (
    Counters,
    HealthReport,
    RuntimeState,
    StageTimer,
    notify,
    resident_bytes,
    watchdog_interval_s,
)
from edge.manifest import OpenSet
from edge.mqtt import MqttSettings
from edge.outbox import Outbox
from edge.payload import event_payload, health_payload, priority_of, status_payload, topic_of
from edge.pipeline import Pipeline, Result, Search, Serving
from edge.publish import Publisher
from edge.search import build_index
from edge.source import CaptureOptions, parse_source
from edge.stages import load_stages
from edge.successor import Successor
from edge.types import CameraState, Event, Frame

log = logging.getLogger(__name__)

_HEALTH_INTERVAL_S = 60.0
_TICK_S = 0.25
_LOST: frozenset[CameraState] = frozenset({"stalled", "reconnecting", "offline", "disabled"})  # nothing seen is present
_FAILURE_PAUSE_S = 1.0


def open_serving(config: DeviceConfig) -> Serving:
    """Load the pair of bundle and gallery that a device's pointer names.

    Raises:
        BundleError: nothing was activated, or the pair is damaged.
        EngineError: a model cannot be run here.
    """
    bundle, gallery = read_serving(config.state_dir)
    return _load(bundle, gallery, config.engine, config.state_dir / "cache")


def open_serving_from(bundle_folder: Path | None, gallery_folder: Path | None, engine: EngineConfig) -> Serving:
    """Load a bundle and a gallery from folders, without a device; a missing gallery is an empty one.

    Raises:
        BundleError: the bundle is damaged or missing.
        GalleryError: the gallery is damaged.
    """
    if bundle_folder is None:
        raise FinesightError("found a gallery folder without a bundle folder, expected both")
    return _load(read_bundle(bundle_folder), read_gallery(gallery_folder) if gallery_folder else None, engine)


def _load(bundle: Bundle, gallery: Gallery | None, engine: EngineConfig, cache: Path | None = None) -> Serving:
    manifest = bundle.manifest
    stages = load_stages(bundle.folder, manifest, engine.backend, engine.threads, cache, engine.precision)
    indexes: dict[str, Search] = {}
    open_sets: dict[str, OpenSet] = {}
    for model in manifest.embedders:
        open_sets.update(model.open_set)
        for category in model.categories:
            if gallery is not None and category in gallery.categories:
                indexes[category] = build_index(read_category(gallery.path(category), model.space_id, model.dim))
    generation = gallery.generation if gallery else "none"
    return Serving(manifest.bundle_id, generation, stages, indexes, open_sets)


def build_pipeline(
    serving: Serving, recognition: RecognitionConfig, cameras: dict[str, CameraConfig], counts: Counters
) -> Pipeline:
    """A pipeline for these cameras."""
    policy = LookPolicy(
        recognition.min_looks, recognition.max_looks, recognition.look_interval_s, recognition.recheck_s
    )
    return Pipeline(
        serving,
        policy,
        {name: camera.framing for name, camera in cameras.items()},
        counts,
        time.monotonic_ns,
        min_object_px=recognition.min_object_px,
        track_gap_s=recognition.track_gap_s,
    )


def mqtt_settings(mqtt: MqttConfig, site: str, device: str) -> MqttSettings:
    """The connection that a configuration describes; its client id is unique unless given."""
    return MqttSettings(
        client_id=mqtt.client_id or f"finesight-{site}-{device}-{secrets.token_hex(4)}",
        host=mqtt.host,
        port=mqtt.port,
        username=mqtt.username,
        password=mqtt.password,
        version=mqtt.version,
        keepalive_s=mqtt.keepalive_s,
        tls=mqtt.tls,
        tls_ca=mqtt.tls_ca,
        tls_cert=mqtt.tls_cert,
        tls_key=mqtt.tls_key,
    )


class Runtime:
    """A device from start to stop: `with Runtime(config) as runtime: runtime.run(stop)`."""

    def __init__(
        self,
        config: DeviceConfig,
        dress: Callable[[Serving], Serving] = lambda serving: serving,
        counters: Counters | None = None,
    ) -> None:
        """Load and open everything but the cameras.

        Args:
            config: of the device.
            dress: what a pair is changed to before it serves: a kiosk adds what it was taught.
            counters: made when None.

        Raises:
            FinesightError: the bundle, the gallery, an engine or the outbox is unusable.
        """
        image.set_threads(1)  # frames are small: OpenCV's own threads only compete with the engine's
        self.config = config
        self.counters = counters or Counters()
        self.timer = StageTimer()
        self.boot_id = secrets.token_hex(8)
        self._started_ns = self._turned_ns = time.monotonic_ns()
        self._state: RuntimeState = "starting"
        self._enabled = {name: camera for name, camera in config.cameras.items() if camera.enabled}
        self._dress = dress
        self._serve_lock = threading.Lock()  # of the name `serving`; the pipeline follows it between frames
        self.serving = dress(open_serving(config))
        self._successor = Successor(config.state_dir, lambda: dress(open_serving(config)), self.counters)
        self.observers: list[Callable[[Frame, Result], None]] = []  # told of each recognised frame; must not wait
        self.pipeline = build_pipeline(self.serving, config.recognition, self._enabled, self.counters)
        self._root = config.mqtt.root if config.mqtt else "finesight"
        self.outbox = Outbox(
            config.state_dir / "outbox.sqlite",
            self.counters,
            max_bytes=config.outbox.max_bytes,
            max_age_s=config.outbox.max_age_s,
        )
        self.publisher = self._build_publisher()
        self._mailbox = Mailbox()
        self._states: deque[tuple[str, CameraState, str, float]] = deque()
        self._cameras = [self._build_camera(name, camera) for name, camera in self._enabled.items()]
        self._sequence = 0

    def __enter__(self) -> Runtime:  # noqa: PYI034  Self is not in Python 3.10
        if self.publisher is not None:
            self.publisher.start()
        for camera in self._cameras:
            camera.start()
        self._state = "running"
        notify("READY=1")
        log.info(
            "ready: bundle %s, gallery %s, cameras %s",
            self.serving.bundle_id,
            self.serving.gallery_id,
            ", ".join(self._enabled),
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._state = "stopping"
        notify("STOPPING=1")
        for camera in self._cameras:
            camera.stop()
        self._tell_states()
        for name in self._enabled:
            self._send(self.pipeline.view_lost(name))
        self._announce_health()
        if self.publisher is not None:
            self.publisher.close()
        self.outbox.close()

    def run(
        self, stop: threading.Event, *, until_end: bool = False, on_frame: Callable[[Frame], None] | None = None
    ) -> None:
        """Recognise frames until asked to stop.

        Args:
            stop: set by a signal.
            until_end: return once every file has ended and was recognised, too.
            on_frame: told of each recognised frame.
        """
        next_tick = next_health = time.monotonic()
        watchdog_s = watchdog_interval_s() or _HEALTH_INTERVAL_S
        next_watchdog = next_tick
        while not stop.is_set():
            frame = self._mailbox.take(_TICK_S)
            if frame is not None:
                self._recognise(frame, stop)
                if on_frame is not None:
                    on_frame(frame)
            if self.pipeline.serving is not self.serving:
                self.pipeline.serve(self.serving)
            self._turned_ns = time.monotonic_ns()
            now = self._turned_ns / 1e9
            self._tell_states()
            if now >= next_tick:
                next_tick = now + 1.0
                for camera in self._cameras:
                    camera.watch()
                self._count_drops()
                self._switch()
            if now >= next_watchdog:  # fed by the loop that recognises: if it hangs, systemd restarts the process
                next_watchdog = now + watchdog_s
                notify("WATCHDOG=1")
            if now >= next_health:
                next_health = now + _HEALTH_INTERVAL_S
                self._announce_health()
            if until_end and frame is None and self._mailbox.drained:
                return

    def frames_superseded(self) -> int:
        """Frames that arrived while the pipeline was busy and were replaced by newer ones."""
        return sum(camera.dropped["superseded"] for camera in self._cameras)

    def camera_errors(self) -> dict[str, FinesightError]:
        """Why files and folders could not be read, by camera."""
        return {camera.name: camera.error for camera in self._cameras if camera.error is not None}

    def _build_publisher(self) -> Publisher | None:
        if self.config.mqtt is None:
            log.warning("no mqtt section: events stay in %s", self.config.state_dir / "outbox.sqlite")
            return None
        settings = mqtt_settings(self.config.mqtt, self.config.site, self.config.device)
        return Publisher(settings, self.outbox, self.counters, self._topic(None, "available"))

    def _topic(self, camera: str | None, leaf: str) -> str:
        return topic_of(self._root, self.config.site, self.config.device, camera, leaf)

    def _build_camera(self, name: str, camera: CameraConfig) -> Camera:
        source = parse_source(camera.source)
        options = CaptureOptions(
            transport=camera.rtsp_transport,
            latency_ms=camera.latency_ms,
            open_timeout_s=camera.open_timeout_s,
            read_timeout_s=camera.stall_timeout_s,
        )
        return Camera(
            name,
            source,
            partial(open_source, source, camera.backend, options),
            self._mailbox,
            lambda camera_name, state, evidence: self._states.append((camera_name, state, evidence, time.time())),
            policy_for(source, camera.pacing, camera.stall_timeout_s),
        )

    def _recognise(self, frame: Frame, stop: threading.Event) -> None:
        try:
            result = self.pipeline.process(frame)
        except Exception:
            self.counters.add("frames_failed", camera=frame.camera)
            log.exception("camera %s: frame %d failed", frame.camera, frame.index)
            stop.wait(_FAILURE_PAUSE_S)
            return
        self.counters.add("frames_recognised", camera=frame.camera)
        self.counters.add("looks", result.looks, camera=frame.camera)
        self.timer.add(result.timings.stages_ms)
        self._send(result.events)
        for observe in self.observers:
            observe(frame, result)

    def _send(self, events: list[Event]) -> None:
        for event in events:
            payload = event_payload(event, self.config.site, self.config.device, self.boot_id, self._sequence)
            self._sequence += 1
            self.outbox.put(self._topic(event.camera, "events"), payload, priority_of(event.type), event.event_id)
            self.counters.add("events", camera=event.camera, type=event.type)
            if "capture_to_decision" in event.latency_ms:
                self.timer.add({"capture_to_decision": event.latency_ms["capture_to_decision"]})

    def _switch(self) -> None:
        """Serve what was activated since, once it is loaded."""
        successor = self._successor.poll(self.serving)
        if successor is None:
            return
        try:
            successor = self._dress(successor)  # once more: it may have been long in loading
        except FinesightError as error:
            self.counters.add("dress_failed")
            log.warning("%s; it serves as it was loaded", error)
        with self._serve_lock:
            self.serving = successor
        log.info("serving bundle %s, gallery %s", successor.bundle_id, successor.gallery_id)
        self._announce_health()

    def redress(self) -> None:
        """Serve the same pair, dressed anew, from the next frame on; from any thread."""
        while True:
            serving = self.serving
            dressed = self._dress(serving)
            with self._serve_lock:
                if self.serving is serving:  # else another pair took over meanwhile
                    self.serving = dressed
                    return

    def _tell_states(self) -> None:
        """Publish what cameras said of themselves, and end what a lost view can no longer show."""
        while self._states:
            name, state, evidence, at = self._states.popleft()
            if self.publisher is not None:
                payload = status_payload(name, state, at, evidence)
                self.publisher.announce(self._topic(name, "status"), payload)
            if state in _LOST:
                self._send(self.pipeline.view_lost(name))

    def loop_age_s(self) -> float:
        """Seconds since the frame loop last turned."""
        return (time.monotonic_ns() - self._turned_ns) / 1e9

    def report(self) -> HealthReport:
        """The state of the device now; from any thread."""
        events, size = self.outbox.depth()
        return HealthReport(
            site=self.config.site,
            device=self.config.device,
            boot_id=self.boot_id,
            at=time.time(),
            uptime_s=(time.monotonic_ns() - self._started_ns) / 1e9,
            state=self._state,
            cameras={camera.name: camera.state for camera in self._cameras},
            counters=self.counters.snapshot(),
            stages=self.timer.snapshot(),
            outbox_events=events,
            outbox_bytes=size,
            mqtt_connected=self.publisher is not None and self.publisher.connected,
            mqtt_error=self.publisher.error if self.publisher else None,
            resident_bytes=resident_bytes(),
            versions={
                "edge": __version__,
                "bundle": self.serving.bundle_id,
                "gallery": self.serving.gallery_id,
            },
        )

    def _announce_health(self) -> None:
        self._count_drops()
        if self.publisher is not None:
            self.publisher.announce(self._topic(None, "health"), health_payload(self.report()), retain=False)

    def _count_drops(self) -> None:
        for camera in self._cameras:
            for reason, count in camera.dropped.items():
                counted = self.counters.total("frames_dropped", camera=camera.name, reason=reason)
                self.counters.add("frames_dropped", count - counted, camera=camera.name, reason=reason)
