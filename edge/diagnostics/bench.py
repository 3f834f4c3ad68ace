"""Measures every stage of the runtime on a file, frame by frame, without dropping any."""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge.build import build_pipeline, load_active_models, load_models
from edge.capture.frame_source import BadPictureError, CaptureOptions, EndOfStream, FrameSource, Picture
from edge.capture.open_source import open_source
from edge.config.camera_url import parse_source
from edge.config.schema import CameraConfig, DeviceConfig
from edge.errors import CaptureError
from edge.imaging import image
from edge.messaging.outbox import Outbox
from edge.messaging.payload import event_payload, priority_of, topic_of
from edge.telemetry.counters import Counters
from edge.telemetry.health_report import resident_bytes
from edge.telemetry.timing import ENGINE_STAGES, Timings, percentile
from edge.types import Frame

_WARM_UP_FRAMES = 10
_STAGE_ORDER = (
    "decode",
    "preprocess",
    "detect",
    "postprocess",
    "track",
    "classify",
    "localise",
    "embed",
    "search",
    "decide",
    "publish",
)


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What to measure."""

    source: str  # a path or a source address
    framing: Literal["detect", "whole_frame"] = "detect"
    resize: tuple[int, int] | None = None  # width and height to scale the frames to
    frames: int = 0  # 0: all
    bundle: Path | None = None  # None: the active slot
    gallery: Path | None = None


@dataclass(frozen=True, slots=True)
class StageRow:
    """The times of one stage."""

    stage: str
    p50_ms: float
    p95_ms: float
    share: float  # of the time of all frames


@dataclass(frozen=True, slots=True)
class BenchReport:
    """The result of a run."""

    source: str
    width: int
    height: int
    frames: int
    rows: list[StageRow]  # stages, then overhead and frame
    frames_per_s: float  # everything, including decoding
    decision_frames_per_s: float  # from detector to decision, without decoding and publishing
    overhead_share: float  # share of frame time outside decoding and engines
    events: dict[str, int]  # by type
    tracks: int  # with a new event
    looks: int  # embeddings computed
    resident_mib: float
    bundle: str
    engine: str


def bench(config: DeviceConfig, request: BenchRequest) -> BenchReport:
    """Run a file through decode, pipeline and outbox on one thread.

    Raises:
        FinesightError: the source, the bundle or the gallery is unusable.
    """
    folders = (request.bundle, request.gallery)
    models = load_active_models(config) if folders == (None, None) else load_models(*folders, config.engine)
    address = request.source if ":" in request.source else f"file://{Path(request.source).resolve()}"
    camera = CameraConfig(source=address, framing=request.framing)
    counts = Counters()
    pipeline = build_pipeline(models, config.recognition, {"bench": camera}, counts)
    frames: list[dict[str, float]] = []
    events: dict[str, int] = {}
    size = (0, 0)
    looks = 0
    source = open_source(parse_source(address), "auto", CaptureOptions())
    with tempfile.TemporaryDirectory() as folder, Outbox(Path(folder) / "outbox.sqlite", counts) as outbox:
        while not request.frames or len(frames) < request.frames:
            timings = Timings()
            frame = _next_frame(source, request, len(frames), timings)
            if frame is None:
                break
            result = pipeline.process(frame)
            with timings.stage("publish"):
                for event in result.events:
                    payload = event_payload(event, config.site, config.device, "bench", len(frames))
                    topic = topic_of("finesight", config.site, config.device, frame.camera, "events")
                    outbox.put(topic, payload, priority_of(event.type), event.event_id)
            for event in result.events:
                events[event.type] = events.get(event.type, 0) + 1
            looks += result.embedded
            size = (frame.image_rgb.shape[1], frame.image_rgb.shape[0])
            frames.append(timings.stages_ms | result.timings.stages_ms)
    source.close()
    if not frames:
        raise CaptureError(f"{request.source}: holds no frame; give a video or a camera that sends one")
    measured = frames[_WARM_UP_FRAMES:] or frames
    return _report(request.source, size, measured, len(frames), events, looks, models.bundle_id, config.engine.backend)


def _next_frame(source: FrameSource, request: BenchRequest, index: int, timings: Timings) -> Frame | None:
    """Decode the next frame; return None at the end."""
    with timings.stage("decode"):
        try:
            picture = _next_picture(source)
        except EndOfStream:
            return None
        if picture is None:
            raise CaptureError(f"{request.source}: no frame within 5 s; check the source")
        image_rgb = picture.image_rgb
        if request.resize is not None:
            image_rgb = image.resize(image_rgb, *request.resize)
    return Frame("bench", index, image_rgb, picture.arrived_ns, time.time(), picture.time_source, picture.pts_s)


def _next_picture(source: FrameSource) -> Picture | None:
    """Return the next picture that can be decoded; None when none came in time."""
    while True:
        with contextlib.suppress(BadPictureError):
            return source.read(5.0)


def _report(
    source: str,
    size: tuple[int, int],
    frames: list[dict[str, float]],
    count: int,
    events: dict[str, int],
    looks: int,
    bundle: str,
    engine: str,
) -> BenchReport:
    totals = [sum(frame.values()) for frame in frames]
    excluded = {"decode", *ENGINE_STAGES}
    overhead = [sum(ms for stage, ms in frame.items() if stage not in excluded) for frame in frames]
    decision = sum(ms for frame in frames for stage, ms in frame.items() if stage not in ("decode", "publish"))
    stages = sorted(
        {stage for frame in frames for stage in frame}, key=lambda s: _STAGE_ORDER.index(s) if s in _STAGE_ORDER else 99
    )
    series = {stage: [frame.get(stage, 0.0) for frame in frames] for stage in stages}
    series |= {"overhead": overhead, "frame": totals}
    whole = sum(totals)
    rows = [
        StageRow(
            stage, round(percentile(sorted(v), 50), 3), round(percentile(sorted(v), 95), 3), round(sum(v) / whole, 4)
        )
        for stage, v in series.items()
    ]
    return BenchReport(
        source=source,
        width=size[0],
        height=size[1],
        frames=count,
        rows=rows,
        frames_per_s=round(1e3 * len(frames) / whole, 1),
        decision_frames_per_s=round(1e3 * len(frames) / decision, 1),
        overhead_share=round(sum(overhead) / whole, 4),
        events=events,
        tracks=events.get("new", 0),
        looks=looks,
        resident_mib=round((resident_bytes() or 0) / 2**20, 1),
        bundle=bundle,
        engine=engine,
    )


def format_table(report: BenchReport) -> str:
    """Return the text that `edge bench` prints."""
    lines = [
        f"{report.source}: {report.frames} frames of {report.width}x{report.height}",
        f"bundle {report.bundle}, engine {report.engine}",
        f"{'stage':12} {'p50 ms':>9} {'p95 ms':>9} {'share':>7}",
    ]
    lines += [f"{r.stage:12} {r.p50_ms:9.3f} {r.p95_ms:9.3f} {r.share:7.1%}" for r in report.rows]
    lines += [
        f"{report.frames_per_s} frames/s in total, {report.decision_frames_per_s} frames/s detector to decision",
        f"overhead outside decoding and engines: {report.overhead_share:.1%} of frame time",
        f"{report.tracks} tracks, {report.looks} looks, events {report.events}, resident {report.resident_mib} MiB",
    ]
    return "\n".join(lines)
