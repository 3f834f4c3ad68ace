"""Read the encoded packets of a source with OpenCV's FFmpeg: what a camera really sends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import cv2

from edge.capture.frame_source import CaptureOptions
from edge.capture.opencv_source import open_video
from edge.config.camera_url import Source
from edge.errors import CaptureError


@dataclass(frozen=True, slots=True)
class EncodedPacket:
    """One encoded picture, as it arrived."""

    data: bytes
    key: bool  # can be decoded without earlier packets
    arrived_ns: int  # monotonic


class PacketSource:
    """One connection to a file or an RTSP camera, without decoding."""

    def __init__(self, source: Source, options: CaptureOptions) -> None:
        """Connect.

        Raises:
            CaptureError: this is not a file or an RTSP source, or it cannot be opened.
        """
        if source.kind not in {"file", "rtsp"}:
            raise CaptureError(f"{source}: {source.kind} sources send no encoded video")
        self._source = source
        self._capture = open_video(source, options, decoded=False)

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec, such as h264 or hevc."""
        tag = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        return bytes(tag >> shift & 0xFF for shift in (0, 8, 16, 24)).decode("ascii", "replace").strip("\0 ").lower()

    def packets(self) -> Iterator[EncodedPacket]:
        """Yield every packet, until the source ends or is silent for the read timeout.

        Raises:
            CaptureError: OpenCV failed.
        """
        try:
            while True:
                read, data = self._capture.read()
                if not read:
                    return
                key = bool(self._capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME))
                yield EncodedPacket(data.tobytes(), key, time.monotonic_ns())
        except cv2.error as error:
            raise CaptureError(f"{self._source}: cannot read any further: {self._source.scrub(str(error))}") from error

    def close(self) -> None:
        """Release the connection."""
        with contextlib.suppress(cv2.error):
            self._capture.release()
