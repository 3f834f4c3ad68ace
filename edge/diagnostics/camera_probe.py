"""Measures what a camera really sends, and the processor time it costs here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from edge.capture.frame_source import BadPictureError, CaptureOptions, EndOfStream, FrameSource, Picture
from edge.capture.open_source import Backend, open_source
from edge.capture.packets import PacketSource
from edge.config.camera_url import Source
from edge.errors import CaptureError
from edge.recognition.pipeline import Pipeline
from edge.types import Frame, Image

_MAX_IMAGES = 20  # frames on which recognition is timed
_FIRST_FRAME_TIMEOUT_S = 10.0  # for the first frame
_POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class CameraReport:
    """The measurements of one camera."""

    decode_path: str  # library and decoder, and why
    width: int
    height: int
    frames: int
    rate_hz: float | None  # mean frame rate; None: too few frames, or a file, which is read as fast as possible
    longest_gap_s: float  # between two frames
    time_source: str
    clock_offset_s: float | None  # camera's minus device's, with transmission; None: the camera sends no time
    codec: str | None  # None: the encoded video is not available
    group_of_pictures: float | None  # mean packets from one key frame to the next
    decode_ms: float  # processor time per frame
    recognise_ms: float | None  # processor time per frame; None: not measured

    @property
    def load_cores(self) -> float | None:
        """Processor cores that this camera will keep busy; None when its rate is unknown."""
        return None if self.rate_hz is None else self.rate_hz * (self.decode_ms + (self.recognise_ms or 0.0)) / 1e3


@dataclass(slots=True)
class _Sample:
    last: Picture
    arrivals_ns: list[int]
    images: list[Image]
    processor_s: float = 0.0


def probe_camera(
    source: Source,
    backend: Backend,
    options: CaptureOptions,
    seconds: float,
    recognise: Callable[[Sequence[Image]], float] | None = None,
) -> CameraReport:
    """Watch a camera twice: decoded as `edge run` does it, then as encoded packets.

    Args:
        source: the camera.
        backend: as configured.
        options: as configured.
        seconds: to watch, each time.
        recognise: measures the milliseconds of recognising one of these frames.

    Raises:
        CaptureError: the camera cannot be opened or sends no frame.
    """
    with closing(open_source(source, backend, options)) as frame_source:
        sample = _watch(frame_source, source, seconds)
        decode_path = frame_source.decode_path
    codec, group = _undecoded(source, options, seconds)
    height, width = sample.last.image_rgb.shape[:2]
    at = sample.last.captured_at
    now = time.time() - (time.monotonic_ns() - sample.last.arrived_ns) / 1e9  # when the last frame arrived
    return CameraReport(
        decode_path=decode_path,
        width=width,
        height=height,
        frames=len(sample.arrivals_ns),
        rate_hz=None if source.recorded else rate_hz(sample.arrivals_ns),
        longest_gap_s=longest_gap_s(sample.arrivals_ns),
        time_source=sample.last.time_source,
        clock_offset_s=None if at is None else at - now,
        codec=codec,
        group_of_pictures=group,
        decode_ms=1e3 * sample.processor_s / len(sample.arrivals_ns),
        recognise_ms=recognise(sample.images) if recognise else None,
    )


def _watch(frame_source: FrameSource, source: Source, seconds: float) -> _Sample:
    first = _first_frame(frame_source, source)
    sample = _Sample(first, [first.arrived_ns], [first.image_rgb])
    started_s = time.process_time()
    while (time.monotonic_ns() - first.arrived_ns) / 1e9 < seconds:
        try:
            frame = frame_source.read(_POLL_S)
        except EndOfStream:
            break
        except BadPictureError:
            continue
        if frame is None:
            continue
        sample.last = frame
        sample.arrivals_ns.append(frame.arrived_ns)
        if len(sample.images) < _MAX_IMAGES:
            sample.images.append(frame.image_rgb)
    sample.processor_s = time.process_time() - started_s
    return sample


def _first_frame(frame_source: FrameSource, source: Source) -> Picture:
    deadline = time.monotonic() + _FIRST_FRAME_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            frame = frame_source.read(_POLL_S)
        except EndOfStream:
            break
        except BadPictureError:
            continue
        if frame is not None:
            return frame
    raise CaptureError(f"{source}: no frame within {_FIRST_FRAME_TIMEOUT_S:.0f} s; check that the camera is streaming")


def _undecoded(source: Source, options: CaptureOptions, seconds: float) -> tuple[str | None, float | None]:
    """Return codec and mean group of pictures; None where the source sends no packets."""
    try:
        packets = PacketSource(source, options)
    except CaptureError:  # no stream, or a camera with a single connection: report the rest anyway
        return None, None
    with closing(packets):
        keys: list[bool] = []
        deadline_ns = time.monotonic_ns() + round(seconds * 1e9)
        for packet in packets.packets():
            keys.append(packet.key)
            if packet.arrived_ns >= deadline_ns:
                break
        return packets.codec, group_of_pictures(keys)


def recognition_ms(pipeline: Pipeline, camera: str, frames: Sequence[Image]) -> float:
    """Return the mean processor time of recognising one of these frames, in milliseconds."""
    started_s = time.process_time()
    for i, frame in enumerate(frames):
        pipeline.process(Frame(camera, i, frame, time.monotonic_ns(), time.time(), "arrival", None))
    return 1e3 * (time.process_time() - started_s) / len(frames)


def rate_hz(arrivals_ns: Sequence[int]) -> float | None:
    """Return frames per second over the whole span; the rate that a camera declares is often wrong."""
    span_ns = arrivals_ns[-1] - arrivals_ns[0] if arrivals_ns else 0
    return (len(arrivals_ns) - 1) * 1e9 / span_ns if span_ns else None


def longest_gap_s(arrivals_ns: Sequence[int]) -> float:
    """Return the longest gap between two frames."""
    return max((after - before for before, after in pairwise(arrivals_ns)), default=0) / 1e9


def group_of_pictures(keys: Sequence[bool]) -> float | None:
    """Return the mean packets from one key frame to the next; None with fewer than two key frames."""
    at = [i for i, key in enumerate(keys) if key]
    return fmean(after - before for before, after in pairwise(at)) if len(at) > 1 else None


def format_report(report: CameraReport) -> list[str]:
    """Return the lines that `edge check --probe` prints."""
    rate = "as fast as it is read" if report.rate_hz is None else f"{report.rate_hz:.1f} frames/s"
    group = "longer than the watch" if report.group_of_pictures is None else f"{report.group_of_pictures:.0f} frames"
    clock = "" if report.clock_offset_s is None else f", camera clock {report.clock_offset_s:+.3f} s from the device's"
    lines = [
        f"{report.width}x{report.height}, {rate}, longest gap {1e3 * report.longest_gap_s:.0f} ms",
        f"decoded by {report.decode_path}",
        f"time source: {report.time_source}{clock}",
    ]
    if report.codec is not None:
        lines.append(f"codec {report.codec}, group of pictures {group}")
    recognise = "" if report.recognise_ms is None else f", {report.recognise_ms:.1f} ms recognition"
    load = "" if report.load_cores is None else f": {report.load_cores:.2f} cores of this machine"
    lines.append(f"each frame takes {report.decode_ms:.1f} ms of processor time to decode{recognise}{load}")
    return lines
