"""The report of a measurement: from what each frame cost to percentiles, shares and rates.

The stages and `unaccounted` add up to `frame`. `engines` is what runs inside inference engines, `overhead` what is
neither that nor decoding, and `cpu` the processor time of all threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edge.diagnostics.bench_device import BenchDevice, FrameSample
from edge.diagnostics.bench_frames import BenchFrames
from edge.inference.engine_choice import Resolved
from edge.recognition.engine_states import engine_totals
from edge.telemetry.health_report import resident_bytes
from edge.telemetry.timing import ENGINE_STAGES, percentile

STAGE_ORDER = (
    *("decode", "view", "motion", "preprocess", "detect", "postprocess", "seek", "track", "schedule"),
    *("classify", "localise", "embed", "fuse", "search", "decide", "payload", "outbox", "telemetry"),
)
_READING = ("decode", "view")  # on the camera's own thread
_AFTER = ("payload", "outbox", "telemetry")  # after the decision
SUMS = ("unaccounted", "frame", "engines", "overhead", "cpu")  # rows that are no stages


@dataclass(frozen=True, slots=True)
class StageRow:
    """The times of one stage, or of several together."""

    stage: str
    frames: int  # in which it ran; the percentiles are those of these frames
    p50_ms: float
    p95_ms: float
    share: float  # of the time of all frames


@dataclass(frozen=True, slots=True)
class BenchReport:
    """The result of a run."""

    source: str
    clock: Literal["stream", "device"]  # that the look budget follows
    width: int
    height: int
    frames: int
    frames_skipped: dict[str, int]  # by reason
    stream_s: float  # that the frames cover
    stream_fps: float | None  # None: a single frame
    bundle: str
    gallery: str
    engines: dict[str, str]  # engine and form, by model
    threads: int  # inside one model
    first_frame_ms: float  # of the warm-up, which is in nothing else
    warm_up_frames: int
    rows: list[StageRow]  # the stages in their order, then SUMS
    cpu_ms: float  # processor time of a frame on average, all threads
    frames_per_s: float  # everything one after the other, decoding included
    decision_frames_per_s: float  # from motion or detector to decision
    real_time_factor: float | None  # seconds of the stream recognised in a second
    process_per_engines: float | None  # from motion or detector to decision, relative to engines alone
    overhead_share: float  # of frame time
    unaccounted_share: float  # of frame time
    waited_share: float  # of the time from detector to decision, in which the thread did not run
    looks: int  # tracks embedded
    looks_per_s: float | None  # of the stream
    looks_refused: dict[str, int]  # by reason
    events: dict[str, int]  # by type
    tracks: int  # with a new event
    cameras: float | None  # like this one that the device can carry
    cameras_limit: Literal["recognition thread", "cores"]
    cores: int
    engines_mib: float | None  # memory of the loaded models
    resident_mib: float | None  # of this process


def report_of(source: BenchFrames, device: BenchDevice, warm_up: Sequence[FrameSample], cores: int) -> BenchReport:
    """Return the report of a run.

    Args:
        source: that was read.
        device: that recognised at least one frame.
        warm_up: the frames before the run.
        cores: that the process may use.
    """
    samples, models = device.samples, device.models
    stream_s, fps = covered_s(samples)
    cpu_ms = _mean(one.cpu_ms for one in samples)
    whole_ms, process_ms = sum(one.frame_ms for one in samples), sum(one.process_ms for one in samples)
    series = series_of(samples)
    engines_ms, overhead_ms, unaccounted_ms = (sum(series[name]) for name in ("engines", "overhead", "unaccounted"))
    thread_ms = (whole_ms - sum(sum(series[stage]) for stage in _READING if stage in series)) / len(samples)
    cameras, limit = capacity(fps, thread_ms, cpu_ms, cores)
    totals, resident = engine_totals(models.stages), resident_bytes()
    looks = sum(one.looks for one in samples)
    events: dict[str, int] = {}
    for event in device.events:
        events[event.type] = events.get(event.type, 0) + 1
    height, width = device.size_px
    return BenchReport(
        source=source.name,
        clock=source.clock,
        width=width,
        height=height,
        frames=len(samples),
        frames_skipped=dict(source.skipped),
        stream_s=round(stream_s, 3),
        stream_fps=None if fps is None else round(fps, 3),
        bundle=models.bundle_id,
        gallery=models.gallery_id,
        engines=engine_names(models.stages.engines),
        threads=device.config.engine.threads,
        first_frame_ms=round(warm_up[0].frame_ms, 3) if warm_up else 0.0,
        warm_up_frames=len(warm_up),
        rows=[_row(name, values, whole_ms) for name, values in series.items()],
        cpu_ms=round(cpu_ms, 3),
        frames_per_s=round(1e3 * len(samples) / whole_ms, 1),
        decision_frames_per_s=round(1e3 * len(samples) / process_ms, 1),
        real_time_factor=round(1e3 * stream_s / whole_ms, 2) if fps else None,
        process_per_engines=round(process_ms / engines_ms, 3) if engines_ms else None,
        overhead_share=round(overhead_ms / whole_ms, 4),
        unaccounted_share=round(unaccounted_ms / whole_ms, 4),
        waited_share=round(sum(one.waited_ms for one in samples) / process_ms, 4),
        looks=looks,
        looks_per_s=round(looks / stream_s, 2) if fps else None,
        looks_refused={dict(labels)["reason"]: n for name, labels, n in device.counts.items() if name == "looks_shed"},
        events=events,
        tracks=events.get("new", 0),
        cameras=None if cameras is None else round(cameras, 1),
        cameras_limit=limit,
        cores=cores,
        engines_mib=None if totals is None else totals.memory_mib,
        resident_mib=None if resident is None else round(resident / 2**20, 1),
    )


def series_of(samples: Sequence[FrameSample]) -> dict[str, list[float]]:
    """Return the milliseconds of each frame: by stage, in their order, and of SUMS."""
    found = {stage for one in samples for stage in one.stages_ms}
    stages = sorted(found, key=lambda name: (STAGE_ORDER.index(name) if name in STAGE_ORDER else 99, name))
    series = {stage: [one.stages_ms.get(stage, 0.0) for one in samples] for stage in stages}
    engines = [sum(one.stages_ms.get(stage, 0.0) for stage in ENGINE_STAGES) for one in samples]
    overhead = [
        one.frame_ms - one.stages_ms.get("decode", 0.0) - in_engines
        for one, in_engines in zip(samples, engines, strict=True)
    ]
    return series | {
        "unaccounted": [one.frame_ms - sum(one.stages_ms.values()) for one in samples],
        "frame": [one.frame_ms for one in samples],
        "engines": engines,
        "overhead": overhead,
        "cpu": [one.cpu_ms for one in samples],
    }


def covered_s(samples: Sequence[FrameSample]) -> tuple[float, float | None]:
    """Return the seconds that frames cover, each as long as they are on average, and frames per second if known."""
    span_s = samples[-1].captured_s - samples[0].captured_s
    if len(samples) < 2 or span_s <= 0:
        return 0.0, None
    fps = (len(samples) - 1) / span_s
    return len(samples) / fps, fps


def capacity(
    fps: float | None, thread_ms: float, cpu_ms: float, cores: int
) -> tuple[float | None, Literal["recognition thread", "cores"]]:
    """Return how many cameras of a frame rate a device can carry, and what limits it.

    One thread recognises the frames of all cameras; reading them is spread over the other cores.

    Args:
        fps: of one camera; None: unknown.
        thread_ms: wall time of a frame on the recognition thread.
        cpu_ms: processor time of a frame, reading included.
        cores: of the device.
    """
    by_thread_ms, by_cores_ms = thread_ms, cpu_ms / cores
    limit: Literal["recognition thread", "cores"] = "cores" if by_cores_ms > by_thread_ms else "recognition thread"
    return None if fps is None else 1e3 / (fps * max(by_thread_ms, by_cores_ms)), limit


def engine_names(engines: Mapping[str, Resolved]) -> dict[str, str]:
    """Return the engine and form that run each model."""
    return {name: f"{one.backend} {one.form}" for name, one in engines.items()}


def _row(name: str, values: list[float], whole_ms: float) -> StageRow:
    ascending = sorted(ms for ms in values if ms > 0) or [0.0]
    p50_ms, p95_ms = (round(percentile(ascending, p), 3) for p in (50, 95))
    return StageRow(name, len(ascending), p50_ms, p95_ms, round(sum(values) / whole_ms, 4))


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)
