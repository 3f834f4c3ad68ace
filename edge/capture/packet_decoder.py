"""Decode recorded pictures with GStreamer."""

from __future__ import annotations

from edge.capture import gstreamer_source
from edge.capture.gstreamer_pipeline import software_to_packed
from edge.capture.recording import Packet, Stream
from edge.errors import CaptureError
from edge.types import Image

Gst = gstreamer_source.Gst  # type: ignore[attr-defined]  # loaded there, with its checks


class PacketDecoder:
    """Decodes recorded pictures in the same way as the live camera's."""

    def __init__(self, stream: Stream, max_px: int | None = None) -> None:
        """Build and start the decoder of one stream; scale pictures down to `max_px`, see `CaptureOptions`.

        Raises:
            CaptureError: GStreamer rejects the stream.
        """
        Gst.init(None)
        self._camera, self._max_px = stream.camera, max_px
        packed = " ! ".join(software_to_packed(gstreamer_source.elements_present(), max_px))
        line = f"appsrc name=source format=time ! decodebin ! {packed} ! appsink name=sink sync=false"
        self._pipeline = Gst.parse_launch(line)
        self._source, self._sink = self._pipeline.get_by_name("source"), self._pipeline.get_by_name("sink")
        caps = Gst.Caps.from_string(stream.caps)
        if caps is None:
            raise CaptureError(
                f"recording of {stream.camera}: {stream.caps[:60]!r} is not a valid GStreamer caps string"
            )
        self._source.set_property("caps", caps)
        self._pipeline.set_state(Gst.State.PLAYING)

    def put(self, packet: Packet) -> None:
        """Pass the next packet to the decoder."""
        buffer = Gst.Buffer.new_wrapped(packet.data)
        buffer.pts = packet.pts_ns
        self._source.emit("push-buffer", buffer)

    def end(self) -> None:
        """Signal that no more packets follow, so that the decoder releases the pictures it holds back."""
        self._source.emit("end-of-stream")

    def take(self, timeout_s: float) -> tuple[int, Image] | None:
        """Return the next decoded picture and its pts in nanoseconds; None when none came in time.

        Raises:
            CaptureError: the decoder failed.
        """
        sample = self._sink.try_pull_sample(int(timeout_s * Gst.SECOND))
        if sample is None:
            message = self._pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR)
            if message is not None:
                raise CaptureError(f"recording of {self._camera}: {message.parse_error()[0].message}")
            return None
        return sample.get_buffer().pts, gstreamer_source.image_in(sample, self._max_px)

    def close(self) -> None:
        """Release the decoder."""
        self._pipeline.set_state(Gst.State.NULL)
