"""Builds the snapshots and the live view of a running device, as far as its configuration asks for them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol

from edge.config.schema import DeviceConfig
from edge.pictures.live_view import LiveView
from edge.pictures.routes import PictureRoutes
from edge.pictures.snapshots import Snapshots
from edge.recognition.pipeline import Result
from edge.telemetry.counters import Counters
from edge.types import Frame


class Device(Protocol):
    """The part of a running device that pictures use."""

    counters: Counters
    observers: list[Callable[[Frame, Result], None]]

    @property
    def config(self) -> DeviceConfig:
        """The configuration of the moment: a reload replaces it."""

    def publish_snapshot(self, camera: str, jpeg: bytes) -> None:
        """Publish a JPEG, retained; from any thread."""


def open_pictures(device: Device, stack: ExitStack) -> PictureRoutes:
    """Start what the configuration asks for; return the answers of the health server. The stack ends it."""
    config, counters = device.config, device.counters
    snapshots = live = None
    if config.snapshots is not None:
        snapshots = stack.enter_context(Snapshots(config.snapshots, device.publish_snapshot, counters))
        _observe(device, snapshots.observe, stack)
    if config.live is not None:
        live = stack.enter_context(LiveView(config.live, counters))
        _observe(device, live.observe, stack)
    token = config.health.token if config.health else None
    return PictureRoutes(lambda: device.config.cameras, snapshots, live, token, counters)


def _observe(device: Device, observe: Callable[[Frame, Result], None], stack: ExitStack) -> None:
    device.observers.append(observe)
    stack.callback(device.observers.remove, observe)
