"""Choose how to read a source (OpenCV, GStreamer or a folder) and open it. A missing back end is an error."""

from __future__ import annotations

from typing import Literal

from edge.capture.frame_source import CaptureOptions, FrameSource
from edge.capture.gstreamer_pipeline import hardware_present
from edge.capture.recording import OnPacket
from edge.config.camera_url import Source
from edge.errors import CaptureError
from edge.extras import install_command
from edge.imaging.image import IMAGE_SUFFIXES

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


def open_source(
    source: Source, backend: Backend = "auto", options: CaptureOptions | None = None, on_packet: OnPacket | None = None
) -> FrameSource:
    """Open a source; its `decode_path` says which back end reads it, and why.

    Args:
        source: to read.
        backend: which library reads it; `auto` chooses.
        options: how to open it.
        on_packet: called with every encoded picture; GStreamer only.

    Raises:
        CaptureError: the source cannot be opened, its back end is not installed, or the back end has no `on_packet`.
    """
    options = options or CaptureOptions()
    present: frozenset[str] | None = None
    why = "as configured" if backend == "opencv" else "it suits this source"
    if not (source.recorded and backend == "auto") and backend != "opencv":
        try:
            from edge.capture import gstreamer_source

            present = gstreamer_source.elements_present()
        except CaptureError as error:
            why = str(error)
    chosen = choose_backend(source, backend, present, options)
    if on_packet is not None and chosen != "gstreamer":
        raise CaptureError(f"{source}: read with {chosen}, which cannot record; use backend: gstreamer")
    if chosen == "folder":
        from edge.capture.folder_source import FolderSource

        return FolderSource(source)
    if chosen == "gstreamer":
        return gstreamer_source.GStreamerSource(source, options, on_packet)
    from edge.capture.opencv_source import OpenCvSource

    return OpenCvSource(source, options, why)


def _is_picture(source: Source) -> bool:
    return source.kind == "file" and source.location.lower().endswith(IMAGE_SUFFIXES)
