"""Measure a device on a source: every stage, frame by frame; or several devices in turn.

Rules:
1. Frames come one after the other on one thread, and none is dropped. For their times see bench_frames.py.
2. A few frames are recognised before the measurement, by a pipeline of their own. Its first frame is reported apart. A
   recording then starts again, so that every frame of it is measured, and a camera goes on.
3. Devices to compare recognise the same block of frames one after the other, then the next block in another order.
   Ratios are those of single blocks, so a machine that becomes slower or faster meanwhile changes both sides.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import ValidationError

from edge.build import load_active_models, load_models
from edge.bundle.slots import read_active
from edge.config.schema import CameraConfig, DeviceConfig, EngineConfig
from edge.diagnostics.bench_compare import Compared, CompareReport, agree, count_pairs, ratios_of
from edge.diagnostics.bench_device import BenchDevice, FrameSample
from edge.diagnostics.bench_frames import BenchFrames, ReadFrame
from edge.diagnostics.bench_report import BenchReport, engine_names, report_of
from edge.errors import CaptureError, ConfigError, first_validation_error
from edge.imaging import image
from edge.recognition.loaded_models import LoadedModels

WARM_UP_FRAMES = 10
BLOCK_FRAMES = 15
LEAST_BLOCKS = 5
_BLOCK_BYTES = 128 << 20  # of decoded frames

Side = tuple[DeviceConfig, LoadedModels]  # a device to measure


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What to measure."""

    source: str | None = None  # a path or a source address; None: that of the camera
    camera: str | None = None  # of the configuration; None: one with the defaults
    framing: Literal["detect", "whole_frame"] | None = None  # None: as the camera says
    resize: tuple[int, int] | None = None  # width and height to scale the frames to
    frames: int = 0  # 0: all
    bundle: Path | None = None  # None: the active slot
    gallery: Path | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What is different on another device; None: nothing."""

    words: str  # as the user wrote it
    precision: str | None = None
    engine: str | None = None
    threads: str | None = None
    bundle: Path | None = None
    gallery: Path | None = None
    config: DeviceConfig | None = None  # its engine and recognition are used


def bench(config: DeviceConfig, request: BenchRequest) -> BenchReport:
    """Measure one device.

    Raises:
        FinesightError: the source, the bundle or the gallery is unusable.
    """
    camera = _camera(config, request)
    models = _load(config, request.bundle, request.gallery)
    with closing(_open_frames(camera, request)) as source, ExitStack() as stack:
        (warm_up,) = _warm_up(source, camera, [(config, models)])
        device = stack.enter_context(_device(config, camera, models))
        for (read,) in _blocks(source, request, 1):
            device.take(read)
        device.end()
        return report_of(source, device, warm_up, _cores())


def compare(config: DeviceConfig, request: BenchRequest, changes: Sequence[Change]) -> CompareReport:
    """Measure several devices in turn: one as configured, and one for each change.

    Raises:
        FinesightError: the source, a bundle or a gallery is unusable, the source is too short, or a change makes no
            difference.
    """
    camera = _camera(config, request)
    sides = [(config, _load(config, request.bundle, request.gallery))]
    sides += [_changed(sides[0], request, change) for change in changes]
    with closing(_open_frames(camera, request)) as source, ExitStack() as stack:
        warm_up = _warm_up(source, camera, sides)
        devices = [stack.enter_context(_device(one, camera, models)) for one, models in sides]
        pairs: list[Counter[tuple[int, int]]] = [Counter() for _ in changes]
        size = max(1, min(BLOCK_FRAMES, _BLOCK_BYTES // source.frame_bytes))
        ends = [0]
        for number, block in enumerate(_blocks(source, request, size)):
            turn = number % len(devices)
            boxes = {one: [one.take(read) for read in block] for one in (*devices[turn:], *devices[:turn])}
            for counted, other in zip(pairs, devices[1:], strict=True):
                count_pairs(counted, boxes[devices[0]], boxes[other])
            if len(block) == size:  # the last one may be shorter
                ends.append(ends[-1] + size)
        if len(ends) <= LEAST_BLOCKS:
            raise CaptureError(
                f"{source.name}: gives {len(devices[0].samples)} frames, and a comparison needs {LEAST_BLOCKS * size}; "
                "give a longer one, or let it start again: file://PATH?loop=1 with --frames"
            )
        for one in devices:
            one.end()
        reports = [report_of(source, one, warm, _cores()) for one, warm in zip(devices, warm_up, strict=True)]
    first, *others = devices
    compared = [
        Compared(change.words, report, ratios_of(first, one, ends), agree(first.events, one.events, counted))
        for change, report, one, counted in zip(changes, reports[1:], others, pairs, strict=True)
    ]
    return CompareReport(len(ends) - 1, size, reports[0], compared)


def _camera(config: DeviceConfig, request: BenchRequest) -> CameraConfig:
    """Return the camera to measure."""
    source = None if request.source is None else _address(request.source)
    changes = {key: value for key, value in (("source", source), ("framing", request.framing)) if value is not None}
    if request.camera is None:
        if source is None:
            raise ConfigError("nothing to measure; give --source, or --camera and a camera of the configuration")
        return CameraConfig.model_validate(changes)
    if request.camera not in config.cameras:
        raise ConfigError(f"--camera {request.camera}: the configuration has the cameras {', '.join(config.cameras)}")
    return config.cameras[request.camera].model_copy(update=changes)


def _address(source: str) -> str:
    """Return the address of a source; a path becomes that of a file or folder."""
    if "://" in source or source.startswith("gst:"):
        return source
    path = Path(source).resolve()
    return f"{'folder' if path.is_dir() else 'file'}://{quote(str(path))}"


def _open_frames(camera: CameraConfig, request: BenchRequest) -> BenchFrames:
    image.set_threads(1)  # as a running device does
    named = request.source is not None and request.source != camera.source  # a path, not an address
    source = BenchFrames(camera, request.resize, request.source if named else None)
    if source.is_endless and not request.frames:
        raise ConfigError(f"{source.name}: has no end; say how many frames to measure with --frames")
    return source


def _load(config: DeviceConfig, bundle: Path | None, gallery: Path | None) -> LoadedModels:
    if bundle is None and gallery is None:
        return load_active_models(config)
    return load_models(bundle, gallery, config.engine)


@contextmanager
def _device(config: DeviceConfig, camera: CameraConfig, models: LoadedModels) -> Iterator[BenchDevice]:
    with tempfile.TemporaryDirectory() as folder, BenchDevice(config, camera, models, Path(folder)) as device:
        yield device


def _warm_up(source: BenchFrames, camera: CameraConfig, sides: Sequence[Side]) -> list[list[FrameSample]]:
    """Recognise the first frames with pipelines of their own; return what each frame cost, by side.

    Raises:
        CaptureError: there is no frame.
    """
    reads = source.read(WARM_UP_FRAMES)
    if not reads:
        skipped = ", ".join(f"{count} {reason}" for reason, count in source.skipped.items())
        what = f"frame to recognise ({skipped})" if skipped else "frame"
        raise CaptureError(f"{source.name}: holds no {what}; give a video or a camera that sends one")
    warm_up = []
    for config, models in sides:
        with _device(config, camera, models) as device:
            for read in reads:
                device.take(read)
            warm_up.append(device.samples)
    source.rewind()
    return warm_up


def _blocks(source: BenchFrames, request: BenchRequest, size: int) -> Iterator[list[ReadFrame]]:
    """Yield the frames to measure in blocks of a size; the last one may be smaller."""
    left = request.frames or sys.maxsize
    while left and (block := source.read(min(size, left))):
        yield block
        left -= len(block)


def _changed(side: Side, request: BenchRequest, change: Change) -> Side:
    """Return a device with a change.

    Raises:
        ConfigError: the change is invalid, or makes no difference.
    """
    config = side[0]
    if change.config is not None:
        config = config.model_copy(update={"engine": change.config.engine, "recognition": change.config.recognition})
    named = {"precision": change.precision, "backend": change.engine, "threads": change.threads}
    wanted = config.engine.model_dump() | {key: value for key, value in named.items() if value is not None}
    try:
        config = config.model_copy(update={"engine": EngineConfig.model_validate(wanted)})
    except ValidationError as error:
        raise ConfigError(f"--compare {change.words}: engine.{first_validation_error(error)}") from error
    folders = _changed_folders(config, request, change)
    changed = (config, _load(config, *folders))
    if folders == (request.bundle, request.gallery) and _is_same(side, changed):
        engines = ", ".join(dict.fromkeys(engine_names(side[1].stages.engines).values()))
        raise ConfigError(f"--compare {change.words}: that is how the first device runs, too ({engines}); name another")
    return changed


def _changed_folders(config: DeviceConfig, request: BenchRequest, change: Change) -> tuple[Path | None, Path | None]:
    """Return the folders of bundle and gallery; what is not changed stays, also if it is the active one.

    Raises:
        BundleError: the active ones are needed, and none is activated.
    """
    bundle, gallery = change.bundle or request.bundle, change.gallery or request.gallery
    if (change.bundle, change.gallery) == (None, None) or (request.bundle, request.gallery) != (None, None):
        return bundle, gallery
    active, active_gallery = read_active(config.state_dir)
    return bundle or active.folder, gallery or active_gallery.folder


def _is_same(a: Side, b: Side) -> bool:
    """Return whether two devices run the same engines in the same way."""
    (config_a, models_a), (config_b, models_b) = a, b
    alike = {"backend": "auto", "precision": "shipped"}  # what they lead to is compared
    engines = [config.engine.model_copy(update=alike) for config in (config_a, config_b)]
    runs = [engine_names(models.stages.engines) for models in (models_a, models_b)]
    return engines[0] == engines[1] and runs[0] == runs[1] and config_a.recognition == config_b.recognition


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
