"""Builds the parts of a device from its configuration."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

from edge.bundle.bundle import Bundle, read_bundle
from edge.bundle.slots import read_active
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
from edge.gallery.item_vectors import shrink_items_to_centroid
from edge.gallery.search import build_index, build_space_index
from edge.gallery.store import CategoryItems, read_category, read_silhouettes
from edge.inference.stages import load_stages
from edge.manifest import OpenSet
from edge.messaging.age_clock import AgeClock
from edge.messaging.outbox import Outbox
from edge.recognition.loaded_models import LoadedModels, Search
from edge.recognition.pipeline import Pipeline
from edge.silhouettes.rerank import GallerySilhouettes, silhouettes_for
from edge.telemetry.counters import Counters

log = logging.getLogger(__name__)


def load_active_models(config: DeviceConfig) -> LoadedModels:
    """Load a device's active bundle and gallery.

    Raises:
        BundleError: none is activated, or one is damaged.
        EngineError: a model cannot run here.
    """
    bundle, gallery = read_active(config.state_dir)
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
    manifest = bundle.manifest
    stages = load_stages(bundle.folder, manifest, engine.backend, engine.threads, cache, engine.precision)
    indexes: dict[str, Search] = {}
    open_sets: dict[str, OpenSet] = {}
    compatible_categories: set[str] = set()
    silhouettes: dict[str, GallerySilhouettes] = {}
    spaces: dict[str, Search] = {}
    for model in manifest.embedders:
        open_sets.update(model.open_set)
        galleries: dict[str, CategoryItems] = {}
        for category in model.categories:
            if gallery is None or category not in gallery.categories:
                continue
            path, space_id = gallery.path(category), model.space_id
            if declared := model.compatible_gallery(category, gallery.categories[category].space_id):
                space_id = declared.space_id
                open_sets[category] = declared.open_set
                compatible_categories.add(category)
            items = shrink_items_to_centroid(read_category(path, space_id, model.dim), model.gathering)
            indexes[category], galleries[category] = build_index(items), items
            rule = model.outline.get(category)
            # thresholds for an older space were fitted without silhouettes
            if category in compatible_categories or rule is None or not rule.counts:
                continue
            if by_item := read_silhouettes(path):
                silhouettes[category] = silhouettes_for(rule, by_item)
        if manifest.classifier is None and galleries:
            spaces[model.space_id] = build_space_index(galleries)
    generation = gallery.generation if gallery else "none"
    created_at = gallery.created_at if gallery else None
    compatible = frozenset(compatible_categories)
    return LoadedModels(
        manifest.bundle_id,
        generation,
        stages,
        indexes,
        open_sets,
        compatible,
        created_at,
        silhouettes,
        spaces=spaces,
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
        name, source, open_frame_source, latest_frames, on_state, policy, is_reachable=reachability_check(source)
    )


def open_outbox(config: DeviceConfig, counters: Counters) -> Outbox:
    """Open the outbox of a device: the queue of its events.

    Raises:
        OutboxError: its folder cannot be written, or another process holds it.
    """
    path, bounds = config.state_dir / "outbox.sqlite", config.outbox
    return Outbox(path, counters, max_bytes=bounds.max_bytes, max_age_s=bounds.max_age_s, age_clock=AgeClock())
