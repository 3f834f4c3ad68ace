"""What an open source delivers: the interface that all sources share, and the values it takes and returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from edge.config.camera_url import Source
from edge.errors import CaptureError
from edge.imaging.pyramid import Pyramid
from edge.types import Image, TimeSource

_MOST_CONCEALED = 30  # in a row: 1 to 2 s, as long as a camera takes to its next key frame
_CONCEALED = frozenset({126, 127, 128, 129, 130, 131})  # luma 128 as RGB, in the ranges and matrices of video

Codec = Literal["auto", "h264", "h265", "mjpeg"]


class EndOfStream(Exception):  # noqa: N818, the end of a file is not an error
    """The source has no more pictures."""


class BadPictureError(CaptureError):
    """One picture of a source cannot be decoded; the next one may be."""


class BackendError(CaptureError):
    """This library cannot read the source here; another one may."""


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """How to open a source."""

    transport: Literal["tcp", "udp"] = "tcp"  # of RTSP
    latency_ms: int = 100  # of the RTSP jitter buffer, GStreamer only
    codec: Codec = "auto"  # a named codec selects its decoder; "auto" lets GStreamer find one
    open_timeout_s: float = 10.0
    read_timeout_s: float = 10.0
    decode_threads: int = 1  # each thread more than one adds a frame of latency
    max_px: int | None = None  # larger pictures are scaled down until their longer side has so many pixels


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded picture, as it arrived."""

    image_rgb: Image  # do not write into it; it may be read-only
    arrived_ns: int  # monotonic clock, before conversion to RGB
    pts_s: float | None  # position in the file or stream
    time_source: TimeSource
    captured_at: float | None = None  # Unix seconds by the camera's own clock; set exactly when time_source is "rtcp"


class FrameSource(Protocol):
    """An open source, read with one library."""

    @property
    def decode_path(self) -> str:
        """The library and decoder in use, and why."""
        ...

    def read(self, timeout_s: float) -> Picture | None:
        """Return the next picture, or None when none came in time.

        Raises:
            EndOfStream: the file or folder has no more pictures.
            BadPictureError: this picture cannot be decoded; the next one may be.
            BackendError: this library cannot read the source.
            CaptureError: the source is dead.
        """
        ...

    def close(self) -> None:
        """Release everything the source holds. Never raises."""
        ...


def shrunk(image: Image, max_px: int | None) -> Image:
    """Return a picture whose longer side has at most `max_px` pixels, (height, width, 3); a smaller one as it is."""
    height, width = image.shape[:2]
    if max_px is None or max(height, width) <= max_px:
        return image
    factor = max_px / max(height, width)
    return Pyramid(image).resized(max(1, round(width * factor)), max(1, round(height * factor)))


def describe_scaling(max_px: int | None) -> str:
    """Return what is done to large pictures, for the decode path; empty if nothing is."""
    return f", scaled to at most {max_px} px" if max_px else ""


class ConcealedPictures:
    """Recognises pictures of which nothing arrived: H.264 decoders give out plain grey where they have nothing.

    A camera that shows that grey for longer really does.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._in_a_row = 0

    def reject(self, image: Image) -> None:
        """Check the next picture, (height, width, 3), RGB or BGR.

        Raises:
            BadPictureError: nothing of it arrived.
        """
        grey = int(image[0, 0, 0])
        if grey in _CONCEALED and bool((image[::16, ::16] == grey).all()) and bool((image == grey).all()):
            self._in_a_row += 1
            if self._in_a_row <= _MOST_CONCEALED:
                raise BadPictureError(f"{self._source}: a picture arrived empty; its data or its key frame are lost")
        else:
            self._in_a_row = 0
