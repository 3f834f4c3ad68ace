"""OpenCV in place of a GStreamer that cannot read a camera."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from edge.capture import open_source as open_source_module
from edge.capture import opencv_source
from edge.capture.frame_source import BackendError, CaptureOptions
from edge.capture.open_source import SourceOpener, open_source
from edge.config.camera_url import parse_source
from edge.errors import CaptureError
from edge.imaging.image import encode_image

CAMERA = parse_source("rtsp://cam/live")
OLD = BackendError("rtsp://cam/live: GStreamer rejects the pipeline: no property")
GONE = CaptureError("rtsp://cam/live: connection refused")


class FakeOpenCvSource:
    may_be_interlaced = False

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


FILE = parse_source("file:///x.mp4")
INTERLACED = BackendError("file:///x.mp4: OpenCV cannot read interlaced video")


@pytest.fixture
def opencv(monkeypatch, use):
    """OpenCV that fails, beside a GStreamer that reads."""

    def fail(on_read=None, on_open=None, *, may_be_interlaced=False):
        class Failing(FakeOpenCvSource):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                self.may_be_interlaced = may_be_interlaced
                if on_open is not None:
                    raise on_open

            def read(self, timeout_s):
                raise on_read

        module = gstreamer()
        module.GStreamerSource.read = lambda self, timeout_s: "picture"
        fake = use(module)
        monkeypatch.setattr(opencv_source, "OpenCvSource", Failing)
        return fake

    return fail


@pytest.mark.parametrize(
    "failure", [{"on_read": INTERLACED}, {"on_open": INTERLACED}, {"may_be_interlaced": True, "on_read": GONE}]
)
def test_gstreamer_reads_what_opencv_cannot(opencv, failure):
    fake, told = opencv(**failure), []
    opener = SourceOpener(FILE, "auto", CaptureOptions(), lambda: told.append("fallback"))
    for _ in range(2):
        frame_source = opener.open()
        assert frame_source.read(1.0) == "picture"
        assert frame_source.decode_path == "gstreamer"
    assert fake.opened == 2
    assert told == []  # it counts cameras without GStreamer


def test_configured_opencv_is_not_replaced(opencv):
    opencv(on_read=INTERLACED, may_be_interlaced=True)
    with pytest.raises(BackendError, match="interlaced"):
        open_source(FILE, "opencv").read(1.0)


def test_error_without_gstreamer_says_what_to_install(opencv, monkeypatch):
    opencv(on_read=INTERLACED)
    monkeypatch.setattr(open_source_module, "gstreamer_is_installed", lambda: False)
    with pytest.raises(BackendError, match=r"interlaced video; run: .*pip install .*gstreamer"):
        open_source(FILE).read(1.0)


def test_opencv_reads_a_changing_file_that_gstreamer_cannot(use):
    """A file may fail with any error before its first picture: nothing of it was delivered yet."""
    fake = gstreamer(on_read=GONE)
    fake.elements_present = lambda: frozenset({"tsdemux"})
    use(fake)
    assert open_source(parse_source("file:///x.ts")).read(1.0) == "picture"


def test_folder_is_scaled_to_a_size(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_image(np.zeros((60, 40, 3), np.uint8), ".png"))
    source = open_source(parse_source(f"folder://{tmp_path}"), options=CaptureOptions(max_px=30))
    assert source.read(1).image_rgb.shape == (30, 20, 3)
    assert source.decode_path == "folder of 1 pictures, scaled to at most 30 px"
