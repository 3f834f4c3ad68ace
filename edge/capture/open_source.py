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

_CHANGING_SUFFIXES = (".ts", ".mts", ".m2ts", ".h264", ".264", ".h265", ".265", ".hevc")


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
    if (source.kind == "rtsp" and "rtspsrc" in present) or (may_change(source) and "tsdemux" in present):
        return "gstreamer"
    return "gstreamer" if source.kind == "v4l2" and hardware_present(present) else "opencv"


class SourceOpener:
    """Opens one source, again and again, and remembers which library cannot read it here.

    With `auto`, the other library then reads it for as long as the process runs; that is logged once, and reported when
    OpenCV takes over.
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
        self._only: Literal["opencv", "gstreamer"] | None = None  # the other one cannot read it here

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
        if self._only == "opencv":
            return self._open_opencv("in place of GStreamer, see the log")
        if self._only == "gstreamer":
            return self._open_gstreamer(None)
        present, why = self._elements()
        chosen = choose_backend(source, self._backend, present, options)
        if chosen == "folder":
            from edge.capture.folder_source import FolderSource

            return FolderSource(source, options.max_px)
        return self._open_gstreamer(None) if chosen == "gstreamer" else self._open_opencv(why)

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
        if self._source.recorded and self._backend == "auto" and not may_change(self._source):
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
        replaceable = source.kind in {"v4l2", "file"} or (source.kind == "rtsp" and options.transport == "tcp")
        if self._backend != "auto" or self._only or on_packet is not None or not replaceable:
            return GStreamerSource(source, options, on_packet)
        try:
            return _Replaceable(GStreamerSource(source, options), self._leave_gstreamer, at_first=source.recorded)
        except BackendError as error:
            return self._leave_gstreamer(error)

    def _leave_gstreamer(self, error: CaptureError) -> FrameSource:
        log.warning("%s; OpenCV reads it instead", error)
        self._only = "opencv"
        self._on_fallback()
        return self.open()

    def _open_opencv(self, why: str) -> FrameSource:
        from edge.capture.opencv_source import OpenCvSource

        if self._backend != "auto" or self._only:
            return OpenCvSource(self._source, self._options, why)
        try:
            opened = OpenCvSource(self._source, self._options, why)
        except BackendError as error:
            return self._leave_opencv(error)
        if opened.may_be_interlaced and gstreamer_is_installed():
            opened.close()
            return self._leave_opencv(BackendError(f"{self._source}: the video may be interlaced"))
        return _Replaceable(opened, self._leave_opencv)

    def _leave_opencv(self, error: CaptureError) -> FrameSource:
        if not gstreamer_is_installed():
            raise BackendError(f"{error}; run: {install_command('gstreamer')}") from error
        log.info("%s; GStreamer reads it", error)
        self._only = "gstreamer"
        return self.open()


class _Replaceable:
    """A source that another one replaces when its library turns out to be unable to read it."""

    def __init__(
        self, frame_source: FrameSource, replace: Callable[[CaptureError], FrameSource], *, at_first: bool = False
    ) -> None:
        """Wrap a source.

        Args:
            frame_source: until it fails with a BackendError.
            replace: opens the other one.
            at_first: replace it for any error before its first picture.
        """
        self._frame_source, self._replace, self._at_first = frame_source, replace, at_first

    @property
    def decode_path(self) -> str:
        return self._frame_source.decode_path

    def read(self, timeout_s: float) -> Picture | None:
        try:
            picture = self._frame_source.read(timeout_s)
        except CaptureError as error:
            if not isinstance(error, BackendError) and not self._at_first:
                raise
            self._at_first = False
            self._frame_source.close()
            self._frame_source = self._replace(error)
            return self._frame_source.read(timeout_s)
        self._at_first = self._at_first and picture is None
        return picture

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


def may_change(source: Source) -> bool:
    """Return whether a file is of a format whose pictures may change their size, which OpenCV does not see."""
    return source.kind == "file" and source.location.lower().endswith(_CHANGING_SUFFIXES)


def gstreamer_is_installed() -> bool:
    """Return whether GStreamer can be used from Python."""
    try:
        from edge.capture import gstreamer_source  # noqa: F401
    except CaptureError:
        return False
    return True


def _is_picture(source: Source) -> bool:
    return source.kind == "file" and source.location.lower().endswith(IMAGE_SUFFIXES)
