"""Pick and open the door of a source: OpenCV, GStreamer or a folder; what was asked for, or an error."""

from __future__ import annotations

from typing import Literal

from edge.capture.frame_source import CaptureOptions
from edge.capture.gstreamer_pipeline import hardware_present
from edge.capture.recording import OnPacket
from edge.config.camera_url import Source
from edge.errors import CaptureError
from edge.imaging.image import IMAGE_SUFFIXES

Backend = Literal["auto", "opencv", "gstreamer"]


def choose_backend(
    source: Source, asked: Backend, present: frozenset[str] | None, options: CaptureOptions
) -> Literal["opencv", "gstreamer", "folder"]:
    """Pick the door of a source.

    Args:
        source: what is read.
        asked: the configuration's word; what was asked for and is not there is an error.
        present: the GStreamer elements of this device, None without GStreamer.
        options: its transport decides too: OpenCV reads RTSP over TCP only.

    Raises:
        CaptureError: GStreamer is needed and not there.
    """
    if source.kind == "folder" or _is_picture(source):
        return "folder"
    needs = source.kind in {"csi", "gstreamer"} or (source.kind == "rtsp" and options.transport == "udp")
    if asked == "gstreamer" or (asked == "auto" and needs):
        if present is None:
            raise CaptureError(f"{source}: found no GStreamer with PyGObject, expected it (extra 'gstreamer')")
        return "gstreamer"
    if asked == "opencv" or present is None:
        return "opencv"
    if source.kind == "rtsp" and "rtspsrc" in present:
        return "gstreamer"
    return "gstreamer" if source.kind == "v4l2" and hardware_present(present) else "opencv"


def open_source(
    source: Source, backend: Backend = "auto", options: CaptureOptions | None = None, on_packet: OnPacket | None = None
) -> FrameSource:
    """Open a source by the door that suits it; its `decode_path` tells which and why.

    Args:
        source: what is read.
        backend: which door; `auto` chooses.
        options: how it is opened.
        on_packet: given every encoded picture; only GStreamer's door has one.

    Raises:
        CaptureError: not to be opened, or by a back end that is not there, or without the on_packet that was asked for.
    """
    options = options or CaptureOptions()
    present: frozenset[str] | None = None
    why = "as configured" if backend == "opencv" else "it suits this source"
    if not (source.recorded and backend == "auto") and backend != "opencv":
        try:
            from edge.capture import gstreamer_source as capture_gstreamer

            present = capture_gstreamer.elements_present()
        except CaptureError as error:
            why = str(error)
    door = choose_backend(source, backend, present, options)
    if on_packet is not None and door != "gstreamer":
        raise CaptureError(f"{source}: found it read by {door}, expected GStreamer, which alone can record (record)")
    if door == "folder":
        from edge.capture.folder_source import FolderSource

        return FolderSource(source)
    if door == "gstreamer":
        return capture_gstreamer.GStreamerSource(source, options, on_packet)
    from edge.capture.opencv_source import OpenCvSource

    return OpenCvSource(source, options, why)


def _is_picture(source: Source) -> bool:
    return source.kind == "file" and source.location.lower().endswith(IMAGE_SUFFIXES)
