"""Read a source's encoded video undecoded, by OpenCV's FFmpeg: what a camera really sends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import cv2

from edge.errors import CaptureError
from edge.source import CaptureOptions, Source

_UNDECODED = -1.0  # of CAP_PROP_FORMAT


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded picture, as it arrived."""

    data: bytes
    key: bool  # decodes without any before it
    arrived_ns: int  # monotonic


class PacketSource:
    """One connection to a file or an RTSP camera; nothing is decoded."""

    def __init__(self, source: Source, options: CaptureOptions) -> None:
        """Connect.

        Raises:
            CaptureError: not a file or RTSP source, or not to be opened.
        """
        if source.kind not in {"file", "rtsp"}:
            raise CaptureError(f"{source}: found a {source.kind} source, expected one that sends encoded video")
        self._source = source
        address = source.url if source.kind == "rtsp" else source.location
        milliseconds = (int(options.open_timeout_s * 1000), int(options.read_timeout_s * 1000))
        parameters = [cv2.CAP_PROP_FORMAT, int(_UNDECODED)]
        parameters += [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds[0], cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds[1]]
        try:
            self._capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, parameters)
        except cv2.error as error:
            raise CaptureError(f"{source}: OpenCV (FFmpeg) cannot open: {source.scrub(str(error))}") from None
        if not self._capture.isOpened():
            self.close()
            raise CaptureError(f"{source}: found no video to read undecoded")

    @property
    def codec(self) -> str:
        """FFmpeg's name of it, such as h264 or hevc."""
        tag = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        return bytes(tag >> shift & 0xFF for shift in (0, 8, 16, 24)).decode("ascii", "replace").strip("\0 ").lower()

    def packets(self) -> Iterator[Packet]:
        """Every packet, until the source ends or is silent for the read timeout.

        Raises:
            CaptureError: the library failed.
        """
        try:
            while True:
                read, data = self._capture.read()
                if not read:
                    return
                key = bool(self._capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME))
                yield Packet(data.tobytes(), key, time.monotonic_ns())
        except cv2.error as error:
            raise CaptureError(f"{self._source}: cannot read on: {self._source.scrub(str(error))}") from error

    def close(self) -> None:
        """Release the connection."""
        with contextlib.suppress(cv2.error):
            self._capture.release()
