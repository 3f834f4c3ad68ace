"""Read files, RTSP and V4L2 with OpenCV, always by a named back end: FFmpeg or V4L2.

RTSP goes over TCP (OpenCV's FFmpeg default). OpenCV takes UDP only from a process-wide environment variable, so this
module rejects it; use GStreamer for UDP.
"""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

import cv2

from edge.capture.frame_source import CaptureOptions, EndOfStream, Picture
from edge.capture.rtsp_describe import describe
from edge.config.camera_url import Source
from edge.errors import CaptureError
from edge.imaging.image import from_bgr


class OpenCvSource:
    """One `cv2.VideoCapture`. `read` may take as long as the read timeout, and never returns None."""

    def __init__(self, source: Source, options: CaptureOptions, why: str = "as configured") -> None:
        """Open the source.

        Raises:
            CaptureError: the source is missing, empty, refused, not a video, or of a kind that OpenCV does not read.
        """
        self._source = source
        self._frames = 0
        self._pts_ms: float | None = None
        self._capture = open_video(source, options)
        self.decode_path = f"opencv {'V4L2' if source.kind == 'v4l2' else 'FFmpeg'} in software ({why})"
        self._timeout_s = options.read_timeout_s

    def read(self, timeout_s: float) -> Picture | None:  # noqa: ARG002, FFmpeg takes its timeout when opened
        """Return the next picture.

        Raises:
            EndOfStream: the file has no more pictures.
            CaptureError: the stream broke or sent nothing within the read timeout.
        """
        try:
            pts_ms = self._grab()
            if pts_ms == self._pts_ms and self._source.kind == "rtsp":
                # FFmpeg returns a key frame twice when its parameter sets came in a separate packet.
                pts_ms = self._grab()
            self._pts_ms = pts_ms
            arrived_ns = time.monotonic_ns()
            decoded, image_bgr = self._capture.retrieve()
        except cv2.error as error:
            raise CaptureError(
                f"{self._source}: cannot decode frame {self._frames}: {self._source.scrub(str(error))}"
            ) from error
        if not decoded or image_bgr is None:
            raise CaptureError(f"{self._source}: cannot decode frame {self._frames}")
        self._frames += 1
        recorded = self._source.recorded
        pts_s = None if self._source.kind == "v4l2" else pts_ms / 1000
        return Picture(from_bgr(image_bgr), arrived_ns, pts_s, "file" if recorded else "arrival")

    def close(self) -> None:
        """Release the decoder and its connection."""
        with contextlib.suppress(cv2.error):
            self._capture.release()

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
