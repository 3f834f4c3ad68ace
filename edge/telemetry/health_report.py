"""The health report of a device, and the memory of its process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge.telemetry.timing import StageTimes

RuntimeState = Literal["starting", "running", "degraded", "stopping"]
GallerySpace = Literal["native", "compatible"]


@dataclass(frozen=True, slots=True)
class EngineState:
    """What runs one model of the bundle, and why."""

    engine: str  # as in engine.backend
    form: str  # of the model
    ms: float | None  # one picture or crop, as measured here when it was chosen; None: not measured
    since: str | None  # ISO 8601: when this engine and form were chosen on this machine; None: not chosen here
    reason: str
    status: str = "loaded"  # loaded, loading, failed or not_loaded
    memory_mib: float | None = None  # of the loaded engine, or as expected; models may share an engine
    idle_s: float | None = None  # since it ran last
    loads: int = 0
    evictions: int = 0
    error: str | None = None  # why the last load failed


@dataclass(frozen=True, slots=True)
class EngineTotals:
    """The memory of all engines of the bundle; an engine that several models share counts once."""

    loaded: int  # engines in memory
    engines: int  # of the bundle
    memory_mib: float  # of the loaded ones
    budget_mib: float | None  # engine.memory_mib; None: no limit


@dataclass(frozen=True, slots=True)
class ServedRelease:
    """The release of a repository that a bundle and gallery were pulled as."""

    line: str
    sequence: int
    gallery_sequence: int | None = None  # None: the repository counted none


@dataclass(frozen=True, slots=True)
class TaughtCounts:
    """The items taught on a device, as the models that serve have them."""

    items: int
    searched: int
    retired: int  # the gallery has them
    waiting: int  # not embedded by this bundle yet: a model could not be loaded
    unusable: int = 0  # their pictures cannot be read or embedded


@dataclass(frozen=True, slots=True)
class WaitingUnknowns:
    """The pictures of unknown objects that wait for the server."""

    files: int
    bytes: int
    problem: str | None = None  # why no picture can be kept; None: they can


@dataclass(frozen=True, slots=True)
class DeletionReceipt:
    """An urgent deletion that the update agent carried out on this device."""

    category: str
    sequence: int  # of the gallery log
    items: int  # that were erased


@dataclass(frozen=True, slots=True)
class AgentReport:
    """What the update agent of the device reports."""

    state: str
    reason: str | None = None  # why it is in that state, in words
    release: ServedRelease | None = None  # that it works on, or that it confirmed last
    written_at: float | None = None  # Unix seconds
    expires_at: float | None = None  # of the repository's metadata, in Unix seconds; afterwards nothing is installed
    warn_at: float | None = None  # half of the life of the metadata, in Unix seconds
    receipts: tuple[DeletionReceipt, ...] = ()  # the newest, the oldest first


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The state of one device at one time, as sent on its health topic."""

    site: str
    device: str
    boot_id: str
    at: float  # Unix seconds
    uptime_s: float
    state: RuntimeState
    cameras: Mapping[str, str]  # name -> CameraState
    counters: Mapping[str, int]
    stages: Mapping[str, StageTimes]
    outbox_events: int
    outbox_bytes: int
    mqtt_connected: bool
    mqtt_error: str | None = None  # the latest reason for having no connection; None while connected
    mqtt_problems: tuple[str, ...] = ()  # what the broker does not do for this device, and why
    outbox_error: str | None = None  # why events are not safe on disk, or which file was damaged
    set_aside: tuple[str, ...] = ()  # the latest events that the broker cannot take, by id
    resident_bytes: int | None = None
    temperatures_c: Mapping[str, float] = field(default_factory=dict)  # by sensor, where the kernel reports them
    throttling: bool | None = None  # slowed down to keep cool; None: not reported by the kernel
    versions: Mapping[str, str] = field(default_factory=dict)  # edge, bundle, gallery
    slot: str = ""  # that holds the bundle
    release: ServedRelease | None = None  # that serves; None: installed from folders
    trial: str | None = None  # that decides whether the bundle and gallery stay; None: they are confirmed
    taught: TaughtCounts | None = None  # items; None: no kiosk
    unknowns: WaitingUnknowns | None = None  # None: they are not sent
    update: AgentReport | None = None  # what the update agent reports; None: there is none
    gallery_space: GallerySpace = "native"  # compatible: part of the gallery is not yet embedded by this bundle
    categories_compatible: tuple[str, ...] = ()  # the categories of that part
    in_view: Mapping[str, int] = field(default_factory=dict)  # camera name -> objects in view
    evidence: Mapping[str, str] = field(default_factory=dict)  # camera name -> reason for its state
    clock_offsets_s: Mapping[str, float] = field(default_factory=dict)  # camera's clock minus the device's, where known
    clocks_off: tuple[str, ...] = ()  # cameras whose clock is too far off
    gallery_age_s: float | None = None  # since it was created; None: unknown
    gallery_drift: float | None = None  # of the confidence of answers since its activation, 0..1; None: too few objects
    gallery_stale: tuple[str, ...] = ()  # why it should be updated
    fallback: str | None = None  # why the active bundle and gallery do not serve; None: they do
    gpu_fallback: str | None = None  # why the CPU runs models that the GPU should; None: it does not
    engines_building: int = 0  # engines of the GPU that are not built yet
    engines_left_s: float | None = None  # until they are built, in seconds; None: not known
    damaged_files: tuple[str, ...] = ()  # of what serves, that serving does not read
    engines: Mapping[str, EngineState] = field(default_factory=dict)  # by model; at most 64 of them
    engine_totals: EngineTotals | None = None
    choosing_engines: bool = False  # every engine is being tried in the background
    safe_mode: bool = False  # started with the last good configuration, because the file was invalid
    config_error: str | None = None  # why the file is invalid
    config_overlay: str | None = None  # name and revision of the overlay that the configuration has; None: none
    overlay_error: str | None = None  # why the overlay is ignored


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> int | None:
    """Return the resident memory of this process; None where the system does not report it."""
    try:
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None
