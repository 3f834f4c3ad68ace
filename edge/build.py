"""The parts of a device, made from its configuration."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

from edge.bundle.bundle import Bundle, read_bundle
from edge.bundle.slots import read_serving
from edge.capture.camera import Camera, OnState
from edge.capture.latest_frames import Mailbox
from edge.capture.open_source import FrameSource, open_source
from edge.capture.policy import policy_for
from edge.capture.reconnect import knock_for
from edge.capture.recorder import Recorders
from edge.config.camera_url import CaptureOptions, parse_source
from edge.config.schema import CameraConfig, DeviceConfig, EngineConfig, RecognitionConfig
from edge.errors import FinesightError
from edge.finder.finder import open_finder
from edge.gallery.generation import Gallery, read_gallery
from edge.gallery.item_vectors import gathered_items
from edge.gallery.rerank import Outlines, outlines_for
from edge.gallery.search import build_index
from edge.gallery.store import read_category, read_outlines
from edge.inference.stages import load_stages
from edge.manifest import OpenSet
from edge.messaging.age_clock import AgeClock
from edge.messaging.outbox import Outbox
from edge.recognition.loaded_models import Search, Serving
from edge.recognition.pipeline import Pipeline
from edge.telemetry.metrics import Counters

log = logging.getLogger(__name__)


def open_serving(config: DeviceConfig) -> Serving:
    """Load the pair of bundle and gallery that a device's pointer names.

    Raises:
        BundleError: nothing was activated, or the pair is damaged.
        EngineError: a model cannot be run here.
    """
    bundle, gallery = read_serving(config.state_dir)
    cache = config.state_dir / "cache"
    serving = _load(bundle, gallery, config.engine, cache)
    if config.recognition.seek is None:
        return serving
    model = bundle.manifest.finder
    if model is None or model.map_threshold is not None:
        why = "no finder" if model is None else "a finder of before the second look (ADR 0010)"
        log.warning("bundle %s has %s: what the detector misses is not looked for", serving.bundle_id, why)
        return serving
    finder = open_finder(bundle.folder, model, config.engine.backend, config.engine.threads, cache)
    return replace(serving, finder=finder)


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
    older: set[str] = set()
    outlines: dict[str, Outlines] = {}
    for model in manifest.embedders:
        open_sets.update(model.open_set)
        for category in model.categories:
            if gallery is None or category not in gallery.categories:
                continue
            path, space_id = gallery.path(category), model.space_id
            if declared := model.searches(category, gallery.categories[category].space_id):
                space_id = declared.space_id
                open_sets[category] = declared.open_set
                older.add(category)
            items = read_category(path, space_id, model.dim)
            indexes[category] = build_index(gathered_items(items, model.gathering))
            rule = model.outline.get(category)
            # the rules of an older space were fitted on its vectors alone
            if category not in older and rule is not None and rule.counts and (by_item := read_outlines(path)):
                outlines[category] = outlines_for(rule, by_item)
    generation = gallery.generation if gallery else "none"
    created_at = gallery.created_at if gallery else None
    return Serving(manifest.bundle_id, generation, stages, indexes, open_sets, frozenset(older), created_at, outlines)


def build_pipeline(
    serving: Serving, recognition: RecognitionConfig, cameras: dict[str, CameraConfig], counts: Counters
) -> Pipeline:
    """A pipeline for these cameras."""
    return Pipeline(serving, cameras, recognition, counts, time.monotonic_ns)


def capture_options(camera: CameraConfig) -> CaptureOptions:
    """How a configured camera's source is opened."""
    return CaptureOptions(
        transport=camera.rtsp_transport,
        latency_ms=camera.latency_ms,
        open_timeout_s=camera.open_timeout_s,
        read_timeout_s=camera.stall_timeout_s,
    )


def build_camera(mailbox: Mailbox, recorders: Recorders, name: str, config: CameraConfig, on_state: OnState) -> Camera:
    """A camera that leaves its frames in a mailbox and, where that is asked for, its video on the disk."""
    source, options = parse_source(config.source), capture_options(config)
    recorder = recorders.of(name, config.record_mib * 2**20) if config.record_mib else None

    def open_door() -> FrameSource:
        if recorder is None:
            return open_source(source, config.backend, options)
        recorder.connected()
        return open_source(source, config.backend, options, recorder.put)

    policy = policy_for(source, config.pacing, config.stall_timeout_s, config.view)
    return Camera(name, source, open_door, mailbox, on_state, policy, is_there=knock_for(source))


def open_outbox(config: DeviceConfig, counters: Counters) -> Outbox:
    """The queue of a device's events.

    Raises:
        OutboxError: its folder cannot be written, or another process holds it.
    """
    path, bounds = config.state_dir / "outbox.sqlite", config.outbox
    return Outbox(path, counters, max_bytes=bounds.max_bytes, max_age_s=bounds.max_age_s, age_clock=AgeClock())
