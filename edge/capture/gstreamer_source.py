"""Read sources by GStreamer: a launch line that ends in an appsink, pulled with deadlines, its bus always watched."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from edge.capture.gstreamer_pipeline import KNOWN_ELEMENTS, describe_pipeline, hardware_present
from edge.capture.recording import Packet, Stream, Tap
from edge.config.camera_url import CaptureOptions, EndOfStream, Picture, Source
from edge.errors import CaptureError
from edge.process import bind_unwinder
from edge.types import Image

bind_unwinder()
try:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstApp", "1.0")
    from gi.repository import GLib, Gst, GstApp
except (ImportError, ValueError) as missing:
    raise CaptureError(f"GStreamer: found no PyGObject with Gst and GstApp ({missing}), expected both") from missing

_NTP_TO_UNIX_S = 2_208_988_800  # 1900 to 1970, RFC 5905
_PREFERRED_RANK = 512  # above GST_RANK_PRIMARY (256), so that decodebin takes hardware first


def elements_present() -> frozenset[str]:
    """Which of the elements we know of this device has."""
    Gst.init(None)
    return frozenset(name for name in KNOWN_ELEMENTS if Gst.ElementFactory.find(name) is not None)


class GStreamerSource:
    """One pipeline. Opening is asynchronous: a refused connection is told by the first `read`."""

    def __init__(self, source: Source, options: CaptureOptions, tap: Tap | None = None) -> None:
        """Build and start the pipeline.

        Args:
            source: what is read.
            options: how.
            tap: given every encoded picture on its way into the decoder, on GStreamer's thread.

        Raises:
            CaptureError: an element is missing, or the pipeline does not start.
        """
        self._tap = tap
        self._source = source
        self._frames = 0
        self._error: str | None = None
        self._threads = options.decode_threads
        self._decoder = "no decoder"
        present = elements_present()
        self._hardware = hardware_present(present)
        for name in self._hardware:
            Gst.ElementFactory.find(name).set_rank(_PREFERRED_RANK)
        self._pipeline = _launch(source, describe_pipeline(source, present, options))
        self._sink: GstApp.AppSink = self._pipeline.get_by_name("sink")
        self._bus = self._pipeline.get_bus()
        self._handler: int | None = self._pipeline.connect("deep-element-added", self._on_element)
        for element in _all_elements(self._pipeline):
            self._on_element(None, None, element)
        if self._pipeline.set_state(Gst.State.PLAYING) == Gst.StateChangeReturn.FAILURE:
            said = self._bus_error() or f"{source}: GStreamer pipeline does not start"
            self.close()
            raise CaptureError(said)

    @property
    def decode_path(self) -> str:
        """The decoder in use, and why; the decoder is known once the first picture is here."""
        why = f"hardware present: {', '.join(self._hardware)}" if self._hardware else "no hardware decoder present"
        return f"gstreamer {self._decoder}, {why}"

    def read(self, timeout_s: float) -> Picture | None:
        """The next picture, None when none came in time.

        Raises:
            EndOfStream: the source says it has ended.
            CaptureError: the pipeline reports an error.
        """
        sample = self._sink.try_pull_sample(int(timeout_s * Gst.SECOND))
        arrived_ns = time.monotonic_ns()
        self._error = self._error or self._bus_error()
        if sample is not None:
            self._frames += 1
            return self._picture(sample, arrived_ns)
        if self._error is not None:
            # Kept as text: an exception holds the frames it passed, so us, and that circle would keep the sockets.
            raise CaptureError(self._error)
        if self._sink.is_eos():
            if not self._frames:
                raise CaptureError(f"{self._source}: ended without a picture")
            raise EndOfStream
        return None

    def close(self) -> None:
        """Stop the pipeline, and free it: the handler's circle would leave sockets to the garbage collector."""
        if self._handler is not None:
            self._pipeline.disconnect(self._handler)
            self._handler = None
        self._pipeline.set_state(Gst.State.NULL)

    def _picture(self, sample: Gst.Sample, arrived_ns: int) -> Picture:
        found = sample.get_caps().get_structure(0).get_value("format")
        if found != "RGB":
            raise CaptureError(f"{self._source}: found {found} at the sink, expected RGB")
        image_rgb, buffer = _image_of(sample), sample.get_buffer()
        pts_s = None
        if buffer.pts != Gst.CLOCK_TIME_NONE:
            # Positions of the stream: buffer times of MP4 files begin at their edit list's offset.
            pts_s = sample.get_segment().to_stream_time(Gst.Format.TIME, buffer.pts) / Gst.SECOND
        if self._source.recorded:
            return Picture(image_rgb, arrived_ns, pts_s, "file")
        meta = buffer.get_reference_timestamp_meta(Gst.Caps.from_string("timestamp/x-ntp"))
        if meta is None:
            return Picture(image_rgb, arrived_ns, pts_s, "arrival")
        return Picture(image_rgb, arrived_ns, pts_s, "rtcp", meta.timestamp / Gst.SECOND - _NTP_TO_UNIX_S)

    def _bus_error(self) -> str | None:
        # Popping with a filter also throws away what nobody reads (QoS, tags), which would otherwise pile up.
        message = self._bus.pop_filtered(Gst.MessageType.ERROR)
        if message is None:
            return None
        error, debug = message.parse_error()
        detail = (debug or "").rpartition("\n")[2].rpartition("): ")[2]
        said = error.message.rstrip(".") + (f" ({detail.rstrip('.')})" if detail else "")
        return f"{self._source}: {self._source.scrub(said)}"

    def _on_element(self, _pipeline: Gst.Bin | None, _bin: Gst.Bin | None, element: Gst.Element) -> None:
        factory = element.get_factory()
        klass = factory.get_metadata("klass") if factory is not None else ""
        if "Decoder" not in klass or "Bin" in klass or not ("Video" in klass or "Image" in klass):
            return
        self._decoder = factory.get_name()
        if element.find_property("max-threads") is not None:
            element.set_property("max-threads", self._threads)
        entry = element.get_static_pad("sink")
        if self._tap is not None and entry is not None:
            entry.add_probe(Gst.PadProbeType.BUFFER, _tapping(self._tap))


def _tapping(tap: Tap) -> Callable[[Gst.Pad, Gst.PadProbeInfo], Gst.PadProbeReturn]:
    def on_buffer(pad: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        buffer, caps = info.get_buffer(), pad.get_current_caps()
        began = pad.get_sticky_event(Gst.EventType.SEGMENT, 0)
        if buffer.pts != Gst.CLOCK_TIME_NONE and caps is not None and began is not None:
            pts_ns = began.parse_segment().to_stream_time(Gst.Format.TIME, buffer.pts)  # as `_picture` counts
            key = not buffer.has_flags(Gst.BufferFlags.DELTA_UNIT)
            data = buffer.extract_dup(0, buffer.get_size())
            tap(caps.to_string(), Packet(pts_ns, time.monotonic_ns(), key, data))
        return Gst.PadProbeReturn.OK

    return on_buffer


class PacketDecoder:
    """Decodes recorded pictures as the live camera's were decoded."""

    def __init__(self, stream: Stream) -> None:
        """Build and start the decoder of one stream.

        Raises:
            CaptureError: GStreamer refuses it.
        """
        Gst.init(None)
        self._camera = stream.camera
        line = "appsrc name=source format=time ! decodebin ! videoconvert ! video/x-raw,format=RGB ! "
        self._pipeline = Gst.parse_launch(line + "appsink name=sink sync=false")
        self._source, self._sink = self._pipeline.get_by_name("source"), self._pipeline.get_by_name("sink")
        caps = Gst.Caps.from_string(stream.caps)
        if caps is None:
            raise CaptureError(f"recording of {stream.camera}: found caps {stream.caps[:60]!r}, expected GStreamer's")
        self._source.set_property("caps", caps)
        self._pipeline.set_state(Gst.State.PLAYING)

    def put(self, packet: Packet) -> None:
        """Hand over the next packet."""
        buffer = Gst.Buffer.new_wrapped(packet.data)
        buffer.pts = packet.pts_ns
        self._source.emit("push-buffer", buffer)

    def end(self) -> None:
        """No more packets follow: what the decoder holds back comes out."""
        self._source.emit("end-of-stream")

    def take(self, timeout_s: float) -> tuple[int, Image] | None:
        """The next decoded picture and its pts in nanoseconds; None when none came in time.

        Raises:
            CaptureError: the decoder failed.
        """
        sample = self._sink.try_pull_sample(int(timeout_s * Gst.SECOND))
        if sample is None:
            message = self._pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR)
            if message is not None:
                raise CaptureError(f"recording of {self._camera}: {message.parse_error()[0].message}")
            return None
        return sample.get_buffer().pts, _image_of(sample)

    def close(self) -> None:
        """Let go of the decoder."""
        self._pipeline.set_state(Gst.State.NULL)


def _image_of(sample: Gst.Sample) -> Image:
    # The size is the sample's own: cameras change resolution in mid-stream.
    shape, buffer = sample.get_caps().get_structure(0), sample.get_buffer()
    return unpad(buffer.extract_dup(0, buffer.get_size()), shape.get_value("width"), shape.get_value("height"))


def unpad(data: bytes, width: int, height: int) -> Image:
    """Rows of 24-bit RGB, each padded to a multiple of four bytes, as a picture that may be written to.

    Raises:
        CaptureError: fewer bytes than the size needs.
    """
    stride = len(data) // max(height, 1)
    if stride < 3 * width:
        raise CaptureError(f"found {len(data)} bytes for {width}x{height} RGB, expected {3 * width * height}")
    rows = np.frombuffer(data, np.uint8, count=stride * height).reshape(height, stride)
    return rows[:, : 3 * width].reshape(height, width, 3).copy()


def _launch(source: Source, line: str) -> Gst.Pipeline:
    try:
        pipeline = Gst.parse_launch(line)
    except GLib.Error as error:
        raise CaptureError(f"{source}: GStreamer refuses the pipeline: {source.scrub(error.message)}") from None
    if not isinstance(pipeline, Gst.Bin):
        raise CaptureError(f"{source}: found a single element, expected a pipeline")
    head = pipeline.get_by_name("source")
    if head is None:
        return pipeline
    # Set here, not in the line, so that no error message can quote credentials.
    if source.kind in {"rtsp", "file"}:
        head.set_property("location", source.location)
    if source.kind == "v4l2":
        head.set_property("device", source.location)
    if source.kind == "csi":
        if head.find_property("sensor-id") is not None:
            head.set_property("sensor-id", int(source.location))
        elif not source.location.isdigit():
            head.set_property("camera-name", source.location)
    if source.user is not None:
        head.set_property("user-id", source.user)
        head.set_property("user-pw", source.password or "")
    return pipeline


def _all_elements(pipeline: Gst.Bin) -> list[Gst.Element]:
    found: list[Gst.Element] = []
    pipeline.iterate_recurse().foreach(found.append)
    return found
