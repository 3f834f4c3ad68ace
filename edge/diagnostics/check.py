"""Checks a configuration: loads everything it names, and opens the cameras only when asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial

from edge.build import load_active_models
from edge.capture.cameras import capture_options, check_recordable
from edge.config.camera_url import parse_source
from edge.config.schema import DeviceConfig
from edge.diagnostics.camera_probe import format_report, probe_camera, recognition_ms
from edge.errors import CaptureError, ConfigError
from edge.extras import require_extra
from edge.frame_loop import build_pipeline
from edge.http_server.access import verify_tls
from edge.messaging.connection import tls_context
from edge.messaging.settings import mqtt_settings
from edge.recognition.loaded_models import LoadedModels
from edge.telemetry.counters import Counters
from edge.telemetry.known_secrets import hide


def check_config(config: DeviceConfig) -> None:
    """Print what a configuration names, checked without opening it.

    Raises:
        FinesightError: something of it cannot be used on this machine.
    """
    for line in _describe_config(config):
        print(hide(line))


def check(config: DeviceConfig, probe_s: float | None) -> bool:
    """Load the bundle and gallery of a device, and print what they know.

    Args:
        config: of the device.
        probe_s: how long to watch each camera; None: open no camera.

    Returns:
        Whether every opened camera could be read.

    Raises:
        FinesightError: something is missing or unusable.
    """
    models = load_active_models(config)
    print(f"bundle {models.bundle_id}, gallery {models.gallery_id}: categories {', '.join(sorted(models.indexes))}")
    return probe_s is None or _probe(config, models, probe_s)


def _describe_config(config: DeviceConfig) -> Iterator[str]:
    """Return lines about cameras, broker and addresses, checked without opening them."""
    for name, camera in config.cameras.items():
        if camera.record_mib:
            check_recordable(name, camera)
        yield f"camera {name}: {parse_source(camera.source)} ({camera.framing})"
    if config.mqtt is not None:
        settings = mqtt_settings(config.mqtt, config.site, config.device)
        if settings.tls:
            tls_context(settings)
        yield f"broker {settings.address}: {'TLS' if settings.tls else 'no TLS'}"
    if config.health is not None:
        yield f"health http://{config.health.host}:{config.health.port}/healthz"
    yield from _describe_pictures(config)
    if (kiosk := config.kiosk) is not None:
        require_extra("kiosk")
        if kiosk.tls is not None:
            try:
                verify_tls(kiosk.tls)
            except ConfigError as error:
                raise ConfigError(f"kiosk.tls: {error}") from error
        address = f"{'https' if kiosk.tls else 'http'}://{kiosk.host}:{kiosk.port}/"
        yield f"kiosk {address} ({'token' if kiosk.token else 'no token'})"


def _describe_pictures(config: DeviceConfig) -> Iterator[str]:
    """Return lines about the pictures that leave the device."""
    if config.snapshots is not None:
        yield "snapshots: on; pictures of recognised objects go to the broker, and are kept there"
    if config.unknowns is not None:
        yield f"unknown objects: on; their pictures go to {config.unknowns.upload_url}"
    if config.live is not None and config.health is not None:
        health = config.health
        yield f"live view http://{health.host}:{health.port}/live ({'token' if health.token else 'no token'})"


def _probe(config: DeviceConfig, models: LoadedModels, seconds: float) -> bool:
    """Open each camera and print what it sends; return whether all could be read."""
    readable = True
    for name, camera in config.cameras.items():
        if not camera.enabled:
            continue
        pipeline = build_pipeline(models, config.recognition, {name: camera}, Counters())
        recognise = partial(recognition_ms, pipeline, name)
        try:
            report = probe_camera(
                parse_source(camera.source), camera.backend, capture_options(camera), seconds, recognise
            )
        except CaptureError as error:
            print(hide(f"camera {name}: {error}"), file=sys.stderr)
            readable = False
            continue
        for line in format_report(report):
            print(f"camera {name}: {line}")
    return readable
