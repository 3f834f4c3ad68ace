"""Read sources with GStreamer: pull pictures from an appsink with a deadline and watch the bus for errors."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from edge.capture.frame_source import (
    BackendError,
    CaptureOptions,
    ConcealedPictures,
    EndOfStream,
    Picture,
    describe_scaling,
    shrunk,
)
from edge.capture.gstreamer_pipeline import (
    CONVERTERS,
    KNOWN_ELEMENTS,
    PACKED_FORMATS,
    describe_pipeline,
    hardware_present,
)
from edge.capture.packed_picture import aspect_of, image_of
from edge.capture.positions import SteadyPositions
from edge.capture.recording import OnPacket, Packet
from edge.config.camera_url import Source
from edge.errors import CaptureError
from edge.imaging.orientation import UPRIGHT, describe_turns, turn
from edge.process import bind_unwinder
from edge.types import Image
from edge.video_headers.mp4_orientation import read_mp4_orientation

bind_unwinder()
try:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstApp", "1.0")
    from gi.repository import GLib, Gst, GstApp
except (ImportError, ValueError) as missing:
    raise CaptureError(f"GStreamer: PyGObject with Gst and GstApp is not installed ({missing})") from missing

log = logging.getLogger(__name__)

_NTP_TO_UNIX_S = 2_208_988_800  # 1900 to 1970, RFC 5905
_PREFERRED_RANK = 512  # above GST_RANK_PRIMARY (256), so that decodebin prefers hardware
_SENDER_TIME = "add-reference-timestamp-meta"  # of rtspsrc, from GStreamer 1.22 on
# Of NVIDIA's decoder on Jetson: clocks up, and pictures out as they come in; both depend on the version of JetPack.
_LIVE_DECODER = {"enable-max-performance": True, "disable-dpb": True}
_ORIENTATIONS = {  # of EXIF, by GStreamer's tag
    "rotate-90": 6,
    "rotate-180": 3,
    "rotate-270": 8,
    "flip-rotate-0": 2,
    "flip-rotate-90": 7,
    "flip-rotate-180": 4,
    "flip-rotate-270": 5,
}


def elements_present() -> frozenset[str]:
    """Return which of the KNOWN_ELEMENTS the device has."""
    Gst.init(None)
    return frozenset(name for name in KNOWN_ELEMENTS if Gst.ElementFactory.find(name) is not None)


def raw_formats(element: str) -> frozenset[str]:
    """Return which of the PACKED_FORMATS an element can write to ordinary memory."""
    templates = Gst.ElementFactory.find(element).get_static_pad_templates()
    sources = [one.get_caps() for one in templates if one.direction == Gst.PadDirection.SRC]
    wanted = {name: Gst.Caps.from_string(f"video/x-raw,format={name}") for name in PACKED_FORMATS}
    return frozenset(name for name, caps in wanted.items() if any(one.can_intersect(caps) for one in sources))


def image_in(sample: Gst.Sample, max_px: int | None) -> Image:
    """Return the picture in a sample, as RGB with square pixels; it may be read-only.

    Args:
        sample: from an appsink.
        max_px: as in CaptureOptions; the pipeline has scaled it, unless it is one of your own or has no scaler.

    Raises:
        CaptureError: the picture is incomplete, or cannot be mapped into memory.
    """
    buffer = sample.get_buffer()
    # in one copy; `extract_dup` makes two: 9.8 ms for 1080p in place of 0.6
    mapped, content = buffer.map(Gst.MapFlags.READ)
    if not mapped:
        raise CaptureError("GStreamer cannot map a picture into memory; its decoder keeps it elsewhere")
    try:
        data = bytes(content.data)  # already bytes or, with gst-python, a view that ends with the mapping
    finally:
        buffer.unmap(content)
    return shrunk(image_of(sample, data), max_px)


def set_known(element: Gst.Element, properties: Mapping[str, object]) -> None:
    """Set those properties that this version of an element has."""
    for name, value in properties.items():
        if element.find_property(name) is not None:
            element.set_property(name, value)


class GStreamerSource:
    """One pipeline. Opening is asynchronous: `read` reports a refused connection."""

    def __init__(self, source: Source, options: CaptureOptions, on_packet: OnPacket | None = None) -> None:
        """Build and start the pipeline.

        Args:
            source: to read.
            options: how to open it.
            on_packet: called with every encoded picture before it is decoded, on GStreamer's thread.

        Raises:
            BackendError: GStreamer cannot build or start the pipeline.
            CaptureError: the source cannot be opened.
        """
        self._on_packet = on_packet
        self._source = source
        self._frames = 0
        self._concealed = ConcealedPictures(source)
        self._error: tuple[type[CaptureError], str] | None = None
        self._threads, self._max_px = options.decode_threads, options.max_px
        self._decoder = "no decoder"
        self._changes = ""  # made to the pictures
        self._orientation = UPRIGHT
        self._positions: SteadyPositions | None = None
        present = elements_present()
        self._hardware = hardware_present(present)
        for name in self._hardware:
            Gst.ElementFactory.find(name).set_rank(_PREFERRED_RANK)
        formats = {name: raw_formats(name) for name in CONVERTERS if name in present}
        self._pipeline = _launch(source, describe_pipeline(source, present, options, formats), options)
        self._sink: GstApp.AppSink = self._pipeline.get_by_name("sink")
        self._bus = self._pipeline.get_bus()
        self._handler: int | None = self._pipeline.connect("deep-element-added", self._on_element)
        for element in _all_elements(self._pipeline):
            self._on_element(None, None, element)
        if self._pipeline.set_state(Gst.State.PLAYING) == Gst.StateChangeReturn.FAILURE:
            kind, problem = self._bus_error() or (BackendError, f"{source}: the GStreamer pipeline does not start")
            self.close()
            raise kind(problem)

    @property
    def decode_path(self) -> str:
        """The decoder in use, and why. The decoder is known after the first picture."""
        why = f"hardware present: {', '.join(self._hardware)}" if self._hardware else "no hardware decoder present"
        return f"gstreamer {self._decoder}, {why}{self._changes}{describe_scaling(self._max_px)}"

    def read(self, timeout_s: float) -> Picture | None:
        """Return the next picture, or None when none came in time.

        Raises:
            EndOfStream: the source has ended.
            BadPictureError: nothing of this picture arrived.
            BackendError: GStreamer lacks what it needs to read the source.
            CaptureError: the pipeline reports another error.
        """
        sample = self._sink.try_pull_sample(int(timeout_s * Gst.SECOND))
        arrived_ns = time.monotonic_ns()
        self._error = self._error or self._bus_error()
        if sample is not None:
            if not self._frames:
                self._begin(sample)
            self._frames += 1
            return self._picture(sample, arrived_ns)
        if self._error is not None:
            # Kept as text: an exception refers to its stack frames, so to this object; that cycle keeps sockets open.
            kind, problem = self._error
            raise kind(problem)
        if self._sink.is_eos():
            if not self._frames:
                raise CaptureError(f"{self._source}: the stream ended without a picture")
            raise EndOfStream
        return None

    def close(self) -> None:
        """Stop and free the pipeline. The handler's reference cycle would leave sockets to the garbage collector."""
        if self._handler is not None:
            self._pipeline.disconnect(self._handler)
            self._handler = None
        self._pipeline.set_state(Gst.State.NULL)

    def _begin(self, sample: Gst.Sample) -> None:
        """Take what the stream says about its pictures."""
        shape, source = sample.get_caps().get_structure(0), self._source
        if source.recorded:
            known, rate, per = shape.get_fraction("framerate")
            self._positions = SteadyPositions(rate / per if known and per else None, str(source))
        said = read_mp4_orientation(Path(source.location)) if source.kind == "file" else None
        if source.kind != "gstreamer":  # a pipeline of your own turns its pictures itself
            self._orientation = said or _ORIENTATIONS.get(self._orientation_tag(), UPRIGHT)
        woven = shape.get_value("interlace-mode") not in {None, "progressive"}
        interlaced = ", interlaced" if woven else ""
        self._changes = describe_turns(self._orientation, aspect_of(sample)) + interlaced

    def _orientation_tag(self) -> str:
        pad, number = self._sink.get_static_pad("sink"), 0
        while (event := pad.get_sticky_event(Gst.EventType.TAG, number)) is not None:
            known, text = event.parse_tag().get_string(Gst.TAG_IMAGE_ORIENTATION)
            if known:
                return str(text)
            number += 1
        return ""

    def _picture(self, sample: Gst.Sample, arrived_ns: int) -> Picture:
        pixel_format = sample.get_caps().get_structure(0).get_value("format")
        if pixel_format not in PACKED_FORMATS:
            expected = ", ".join(PACKED_FORMATS)
            raise CaptureError(f"{self._source}: found {pixel_format} at the sink, expected one of {expected}")
        image_rgb, buffer = turn(image_in(sample, self._max_px), self._orientation), sample.get_buffer()
        self._concealed.reject(image_rgb)
        pts_s = None
        if buffer.pts != Gst.CLOCK_TIME_NONE:
            # Stream time: the buffer times of MP4 files start at the offset of their edit list.
            stream_time = sample.get_segment().to_stream_time(Gst.Format.TIME, buffer.pts)
            pts_s = None if stream_time == Gst.CLOCK_TIME_NONE else stream_time / Gst.SECOND
        if self._positions is not None:
            return Picture(image_rgb, arrived_ns, self._positions.next_s(pts_s), "file")
        meta = buffer.get_reference_timestamp_meta(Gst.Caps.from_string("timestamp/x-ntp"))
        if meta is None:
            return Picture(image_rgb, arrived_ns, pts_s, "arrival")
        return Picture(image_rgb, arrived_ns, pts_s, "rtcp", meta.timestamp / Gst.SECOND - _NTP_TO_UNIX_S)

    def _bus_error(self) -> tuple[type[CaptureError], str] | None:
        # Popping with a filter also discards messages that nobody reads (QoS, tags), which would otherwise pile up.
        message = self._bus.pop_filtered(Gst.MessageType.ERROR)
        if message is None:
            return None
        error, debug = message.parse_error()
        detail = (debug or "").rpartition("\n")[2].rpartition("): ")[2]
        text = error.message.rstrip(".") + (f" ({detail.rstrip('.')})" if detail else "")
        if not self._frames and "not-linked" in text:
            return CaptureError, f"{self._source}: it holds no video"
        kind = BackendError if not self._frames and _is_incapable(error, debug or "") else CaptureError
        return kind, f"{self._source}: {self._source.scrub(text)}"

    def _on_element(self, _pipeline: Gst.Bin | None, _bin: Gst.Bin | None, element: Gst.Element) -> None:
        factory = element.get_factory()
        klass = factory.get_metadata("klass") if factory is not None else ""
        if "Decoder" not in klass or "Bin" in klass or not ("Video" in klass or "Image" in klass):
            return
        self._decoder = factory.get_name()
        set_known(element, {"max-threads": self._threads})
        if not self._source.recorded:
            set_known(element, _LIVE_DECODER)
        sink_pad = element.get_static_pad("sink")
        if self._on_packet is not None and sink_pad is not None:
            sink_pad.add_probe(Gst.PadProbeType.BUFFER, _packet_probe(self._on_packet))


def _packet_probe(on_packet: OnPacket) -> Callable[[Gst.Pad, Gst.PadProbeInfo], Gst.PadProbeReturn]:
    def on_buffer(pad: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        buffer, caps = info.get_buffer(), pad.get_current_caps()
        segment = pad.get_sticky_event(Gst.EventType.SEGMENT, 0)
        if buffer.pts != Gst.CLOCK_TIME_NONE and caps is not None and segment is not None:
            pts_ns = segment.parse_segment().to_stream_time(Gst.Format.TIME, buffer.pts)  # as in `_picture`
            key = not buffer.has_flags(Gst.BufferFlags.DELTA_UNIT)
            data = buffer.extract_dup(0, buffer.get_size())
            on_packet(caps.to_string(), Packet(pts_ns, time.monotonic_ns(), key, data))
        return Gst.PadProbeReturn.OK

    return on_buffer


def _is_incapable(error: GLib.Error, debug: str) -> bool:
    """Return whether GStreamer lacks an element or the elements do not fit, so that trying again is no use."""
    no_codec = error.domain == "gst-stream-error-quark" and error.code == int(Gst.StreamError.CODEC_NOT_FOUND)
    return error.domain == "gst-core-error-quark" or no_codec or "not-negotiated" in debug


@cache
def _log_without_sender_time() -> None:
    version = Gst.version_string()
    log.info("%s: rtspsrc has no %s; RTSP pictures have the time of their arrival", version, _SENDER_TIME)


def _launch(source: Source, line: str, options: CaptureOptions) -> Gst.Pipeline:
    try:
        pipeline = Gst.parse_launch(line)
    except GLib.Error as error:
        raise BackendError(f"{source}: GStreamer rejects the pipeline: {source.scrub(error.message)}") from None
    if not isinstance(pipeline, Gst.Bin):
        raise CaptureError(f"{source}: this is a single element; give a pipeline")
    head = pipeline.get_by_name("source")
    if head is not None:
        _set_address(head, source, options)
    return pipeline


def _set_address(head: Gst.Element, source: Source, options: CaptureOptions) -> None:
    # Set as properties, not in the launch line, so that no error message can quote credentials.
    if source.kind in {"rtsp", "file"}:
        head.set_property("location", source.location)
    if source.kind == "rtsp":
        set_known(head, {"tcp-timeout": int(options.open_timeout_s * 1e6), _SENDER_TIME: True})
        if head.find_property(_SENDER_TIME) is None:
            _log_without_sender_time()
    if source.kind == "v4l2":
        head.set_property("device", source.location)
    if source.kind == "csi":
        if head.find_property("sensor-id") is not None:
            head.set_property("sensor-id", int(source.location))
        elif not source.location.isdecimal():
            head.set_property("camera-name", source.location)
    if source.user is not None:
        head.set_property("user-id", source.user)
        head.set_property("user-pw", source.password or "")


def _all_elements(pipeline: Gst.Bin) -> list[Gst.Element]:
    found: list[Gst.Element] = []
    pipeline.iterate_recurse().foreach(found.append)
    return found
