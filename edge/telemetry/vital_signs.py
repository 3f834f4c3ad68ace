"""The vital signs of a running device, which its update agent reads: what it really serves, and how well.

Rules this module keeps:
1. The file is replaced as a whole, so a reader sees one state or the next. It is not flushed to the disk: after a power
   cut it may be missing or empty, and says nothing about the next run anyway.
2. A thread of its own writes it. A disk that is slow or full delays or loses vital signs, counted, and no frame.
3. A reader compares `written_monotonic_s`, not the wall clock, and only within one boot of the machine.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.errors import SyncError, first_validation_error
from edge.telemetry.counters import Counters
from edge.telemetry.health_report import HealthReport, RuntimeState

log = logging.getLogger(__name__)

NAME = "vital_signs.json"
INTERVAL_S = 2.0
STALE_S = 15.0  # without new vital signs a device is not known to run
_MAX_BYTES = 1 << 18
_FPS_OVER_S = 20.0
_MOST_ENGINES, _ENGINE_LENGTH = 4, 300
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_Count = Annotated[int, Field(ge=0)]
_LONGEST_TEXT = 4000
_Text = Annotated[str, Field(max_length=_LONGEST_TEXT)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class VitalRelease(_Frozen):
    """The release that serves."""

    line: _Text
    sequence: _Count
    gallery_sequence: _Count | None = None


class VitalPair(_Frozen):
    """The bundle and gallery that serve."""

    slot: _Text
    bundle_id: _Text
    gallery: _Text  # generation


class VitalCamera(_Frozen):
    """One camera since the process started."""

    state: _Text
    frames: _Count  # that were recognised
    errors: _Count  # frames whose recognition raised an error
    fps: Annotated[float, Field(ge=0.0)]  # recognised frames per second, over the last 20 s


class VitalTaught(_Frozen):
    """The items taught on this device, as the models that serve have them."""

    items: _Count
    searched: _Count
    retired: _Count  # the gallery has them
    waiting: _Count  # not embedded by this bundle yet
    unusable: _Count = 0  # their pictures cannot be read or embedded


class VitalConfig(_Frozen):
    """The configuration that a device runs with."""

    overlay: _Text | None = None  # name and revision of the overlay in use; None: only the device's own file
    refused: _Text | None = None  # why the overlay is ignored
    error: _Text | None = None  # why the device's own file is invalid


class VitalSigns(_Frozen):
    """What one process of a device serves, and how well, at one time. Counts are since it started."""

    schema_name: Literal["finesight.vital_signs/1"] = Field(alias="schema")
    boot_id: _Text  # names this run of the process
    machine_boot_id: _Text | None = None  # names this boot of the machine; None: the kernel does not say
    pid: Annotated[int, Field(gt=0)]
    started_at: float  # Unix seconds
    written_at: float  # Unix seconds
    started_monotonic_s: float  # of the machine's monotonic clock
    written_monotonic_s: float
    state: RuntimeState
    pair: VitalPair
    release: VitalRelease | None = None  # None: installed from folders
    trial: _Text | None = None  # that decides whether the pair stays
    fallback: _Text | None = None  # why the active pair does not serve
    cameras: dict[str, VitalCamera] = Field(default_factory=dict)
    frames: _Count = 0
    frame_errors: _Count = 0
    known: _Count = 0  # objects that ended with an answer
    unknown: _Count = 0  # objects that ended without one
    activations: dict[str, _Count] = Field(default_factory=dict)  # by result: serving, refused
    resident_bytes: _Count | None = None
    temperatures_c: dict[str, float] = Field(default_factory=dict)
    throttling: bool | None = None
    taught: VitalTaught | None = None  # None: no kiosk
    config: VitalConfig | None = None  # None: an earlier version, which has no overlays
    site: _Text | None = None  # of the configuration
    engine: _Text | None = None  # what runs the models that serve, such as "onnxruntime int8"
    version: _Text | None = None  # of finesight

    @property
    def fps(self) -> float:
        """Recognised frames per second of all cameras, over the last 20 s."""
        return sum(camera.fps for camera in self.cameras.values())

    def age_s(self, now_monotonic_s: float, machine_boot_id: str | None) -> float | None:
        """Return how old the vital signs are, in seconds; None if they are of an earlier boot of the machine."""
        if self.machine_boot_id != machine_boot_id or now_monotonic_s < self.written_monotonic_s:
            return None
        return now_monotonic_s - self.written_monotonic_s


def read_vital_signs(state_dir: Path) -> VitalSigns | None:
    """Read the newest vital signs of a device; None if none were written.

    Raises:
        SyncError: the file is damaged, or too large.
    """
    path = state_dir / NAME
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise SyncError(f"{path}: found more than {_MAX_BYTES} bytes; restart the device, which writes it again")
        return VitalSigns.model_validate_json(data)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SyncError(f"{path}: cannot read: {error.strerror or error}") from error
    except ValidationError as error:
        raise SyncError(f"{path}: {first_validation_error(error)}; a running device writes it again") from error


def fresh_vital_signs(state_dir: Path, now_monotonic_s: float) -> VitalSigns | None:
    """Return the vital signs of a device that runs; None: it does not, is stopping, or nothing can be read of it."""
    try:
        signs = read_vital_signs(state_dir)
    except SyncError as error:
        log.debug("%s", error)
        return None
    age_s = None if signs is None else signs.age_s(now_monotonic_s, machine_boot_id())
    return signs if age_s is not None and age_s <= STALE_S else None


def machine_boot_id(path: Path = _BOOT_ID) -> str | None:
    """Return the kernel's name of this boot of the machine; None where it has none."""
    try:
        return path.read_text(encoding="ascii").strip()[:80] or None
    except (OSError, ValueError):
        return None


class FrameRates:
    """Frames per second of each camera, from counts that only grow."""

    def __init__(self, over_s: float = _FPS_OVER_S) -> None:
        self._over_s = over_s
        self._samples: deque[tuple[float, Mapping[str, int]]] = deque()

    def add(self, now_s: float, frames: Mapping[str, int]) -> dict[str, float]:
        """Return the rates since the oldest sample that is not too old; 0 with the first one.

        Args:
            now_s: monotonic.
            frames: by camera, since the start.
        """
        self._samples.append((now_s, dict(frames)))
        while len(self._samples) > 2 and now_s - self._samples[1][0] >= self._over_s:
            self._samples.popleft()
        since_s, before = self._samples[0]
        elapsed_s = now_s - since_s
        if elapsed_s <= 0:
            return dict.fromkeys(frames, 0.0)
        return {camera: round(max(0, n - before.get(camera, 0)) / elapsed_s, 3) for camera, n in frames.items()}


def engine_text(report: HealthReport) -> str | None:
    """Return what runs the models that serve, as short text; None if it is not known."""
    found = sorted({f"{one.engine} {one.form}" for one in report.engines.values()})
    text = ", ".join(found[:_MOST_ENGINES]) + (" and others" if len(found) > _MOST_ENGINES else "")
    if report.gpu_fallback:
        text += f" in place of the GPU: {report.gpu_fallback}"
    return text[:_ENGINE_LENGTH] or None


class VitalSignsTaker:
    """Takes the vital signs of one run of the process."""

    def __init__(self, started_at: float, started_monotonic_s: float) -> None:
        """Note when the process started.

        Args:
            started_at: Unix seconds.
            started_monotonic_s: of the machine's monotonic clock.
        """
        self._started_at, self._started_monotonic_s = started_at, started_monotonic_s
        self._machine_boot_id = machine_boot_id()
        self._rates = FrameRates()

    def take(self, report: HealthReport, counters: Counters, now_monotonic_s: float) -> VitalSigns:
        """Return the vital signs of a device.

        Args:
            report: its state now.
            counters: of the device.
            now_monotonic_s: of the machine's monotonic clock.
        """
        frames = {camera: counters.total("frames_recognised", camera=camera) for camera in report.cameras}
        errors = {camera: counters.total("frames_failed", camera=camera) for camera in report.cameras}
        fps = self._rates.add(now_monotonic_s, frames)
        cameras = {
            camera: VitalCamera(state=state, frames=frames[camera], errors=errors[camera], fps=fps[camera])
            for camera, state in report.cameras.items()
        }
        taught, release = report.taught, report.release
        return VitalSigns(
            schema="finesight.vital_signs/1",
            boot_id=report.boot_id,
            machine_boot_id=self._machine_boot_id,
            pid=os.getpid(),
            started_at=self._started_at,
            written_at=report.at,
            started_monotonic_s=self._started_monotonic_s,
            written_monotonic_s=now_monotonic_s,
            state=report.state,
            pair=VitalPair(slot=report.slot, bundle_id=report.versions["bundle"], gallery=report.versions["gallery"]),
            release=None if release is None else VitalRelease.model_validate(release, from_attributes=True),
            trial=report.trial,
            fallback=_cut(report.fallback),
            cameras=cameras,
            frames=counters.total("frames_recognised"),
            frame_errors=counters.total("frames_failed"),
            known=counters.total("answers", result="known"),
            unknown=counters.total("answers", result="unknown"),
            activations={result: counters.total("activations", result=result) for result in ("serving", "refused")},
            resident_bytes=report.resident_bytes,
            temperatures_c=dict(report.temperatures_c),
            throttling=report.throttling,
            taught=None if taught is None else VitalTaught.model_validate(taught, from_attributes=True),
            config=VitalConfig(
                overlay=report.config_overlay, refused=_cut(report.overlay_error), error=_cut(report.config_error)
            ),
            site=_cut(report.site),
            engine=engine_text(report),
            version=report.versions.get("edge"),
        )


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:_LONGEST_TEXT]


class VitalSignsWriter:
    """Writes vital signs every two seconds, in a thread of its own."""

    def __init__(
        self, state_dir: Path, take: Callable[[], VitalSigns], counters: Counters, interval_s: float = INTERVAL_S
    ) -> None:
        """Write nothing yet.

        Args:
            state_dir: of the device.
            take: returns the vital signs; from any thread.
            counters: `vital_signs_failed`.
            interval_s: between two writes, in seconds.
        """
        self._path, self._take, self._counters, self._interval_s = state_dir / NAME, take, counters, interval_s
        self._stop, self._now = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="vital-signs", daemon=True)

    def start(self) -> None:
        """Start the thread, which writes at once."""
        self._thread.start()

    def hurry(self) -> None:
        """Have the thread write now, because what serves has changed; return at once."""
        self._now.set()

    def close(self, wait_s: float = 1.0) -> None:
        """Have the thread write once more and end; do not wait longer than this for a disk that hangs."""
        self._stop.set()
        self._now.set()
        if self._thread.ident is not None:
            self._thread.join(wait_s)

    def write(self) -> None:
        """Write the vital signs now. What fails is counted, and logged once in a row."""
        partial = self._path.with_name(f"{NAME}.partial")
        try:
            data = self._take().model_dump_json(by_alias=True).encode("utf-8", "replace") + b"\n"
            partial.write_bytes(data)
            partial.replace(self._path)
        except Exception as error:  # noqa: BLE001  vital signs must not end the thread that writes the next ones
            self._counters.add("vital_signs_failed")
            is_first, self._failed = not self._failed, True
            log.log(logging.WARNING if is_first else logging.DEBUG, "%s: cannot write: %s", self._path, error)
        else:
            self._failed = False

    _failed = False

    def _run(self) -> None:
        while not self._stop.is_set():
            self._now.clear()
            self.write()
            self._now.wait(self._interval_s)
        self.write()


def monotonic_s() -> float:
    """Return the machine's monotonic clock, in seconds; it is the same in every process."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)
