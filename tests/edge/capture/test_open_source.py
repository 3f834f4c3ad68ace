"""OpenCV in place of a GStreamer that cannot read a camera."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from edge.capture import opencv_source
from edge.capture.frame_source import BackendError, CaptureOptions
from edge.capture.open_source import SourceOpener, open_source
from edge.config.camera_url import parse_source
from edge.errors import CaptureError

CAMERA = parse_source("rtsp://cam/live")
OLD = BackendError("rtsp://cam/live: GStreamer rejects the pipeline: no property")
GONE = CaptureError("rtsp://cam/live: connection refused")


class FakeOpenCvSource:
    def __init__(self, source, options, why):
        self.decode_path = f"opencv ({why})"

    def read(self, timeout_s):
        return "picture"

    def close(self):
        pass


def gstreamer(on_open=None, on_read=None):
    """A stand-in for the module that loads GStreamer."""

    class FakeGStreamerSource:
        opened = 0
        closed = 0
        decode_path = "gstreamer"

        def __init__(self, *_arguments):
            type(self).opened += 1
            if on_open is not None:
                raise on_open

        def read(self, timeout_s):
            raise on_read

        def close(self):
            type(self).closed += 1

    return SimpleNamespace(elements_present=lambda: frozenset({"rtspsrc"}), GStreamerSource=FakeGStreamerSource)


@pytest.fixture
def use(monkeypatch):
    def replace(module):
        monkeypatch.setitem(sys.modules, "edge.capture.gstreamer_source", module)
        monkeypatch.setattr("edge.capture.gstreamer_source", module, raising=False)
        monkeypatch.setattr(opencv_source, "OpenCvSource", FakeOpenCvSource)
        return module.GStreamerSource

    return replace


def test_opencv_reads_what_gstreamer_cannot_open_and_that_is_told_once(use, caplog):
    fake, told = use(gstreamer(on_open=OLD)), []
    opener = SourceOpener(CAMERA, "auto", CaptureOptions(), lambda: told.append("fallback"))
    for _ in range(3):
        assert opener.open().read(1.0) == "picture"
    assert told == ["fallback"]
    assert [record.getMessage() for record in caplog.records] == [f"{OLD}; OpenCV reads it instead"]
    assert fake.opened == 1


def test_opencv_takes_over_when_gstreamer_cannot_decode(use):
    fake = use(gstreamer(on_read=OLD))
    source = open_source(CAMERA)
    assert source.decode_path == "gstreamer"
    assert source.read(1.0) is None
    assert source.read(1.0) == "picture"
    assert source.decode_path == "opencv (in place of GStreamer, see the log)"
    assert fake.closed == 1


@pytest.mark.parametrize("failure", [{"on_open": GONE}, {"on_read": GONE}])
def test_camera_that_is_gone_is_no_reason_to_change_the_library(use, failure):
    use(gstreamer(**failure))
    with pytest.raises(CaptureError, match="refused"):
        open_source(CAMERA).read(1.0)


def test_configured_gstreamer_is_not_replaced(use):
    use(gstreamer(on_open=OLD))
    with pytest.raises(BackendError, match="rejects"):
        open_source(CAMERA, "gstreamer")


def test_camera_over_udp_is_not_replaced(use):
    use(gstreamer(on_open=OLD))
    with pytest.raises(BackendError, match="rejects"):
        open_source(CAMERA, "auto", CaptureOptions(transport="udp"))


def test_recorded_camera_is_not_replaced(use):
    use(gstreamer(on_open=OLD))
    with pytest.raises(BackendError, match="rejects"):
        open_source(CAMERA, on_packet=lambda *_: None)


def test_status_of_a_healthy_camera_holds_no_error(use):
    def missing():
        raise CaptureError("GStreamer: PyGObject with Gst and GstApp is not installed (No module named 'gi')")

    use(SimpleNamespace(elements_present=missing, GStreamerSource=None))
    assert open_source(CAMERA).decode_path == "opencv (without GStreamer)"
