"""A GStreamer older than this machine's, played by this machine's: elements without a property."""

from __future__ import annotations

import logging

import pytest

from edge.capture import gstreamer_source
from edge.capture.frame_source import BackendError, CaptureOptions
from edge.capture.open_source import SourceOpener, open_source
from edge.config.camera_url import parse_source
from edge.errors import CaptureError
from tests.integration.rtsp_server import RtspServer

QUICK = CaptureOptions(open_timeout_s=5, read_timeout_s=2)
UNKNOWN = "add-what-no-version-has"


@pytest.fixture(scope="module")
def server():
    with RtspServer("colour:e06010") as running:
        yield running


def first_picture(frame_source):
    for _ in range(80):
        if (picture := frame_source.read(0.25)) is not None:
            return picture
    raise AssertionError("no picture")


def test_rtsp_is_read_without_the_property_for_the_senders_time(server, monkeypatch, caplog):
    """JetPack 5 and 6 have GStreamer 1.16 and 1.20; the property came with 1.22."""
    monkeypatch.setattr(gstreamer_source, "_SENDER_TIME", UNKNOWN)
    gstreamer_source._log_without_sender_time.cache_clear()
    caplog.set_level(logging.INFO)
    for _ in range(2):
        frame_source = open_source(parse_source(server.url), "auto", QUICK)
        assert first_picture(frame_source).time_source == "arrival"
        assert frame_source.decode_path.startswith("gstreamer avdec_h264")
        frame_source.close()
    assert sum(UNKNOWN in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("line", [f"rtspsrc name=source {UNKNOWN}=true ! decodebin", "rtspsrc name=source ! nosuchdec"])
def test_opencv_reads_what_this_gstreamer_rejects(server, monkeypatch, caplog, line):
    monkeypatch.setattr(gstreamer_source, "describe_pipeline", lambda *_: f"{line} ! appsink name=sink")
    told = []
    opener = SourceOpener(parse_source(server.url), "auto", QUICK, lambda: told.append("fallback"))
    for _ in range(2):
        frame_source = opener.open()
        assert first_picture(frame_source).image_rgb.shape == (240, 320, 3)
        assert frame_source.decode_path.startswith("opencv FFmpeg in software (in place of GStreamer")
        frame_source.close()
    assert told == ["fallback"]
    assert sum("OpenCV reads it instead" in record.getMessage() for record in caplog.records) == 1


@pytest.fixture
def no_h264_decoder():
    """Hide every H.264 decoder from decodebin."""
    gst = gstreamer_source.Gst
    gst.init(None)
    caps = gst.Caps.from_string("video/x-h264")
    decoders = gst.ElementFactory.list_get_elements(gst.ELEMENT_FACTORY_TYPE_DECODER, gst.Rank.NONE)
    found = [one for one in decoders if one.can_sink_any_caps(caps)]
    ranks = [one.get_rank() for one in found]
    for one in found:
        one.set_rank(gst.Rank.NONE)
    yield
    for one, rank in zip(found, ranks, strict=True):
        one.set_rank(rank)


@pytest.mark.usefixtures("no_h264_decoder")
def test_opencv_takes_over_from_a_gstreamer_without_a_decoder(server):
    """GStreamer says so only when the stream comes."""
    frame_source = open_source(parse_source(server.url), "auto", QUICK)
    assert first_picture(frame_source).image_rgb.shape == (240, 320, 3)
    assert frame_source.decode_path.startswith("opencv")
    frame_source.close()


def test_configured_gstreamer_says_what_it_rejects(server, monkeypatch):
    monkeypatch.setattr(gstreamer_source, "describe_pipeline", lambda *_: f"rtspsrc name=source {UNKNOWN}=true")
    with pytest.raises(BackendError, match=UNKNOWN):
        open_source(parse_source(server.url), "gstreamer", QUICK)


def test_absent_camera_is_not_blamed_on_gstreamer(server):
    frame_source = open_source(parse_source(server.url + "x"), "auto", QUICK)
    with pytest.raises(CaptureError, match="404") as error:
        first_picture(frame_source)
    assert not isinstance(error.value, BackendError)
    assert frame_source.decode_path.startswith("gstreamer")
    frame_source.close()


def test_decoder_is_set_up_as_far_as_its_version_allows():
    class Decoder:
        """nvv4l2decoder of a version without `disable-dpb`."""

        def __init__(self):
            self.properties = {}

        def find_property(self, name):
            return None if name == "disable-dpb" else name

        def set_property(self, name, value):
            self.properties[name] = value

    decoder = Decoder()
    gstreamer_source.set_known(decoder, gstreamer_source._LIVE_DECODER)
    assert decoder.properties == {"enable-max-performance": True}


def test_formats_of_a_real_converter_are_read_from_its_pads():
    assert gstreamer_source.raw_formats("videoconvert") >= {"RGB", "RGBA", "BGRx"}
    assert not gstreamer_source.raw_formats("jpegenc")


@pytest.mark.parametrize("pixel_format", ["RGB", "RGBA", "BGRx"])
def test_sink_takes_every_format_of_a_converter(pixel_format):
    line = (
        "videotestsrc pattern=solid-color foreground-color=0xffe06010 num-buffers=3 ! videoconvert"
        f" ! video/x-raw,format={pixel_format},width=51,height=40 ! appsink name=sink"
    )
    frame_source = open_source(parse_source(f"gst:{line}"))
    image_rgb = first_picture(frame_source).image_rgb
    assert image_rgb.shape == (40, 51, 3)
    assert abs(image_rgb.astype(int) - (0xE0, 0x60, 0x10)).max() <= 2
    frame_source.close()
