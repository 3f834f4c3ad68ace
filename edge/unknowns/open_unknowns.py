"""Starts the collection and the upload of unknown objects of a running device."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol

from edge.config.schema import DeviceConfig, UnknownsConfig
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.pipeline import Result
from edge.telemetry.counters import Counters
from edge.telemetry.health_report import WaitingUnknowns
from edge.types import Event, Frame
from edge.unknowns.collector import UnknownObjects
from edge.unknowns.record import Origin
from edge.unknowns.spool import Spool
from edge.uploads.upload import Uploader, http_put


class Device(Protocol):
    """The part of a running device that this room uses."""

    counters: Counters
    observers: list[Callable[[Frame, Result], None]]
    event_observers: list[Callable[[Event], None]]
    waiting_unknowns: Callable[[], WaitingUnknowns | None]

    @property
    def config(self) -> DeviceConfig:
        """The configuration of the moment: a reload replaces it."""

    @property
    def models(self) -> LoadedModels:
        """The active bundle and gallery."""


def open_unknowns(device: Device, config: UnknownsConfig, stack: ExitStack) -> None:
    """Start to collect and to upload; the stack ends it."""
    whole, counters = device.config, device.counters
    spool = Spool(whole.state_dir / "unknowns", config.max_mib << 20, counters)
    uploader = stack.enter_context(
        Uploader(
            "unknown-upload",
            spool.pending,
            http_put(config.upload_url, config.upload_token),
            lambda result: counters.add("unknown_uploads", result=result),
            counters,
        )
    )
    kiosk_camera = whole.kiosk.camera if whole.kiosk else None
    collector = stack.enter_context(
        UnknownObjects(
            config,
            Origin(whole.site, whole.device),
            spool,
            counters,
            is_wanted=lambda camera: camera in config.cameras if config.cameras else camera != kiosk_camera,
            margin=lambda: margin_of(device.models),
            on_kept=uploader.wake,
            now=time.time,
        )
    )
    device.waiting_unknowns = spool.waiting
    device.observers.append(collector.observe)
    stack.callback(device.observers.remove, collector.observe)
    device.event_observers.append(collector.observe_event)
    stack.callback(device.event_observers.remove, collector.observe_event)


def margin_of(models: LoadedModels) -> float:
    """Return what the embedders see around a box, as a share of its size: the picture shows as much."""
    return max((one.model.preprocess.crop_margin for one in models.stages.embedders.values()), default=0.0)
