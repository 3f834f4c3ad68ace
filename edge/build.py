"""Builds the parts of a device from its configuration."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from edge.bundle.bundle import Bundle, read_bundle
from edge.bundle.prove import prover
from edge.bundle.slots import read_active
from edge.bundle.starts import Starts
from edge.capture.camera import Camera, OnState
from edge.capture.camera_policy import policy_for
from edge.capture.frame_source import CaptureOptions, FrameSource
from edge.capture.latest_frames import LatestFrames
from edge.capture.open_source import SourceOpener
from edge.capture.reconnect import reachability_check
from edge.capture.recorder import Recorders
from edge.config.camera_url import parse_source
from edge.config.schema import CameraConfig, DeviceConfig, EngineConfig, RecognitionConfig
from edge.errors import CaptureError, FinesightError
from edge.finder.finder import open_finder
from edge.gallery.generation import Gallery, read_gallery
from edge.gallery.loaded_gallery import load_gallery
from edge.inference.stages import load_stages
from edge.messaging.age_clock import AgeClock
from edge.messaging.outbox import Outbox
from edge.recognition.best_pair import Serving, load_best_pair
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.pipeline import Pipeline
from edge.telemetry.counters import Counters

log = logging.getLogger(__name__)


def load_active_models(config: DeviceConfig) -> LoadedModels:
    """Load a device's active bundle and gallery.

    Raises:
        BundleError: none is activated, or one is damaged.
        EngineError: a model cannot run here.
    """
    return load_pair(config, *read_active(config.state_dir))


def load_best_models(config: DeviceConfig, starts: Starts) -> Serving:
    """Load a device's active bundle and gallery or, if they cannot be used, the best that is left on it.

    Raises:
        BundleError: nothing on the device can be used.
    """
    prove = prover(config.engine.backend, config.state_dir / "cache")
    return load_best_pair(config.state_dir, partial(load_pair, config), prove, starts)


def load_pair(config: DeviceConfig, bundle: Bundle, gallery: Gallery) -> LoadedModels:
    """Load a verified bundle and gallery of a device.

    Raises:
        GalleryError: the gallery is wrong inside.
        EngineError: a model cannot run here.
    """
    cache = config.state_dir / "cache"
    models = _load(bundle, gallery, config.engine, cache)
    if config.recognition.seek is None:
        return models
    model = bundle.manifest.finder
    if model is None or model.map_threshold is not None:
        why = "no finder" if model is None else "a finder of an older format (ADR 0010)"
        log.warning("bundle %s has %s: recognition.seek has no effect", models.bundle_id, why)
        return models
    finder = open_finder(bundle.folder, model, config.engine.backend, config.engine.threads, cache)
    return replace(models, finder=finder)


def load_state(state_dir: Path, engine: EngineConfig) -> LoadedModels:
    """Load the active bundle and gallery of a state folder, without a finder.

    Raises:
        BundleError: none is activated, or one is damaged.
        EngineError: a model cannot run here.
    """
    return _load(*read_active(state_dir), engine, state_dir / "cache")


def load_models(bundle_folder: Path | None, gallery_folder: Path | None, engine: EngineConfig) -> LoadedModels:
    """Load a bundle and a gallery from folders, without a device; no gallery means an empty one.

    Raises:
        BundleError: the bundle is damaged or missing.
        GalleryError: the gallery is damaged.
    """
    if bundle_folder is None:
        raise FinesightError("a gallery folder needs a bundle folder; give both")
    return _load(read_bundle(bundle_folder), read_gallery(gallery_folder) if gallery_folder else None, engine)


def _load(bundle: Bundle, gallery: Gallery | None, engine: EngineConfig, cache: Path | None = None) -> LoadedModels:
    stages = load_stages(bundle.folder, bundle.manifest, engine.backend, engine.threads, cache, engine.precision)
    loaded = load_gallery(bundle.manifest, gallery)
    return LoadedModels(
        bundle.manifest.bundle_id,
        gallery.generation if gallery else "none",
        stages,
        dict(loaded.indexes),
        loaded.open_sets,
        frozenset(loaded.compatible_categories),
        gallery.created_at if gallery else None,
        loaded.silhouettes,
        spaces=dict(loaded.spaces),
    )


def build_pipeline(
    models: LoadedModels, recognition: RecognitionConfig, cameras: dict[str, CameraConfig], counts: Counters
) -> Pipeline:
    """Build a pipeline for these cameras."""
    return Pipeline(models, cameras, recognition, counts, time.monotonic_ns)


def capture_options(camera: CameraConfig) -> CaptureOptions:
    """Return the options to open a camera's source with."""
    return CaptureOptions(
        transport=camera.rtsp_transport,
        latency_ms=camera.latency_ms,
        open_timeout_s=camera.open_timeout_s,
        read_timeout_s=camera.stall_timeout_s,
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


def open_outbox(config: DeviceConfig, counters: Counters) -> Outbox:
    """Open the outbox of a device: the queue of its events.

    Raises:
        OutboxError: its folder cannot be written, or another process holds it.
    """
    path, bounds = config.state_dir / "outbox.sqlite", config.outbox
    return Outbox(path, counters, max_bytes=bounds.max_bytes, max_age_s=bounds.max_age_s, age_clock=AgeClock())
