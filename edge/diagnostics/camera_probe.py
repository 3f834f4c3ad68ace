"""What a camera really sends, and what it will cost here: opened for some seconds before it is deployed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from edge.capture.frame_source import CaptureOptions, EndOfStream, FrameSource, Picture
from edge.capture.open_source import Backend, open_source
from edge.capture.packets import PacketSource
from edge.config.camera_url import Source
from edge.errors import CaptureError
from edge.recognition.pipeline import Pipeline
from edge.types import Frame, Image

_KEPT = 20  # pictures that recognition is timed on
_PATIENCE_S = 10.0  # for the first picture
_POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Probe:
    """What was seen of one camera."""

    decode_path: str  # library, decoder, and why
    width: int
    height: int
    pictures: int
    rate_hz: (
        float | None
    )  # pictures over the time they took; None: too few, or a file, which comes as fast as it is read
    longest_gap_s: float  # between two pictures
    time_source: str
    clock_offset_s: float | None  # camera's clock minus ours, arrival included; None where it does not tell
    codec: str | None  # None where the video is not to be had undecoded
    group_of_pictures: float | None  # mean packets from one key frame to the next
    decode_ms: float  # of processor time per picture
    recognise_ms: float | None  # per picture

    @property
    def load_cores(self) -> float | None:
        """Processor cores this camera will keep busy; None where its rate is not known."""
        return None if self.rate_hz is None else self.rate_hz * (self.decode_ms + (self.recognise_ms or 0.0)) / 1e3


@dataclass(slots=True)
class _Seen:
    last: Picture
    arrivals_ns: list[int]
    kept: list[Image]
    processor_s: float = 0.0


def probe(
    source: Source,
    backend: Backend,
    options: CaptureOptions,
    seconds: float,
    recognise: Callable[[Sequence[Image]], float] | None = None,
) -> Probe:
    """Watch a camera: decoded as `edge run` would, then once more undecoded.

    Args:
        source: the camera.
        backend: as configured.
        options: as configured.
        seconds: to watch, each time.
        recognise: the milliseconds that recognising one of these pictures takes.

    Raises:
        CaptureError: it cannot be opened or gives no picture.
    """
    with closing(open_source(source, backend, options)) as door:
        seen = _watch(door, source, seconds)
        decode_path = door.decode_path
    codec, group = _undecoded(source, options, seconds)
    height, width = seen.last.image_rgb.shape[:2]
    at = seen.last.captured_at
    now = time.time() - (time.monotonic_ns() - seen.last.arrived_ns) / 1e9  # when that picture arrived
    return Probe(
        decode_path=decode_path,
        width=width,
        height=height,
        pictures=len(seen.arrivals_ns),
        rate_hz=None if source.recorded else rate_hz(seen.arrivals_ns),
        longest_gap_s=longest_gap_s(seen.arrivals_ns),
        time_source=seen.last.time_source,
        clock_offset_s=None if at is None else at - now,
        codec=codec,
        group_of_pictures=group,
        decode_ms=1e3 * seen.processor_s / len(seen.arrivals_ns),
        recognise_ms=recognise(seen.kept) if recognise else None,
    )


def _watch(door: FrameSource, source: Source, seconds: float) -> _Seen:
    first = _first(door, source)
    seen = _Seen(first, [first.arrived_ns], [first.image_rgb])
    begun_s = time.process_time()
    while (time.monotonic_ns() - first.arrived_ns) / 1e9 < seconds:
        try:
            picture = door.read(_POLL_S)
        except EndOfStream:
            break
        if picture is None:
            continue
        seen.last = picture
        seen.arrivals_ns.append(picture.arrived_ns)
        if len(seen.kept) < _KEPT:
            seen.kept.append(picture.image_rgb)
    seen.processor_s = time.process_time() - begun_s
    return seen


def _first(door: FrameSource, source: Source) -> Picture:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        try:
            picture = door.read(_POLL_S)
        except EndOfStream:
            break
        if picture is not None:
            return picture
    raise CaptureError(f"{source}: found no picture within {_PATIENCE_S:.0f} s, expected one")


def _undecoded(source: Source, options: CaptureOptions, seconds: float) -> tuple[str | None, float | None]:
    """Codec and mean group of pictures; None where the source does not send packets."""
    try:
        packets = PacketSource(source, options)
    except CaptureError:  # a camera that is no stream, or takes one connection only: the rest is told all the same
        return None, None
    with closing(packets):
        keys: list[bool] = []
        deadline_ns = time.monotonic_ns() + round(seconds * 1e9)
        for packet in packets.packets():
            keys.append(packet.key)
            if packet.arrived_ns >= deadline_ns:
                break
        return packets.codec, group_of_pictures(keys)


def recognition_ms(pipeline: Pipeline, camera: str, pictures: Sequence[Image]) -> float:
    """Milliseconds of processor time that recognising one of these pictures takes, on average."""
    begun_s = time.process_time()
    for i, picture in enumerate(pictures):
        pipeline.process(Frame(camera, i, picture, time.monotonic_ns(), time.time(), "arrival", None))
    return 1e3 * (time.process_time() - begun_s) / len(pictures)


def rate_hz(arrivals_ns: Sequence[int]) -> float | None:
    """Pictures per second as counted over the whole span; what a camera says of itself is often wrong."""
    span_ns = arrivals_ns[-1] - arrivals_ns[0] if arrivals_ns else 0
    return (len(arrivals_ns) - 1) * 1e9 / span_ns if span_ns else None


def longest_gap_s(arrivals_ns: Sequence[int]) -> float:
    """The longest wait between two pictures."""
    return max((after - before for before, after in pairwise(arrivals_ns)), default=0) / 1e9


def group_of_pictures(keys: Sequence[bool]) -> float | None:
    """Mean packets from one key frame to the next; None where fewer than two were seen."""
    at = [i for i, key in enumerate(keys) if key]
    return fmean(after - before for before, after in pairwise(at)) if len(at) > 1 else None


def describe(probe: Probe) -> list[str]:
    """Lines for people."""
    rate = "as fast as it is read" if probe.rate_hz is None else f"{probe.rate_hz:.1f} pictures/s"
    group = "not seen to end" if probe.group_of_pictures is None else f"{probe.group_of_pictures:.0f} pictures"
    clock = "" if probe.clock_offset_s is None else f", camera's clock {probe.clock_offset_s:+.3f} s from ours"
    lines = [
        f"{probe.width}x{probe.height}, {rate}, longest gap {1e3 * probe.longest_gap_s:.0f} ms",
        f"decoded by {probe.decode_path}",
        f"time of a picture: {probe.time_source}{clock}",
    ]
    if probe.codec is not None:
        lines.append(f"codec {probe.codec}, group of pictures {group}")
    recognise = "" if probe.recognise_ms is None else f", {probe.recognise_ms:.1f} ms recognition"
    load = "" if probe.load_cores is None else f": {probe.load_cores:.2f} cores of this machine"
    lines.append(f"each picture takes {probe.decode_ms:.1f} ms of processor time to decode{recognise}{load}")
    return lines
