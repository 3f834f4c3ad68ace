"""Choose how to read a source (OpenCV, GStreamer or a folder) and open it. A missing back end is an error."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

from edge.capture.frame_source import BackendError, CaptureOptions, FrameSource, Picture
from edge.capture.gstreamer_pipeline import hardware_present
from edge.capture.recording import OnPacket
from edge.config.camera_url import Source
from edge.errors import CaptureError
from edge.extras import install_command
from edge.imaging.image import IMAGE_SUFFIXES

log = logging.getLogger(__name__)

Backend = Literal["auto", "opencv", "gstreamer"]


def choose_backend(
    source: Source, requested: Backend, present: frozenset[str] | None, options: CaptureOptions
) -> Literal["opencv", "gstreamer", "folder"]:
    """Choose the back end of a source.

    Args:
        source: to read.
        requested: the back end in the configuration.
        present: the GStreamer elements of the device, None without GStreamer.
        options: the transport matters, too: OpenCV reads RTSP over TCP only.

    Raises:
        CaptureError: GStreamer is needed and not installed.
    """
    if source.kind == "folder" or _is_picture(source):
        return "folder"
    needs_gstreamer = source.kind in {"csi", "gstreamer"} or (source.kind == "rtsp" and options.transport == "udp")
    if requested == "gstreamer" or (requested == "auto" and needs_gstreamer):
        if present is None:
            raise CaptureError(f"{source}: needs GStreamer with PyGObject; run: {install_command('gstreamer')}")
        return "gstreamer"
    if requested == "opencv" or present is None:
        return "opencv"
    if source.kind == "rtsp" and "rtspsrc" in present:
        return "gstreamer"
    return "gstreamer" if source.kind == "v4l2" and hardware_present(present) else "opencv"


class SourceOpener:
    """Opens one source, again and again, and remembers when GStreamer cannot read it here.

    With `auto`, OpenCV then reads it for as long as the process runs; that is logged and reported once.
    """

    def __init__(
        self,
        source: Source,
        backend: Backend = "auto",
        options: CaptureOptions | None = None,
        on_fallback: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to open a source.

        Args:
            source: to read.
            backend: which library reads it; `auto` chooses.
            options: how to open it.
            on_fallback: called when OpenCV takes over from GStreamer.
        """
        self._source, self._backend, self._options = source, backend, options or CaptureOptions()
        self._on_fallback = on_fallback
        self._gave_up = False

    def open(self, on_packet: OnPacket | None = None) -> FrameSource:
        """Open the source; its `decode_path` says which back end reads it, and why.

        Args:
            on_packet: called with every encoded picture; GStreamer only.

        Raises:
            CaptureError: the source cannot be opened, its back end is not installed, or that has no `on_packet`.
        """
        source, options = self._source, self._options
        if on_packet is not None:
            self.check_recordable()
            return self._open_gstreamer(on_packet)
        present, why = self._elements()
        chosen = choose_backend(source, self._backend, present, options)
        if chosen == "folder":
            from edge.capture.folder_source import FolderSource

            return FolderSource(source)
        if chosen == "gstreamer":
            return self._open_gstreamer(None)
        from edge.capture.opencv_source import OpenCvSource

        return OpenCvSource(source, options, why)

    def check_recordable(self) -> None:
        """Check that the encoded video of this source can be recorded here, without opening it.

        Raises:
            CaptureError: it cannot, because only GStreamer records, and only video.
        """
        if self._source.kind == "folder" or _is_picture(self._source):
            raise CaptureError(f"{self._source}: pictures cannot be recorded; record a camera or a video")
        if self._backend == "opencv":
            raise CaptureError(f"{self._source}: OpenCV cannot record; use backend: gstreamer")
        try:
            from edge.capture import gstreamer_source  # noqa: F401  loads GStreamer, or says that it is missing
        except CaptureError as error:
            problem = f"{self._source}: recording needs GStreamer with PyGObject"
            raise CaptureError(f"{problem}; run: {install_command('gstreamer')}") from error

    def _elements(self) -> tuple[frozenset[str] | None, str]:
        """Return GStreamer's elements, None without GStreamer, and why OpenCV reads what it does not read."""
        if self._backend == "opencv":
            return None, "as configured"
        if self._source.recorded and self._backend == "auto":
            return None, "it suits this source"
        try:
            from edge.capture import gstreamer_source

            return gstreamer_source.elements_present(), "it suits this source"
        except CaptureError as error:
            log.debug("%s: %s", self._source, error)
            return None, "without GStreamer"

    def _open_gstreamer(self, on_packet: OnPacket | None) -> FrameSource:
        from edge.capture.gstreamer_source import GStreamerSource

        source, options = self._source, self._options
        replaceable = source.kind == "v4l2" or (source.kind == "rtsp" and options.transport == "tcp")
        if self._backend != "auto" or on_packet is not None or not replaceable:
            return GStreamerSource(source, options, on_packet)
        if self._gave_up:
            return self._open_opencv_instead()
        try:
            return _Replaceable(GStreamerSource(source, options), self._give_up)
        except BackendError as error:
            return self._give_up(error)

    def _give_up(self, error: BackendError) -> FrameSource:
        self._gave_up = True
        log.warning("%s; OpenCV reads it instead", error)
        self._on_fallback()
        return self._open_opencv_instead()

    def _open_opencv_instead(self) -> FrameSource:
        from edge.capture.opencv_source import OpenCvSource

        return OpenCvSource(self._source, self._options, "in place of GStreamer, see the log")


class _Replaceable:
    """A source that another one replaces when its library turns out to be unable to read it."""

    def __init__(self, frame_source: FrameSource, replace: Callable[[BackendError], FrameSource]) -> None:
        self._frame_source, self._replace = frame_source, replace

    @property
    def decode_path(self) -> str:
        return self._frame_source.decode_path

    def read(self, timeout_s: float) -> Picture | None:
        try:
            return self._frame_source.read(timeout_s)
        except BackendError as error:
            self._frame_source.close()
            self._frame_source = self._replace(error)
            return None

    def close(self) -> None:
        self._frame_source.close()


def open_source(
    source: Source, backend: Backend = "auto", options: CaptureOptions | None = None, on_packet: OnPacket | None = None
) -> FrameSource:
    """Open a source once, as `SourceOpener` does.

    Raises:
        CaptureError: see `SourceOpener.open`.
    """
    return SourceOpener(source, backend, options).open(on_packet)


def _is_picture(source: Source) -> bool:
    return source.kind == "file" and source.location.lower().endswith(IMAGE_SUFFIXES)
