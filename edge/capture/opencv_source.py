"""Read files, RTSP and V4L2 with OpenCV, always by a named back end: FFmpeg or V4L2.

Rules:
1. RTSP goes over TCP (OpenCV's FFmpeg default). OpenCV takes UDP only from a process-wide environment variable, so this
   module rejects it; use GStreamer for UDP.
2. OpenCV 5 does not convert interlaced pictures, ignores that, and returns what its buffer held before: memory of
   another source, or the picture before. So the first picture goes to memory that was filled with one value, and a
   stream that may be interlaced and repeats a picture exactly is rejected.
3. OpenCV opens one source at a time, whatever thread it is in. So a server that does not answer is not opened: it would
   keep every other camera waiting.
4. OpenCV scales a stream that changes its size to the first size, and does not say so; GStreamer does not.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from pathlib import Path

import cv2
import numpy as np

from edge.capture.frame_source import (
    BackendError,
    CaptureOptions,
    ConcealedPictures,
    EndOfStream,
    Picture,
    describe_scaling,
    shrunk,
)
from edge.capture.positions import SteadyPositions
from edge.capture.rtsp_describe import describe
from edge.config.camera_url import Source
from edge.errors import CaptureError
from edge.imaging.image import from_bgr
from edge.imaging.orientation import UPRIGHT, describe_turns, turn, with_square_pixels
from edge.process import new_memory_filled_with
from edge.types import Image
from edge.video_headers.h264_parameters import H264Parameters, read_h264_parameters
from edge.video_headers.mp4_orientation import read_mp4_orientation
from edge.video_headers.mpeg2_sequence import mpeg2_may_be_interlaced

_H264 = frozenset({b"h264", b"avc1", b"avc3"})
_BGR24 = int.from_bytes(b"BGR\x18", "little")  # FFmpeg's pixel format as four characters
_ORIENTATIONS = {90: 6, 180: 3, 270: 8}  # of EXIF, by the degrees that FFmpeg reports


class OpenCvSource:
    """One `cv2.VideoCapture`. `read` may take as long as the read timeout, and never returns None."""

    def __init__(self, source: Source, options: CaptureOptions, why: str = "as configured") -> None:
        """Open the source.

        Raises:
            CaptureError: the source is missing, empty, refused, not a video, or of a kind that OpenCV does not read.
        """
        self._source = source
        self._frames = 0
        self._concealed = ConcealedPictures(source)
        self._pts_ms: float | None = None
        self._last_bgr: Image | None = None  # of a stream that may be interlaced
        self._capture = open_video(source, options)
        self._reject_crashing()
        extradata = self._read_extradata()
        h264 = read_h264_parameters(extradata) if self._fourcc() in _H264 else None
        self.may_be_interlaced = h264.may_be_interlaced if h264 is not None else mpeg2_may_be_interlaced(extradata)
        self._positions = self._begin_positions(h264)
        self._orientation, self._aspect = self._read_orientation(), self._read_aspect()
        self._max_px = options.max_px
        changes = describe_turns(self._orientation, self._aspect) + describe_scaling(self._max_px)
        self.decode_path = f"opencv {'V4L2' if source.kind == 'v4l2' else 'FFmpeg'} in software ({why}{changes})"
        self._timeout_s = options.read_timeout_s

    def read(self, timeout_s: float) -> Picture | None:  # noqa: ARG002, FFmpeg takes its timeout when opened
        """Return the next picture.

        Raises:
            EndOfStream: the file has no more pictures.
            BackendError: the video is interlaced.
            BadPictureError: nothing of this picture arrived.
            CaptureError: the stream broke or sent nothing within the read timeout.
        """
        try:
            pts_ms = self._grab()
            if pts_ms == self._pts_ms and self._source.kind == "rtsp":
                # FFmpeg returns a key frame twice when its parameter sets came in a separate packet.
                pts_ms = self._grab()
            self._pts_ms = pts_ms
            arrived_ns = time.monotonic_ns()
            image_bgr = self._retrieve()
        except cv2.error as error:
            raise CaptureError(
                f"{self._source}: cannot decode frame {self._frames}: {self._source.scrub(str(error))}"
            ) from error
        self._frames += 1
        self._concealed.reject(image_bgr)
        image_bgr = shrunk(with_square_pixels(image_bgr, self._aspect), self._max_px)
        image_rgb = turn(from_bgr(image_bgr), self._orientation)
        return Picture(image_rgb, arrived_ns, self._position_s(pts_ms), "file" if self._source.recorded else "arrival")

    def close(self) -> None:
        """Release the decoder and its connection."""
        with contextlib.suppress(cv2.error):
            self._capture.release()

    def _retrieve(self) -> Image:
        """Return the picture that was grabbed, once it is sure that OpenCV has written it.

        Raises:
            BackendError: OpenCV did not write it.
            CaptureError: it cannot be decoded.
        """
        image_bgr = self._retrieve_next() if self._frames else self._retrieve_first()
        if image_bgr.ndim != 3 or image_bgr.shape[2] != 3 or image_bgr.dtype != np.uint8:
            found = f"{image_bgr.dtype} pictures of shape {image_bgr.shape}"
            raise BackendError(f"{self._source}: OpenCV delivers {found}; use backend: gstreamer")
        if self._last_bgr is not None and np.array_equal(image_bgr, self._last_bgr):
            raise self._interlaced()
        if self.may_be_interlaced:
            self._last_bgr = image_bgr
        return image_bgr

    def _retrieve_first(self) -> Image:
        value = secrets.choice(range(1, 255))
        with new_memory_filled_with(value):
            image_bgr = self._retrieve_next()
        if (image_bgr == value).all():
            raise self._interlaced()
        return image_bgr

    def _retrieve_next(self) -> Image:
        decoded, image_bgr = self._capture.retrieve()
        if not decoded or image_bgr is None or image_bgr.size == 0:
            raise CaptureError(f"{self._source}: cannot decode frame {self._frames}")
        return np.asarray(image_bgr)

    def _interlaced(self) -> BackendError:
        return BackendError(f"{self._source}: OpenCV cannot read interlaced video; use backend: gstreamer")

    def _reject_crashing(self) -> None:
        """Raise an error for uncompressed 24-bit video, stored from the bottom up: it crashes OpenCV 5."""
        pixel_format = int(self._capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT))
        if self._source.kind == "file" and not any(self._fourcc()) and pixel_format == _BGR24:
            self._capture.release()
            raise BackendError(f"{self._source}: OpenCV cannot read uncompressed 24-bit video; use backend: gstreamer")

    def _fourcc(self) -> bytes:
        return int(self._capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").lower()

    def _read_extradata(self) -> bytes:
        """Return what the decoder gets before the first picture; empty if unknown."""
        if self._source.kind == "v4l2":
            return b""
        found, data = self._capture.retrieve(flag=int(self._capture.get(cv2.CAP_PROP_CODEC_EXTRADATA_INDEX)))
        return data.tobytes() if found and data is not None else b""

    def _begin_positions(self, headers: H264Parameters | None) -> SteadyPositions | None:
        if not self._source.recorded:
            return None
        # FFmpeg plays a raw stream at 25 frames/s, whatever its own headers say.
        said_hz = float(self._capture.get(cv2.CAP_PROP_FPS))
        rate_hz = headers.rate_hz if headers is not None and headers.rate_hz else said_hz
        return SteadyPositions(rate_hz, str(self._source))

    def _position_s(self, pts_ms: float) -> float | None:
        if self._positions is None:
            return None if self._source.kind == "v4l2" else pts_ms / 1000
        return self._positions.next_s(pts_ms / 1000)

    def _read_orientation(self) -> int:
        if self._source.kind == "v4l2":
            return UPRIGHT
        degrees = int(self._capture.get(cv2.CAP_PROP_ORIENTATION_META))
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        said = read_mp4_orientation(Path(self._source.location)) if self._source.kind == "file" else None
        return said or _ORIENTATIONS.get(degrees, UPRIGHT)

    def _read_aspect(self) -> float:
        """Return width of a pixel divided by its height; 1 if unknown."""
        across, down = (self._capture.get(number) for number in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN))
        return across / down if across > 0 and down > 0 else 1.0

    def _grab(self) -> float:
        if not self._capture.grab():
            raise self._end_error()
        return float(self._capture.get(cv2.CAP_PROP_POS_MSEC))

    def _end_error(self) -> Exception:
        if self._source.recorded and self._frames:
            return EndOfStream()
        if self._source.recorded:
            return CaptureError(f"{self._source}: none of its pictures can be decoded; give a video")
        return CaptureError(
            f"{self._source}: the stream broke or was silent for {self._timeout_s:g} s after {self._frames} frames"
        )


def open_video(source: Source, options: CaptureOptions, *, decoded: bool = True) -> cv2.VideoCapture:
    """Open a source with FFmpeg or V4L2.

    Args:
        source: a file, an RTSP stream or a V4L2 camera.
        options: timeouts, threads.
        decoded: deliver pictures; False: the encoded packets of a file or an RTSP stream.

    Raises:
        CaptureError: the source is missing, empty, refused, not a video, or of a kind that OpenCV does not read.
    """
    _reject_unsupported(source, options)
    _reject_silent(source, options)
    api, name = (cv2.CAP_V4L2, "V4L2") if source.kind == "v4l2" else (cv2.CAP_FFMPEG, "FFmpeg")
    address = source.url if source.kind == "rtsp" else source.location
    parameters = _parameters(source, options) + ([] if decoded else [cv2.CAP_PROP_FORMAT, -1])
    try:
        capture = cv2.VideoCapture(address, api, parameters)
    except cv2.error as error:
        raise CaptureError(f"{source}: OpenCV ({name}) cannot open: {source.scrub(str(error))}") from None
    if not capture.isOpened():
        capture.release()
        raise CaptureError(f"{source}: {_diagnose(source, min(2.0, options.open_timeout_s))}")
    return capture


def built_with() -> list[str]:
    """Return the libraries with which this build of OpenCV reads cameras and files."""
    registry = cv2.videoio_registry
    return list(
        dict.fromkeys(registry.getBackendName(api) for api in registry.getBackends() if registry.hasBackend(api))
    )


def _reject_unsupported(source: Source, options: CaptureOptions) -> None:
    if source.kind not in {"file", "rtsp", "v4l2"}:
        raise CaptureError(f"{source}: OpenCV cannot read {source.kind} sources; use backend: gstreamer")
    if source.kind == "rtsp" and options.transport != "tcp":
        raise CaptureError(
            f"{source}: OpenCV reads RTSP over tcp only, not {options.transport}; use backend: gstreamer"
        )
    if source.kind == "v4l2" and source.fps and not source.fps.is_integer():
        raise CaptureError(
            f"{source}: OpenCV requests whole frames per second only, not {source.fps:g}; round it, or use "
            "backend: gstreamer"
        )
    if source.kind == "file":
        path = Path(source.location)
        if not path.is_file():
            problem = "this is a folder; give a file, or folder:// for pictures" if path.is_dir() else "no such file"
            raise CaptureError(f"{source}: {problem}")
        if path.stat().st_size == 0:
            raise CaptureError(f"{source}: the file is empty")


def _reject_silent(source: Source, options: CaptureOptions) -> None:
    if source.kind != "rtsp" or source.location.startswith("rtsps:"):
        return
    try:
        describe(source, options.open_timeout_s)
    except TimeoutError:
        raise CaptureError(f"{source}: cannot connect: no answer within {options.open_timeout_s:g} s") from None
    except OSError as error:
        raise CaptureError(f"{source}: cannot connect: {error.strerror or error}") from None


def _parameters(source: Source, options: CaptureOptions) -> list[int]:
    if source.kind == "v4l2":
        requested = (
            (cv2.CAP_PROP_FRAME_WIDTH, source.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, source.height),
            (cv2.CAP_PROP_FPS, source.fps),
        )
        return [int(number) for pair in requested if pair[1] for number in (pair[0], pair[1])]
    # Timeouts take effect only when set at opening and with the back end named (OpenCV issue 23207).
    return [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        int(options.open_timeout_s * 1000),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        int(options.read_timeout_s * 1000),
        cv2.CAP_PROP_N_THREADS,
        options.decode_threads,
    ]


def _diagnose(source: Source, timeout_s: float) -> str:
    """Find out why a source cannot be opened, because OpenCV gives no reason."""
    if source.kind == "file":
        return f"FFmpeg cannot read this file of {Path(source.location).stat().st_size} bytes as a video"
    if source.kind == "v4l2":
        return "the device delivers no video" if Path(source.location).exists() else "no such device"
    try:
        if source.location.startswith("rtsps:"):
            socket.create_connection(source.address, timeout=timeout_s).close()
            return "the server accepts connections but sends no stream"
        answer = describe(source, timeout_s)
    except OSError as error:
        return f"cannot connect: {error.strerror or error}"
    return f"the server answers {answer!r}, and FFmpeg cannot read the stream"
