"""The GStreamer launch line."""

from __future__ import annotations

import pytest

from edge.capture.frame_source import CaptureOptions
from edge.capture.gstreamer_pipeline import choose_decoder, describe_pipeline
from edge.config.camera_url import parse_source
from edge.errors import CaptureError

PC = frozenset({"rtspsrc", "v4l2src", "appsink", "avdec_h264", "avdec_h265", "jpegdec"})
JETSON = PC | {"nvv4l2decoder", "nvvidconv", "nvarguscamerasrc"}
CAMERA = parse_source("rtsp://u:secret@cam/live")


def test_rtsp_of_unknown_codec_uses_decodebin():
    line = describe_pipeline(CAMERA, PC, CaptureOptions())
    assert line == (
        "rtspsrc name=source protocols=tcp latency=100 buffer-mode=none"
        " ! application/x-rtp,media=video ! decodebin ! videoconvert ! video/x-raw,format=RGB"
        " ! appsink name=sink max-buffers=1 drop=true sync=false"
    )


def test_pictures_are_scaled_before_they_are_converted():
    line = describe_pipeline(CAMERA, PC | {"videoscale", "deinterlace"}, CaptureOptions(max_px=1280))
    caps = "video/x-raw,width=[1,1280],height=[1,1280],pixel-aspect-ratio=1/1"
    scaled = f"videoscale method=bilinear2 add-borders=false ! {caps} ! videoconvert ! video/x-raw,format=RGB ! appsink"
    assert f"decodebin ! deinterlace fields=top ! {scaled}" in line
    jetson = describe_pipeline(CAMERA, JETSON | {"videoscale"}, CaptureOptions(max_px=1280))
    assert "nvvidconv ! video/x-raw,format=RGBA,width=[1,1280],height=[1,1280] ! appsink" in jetson
    assert "videoscale" not in describe_pipeline(CAMERA, PC | {"videoscale"}, CaptureOptions())


def test_interlaced_video_is_deinterlaced_off_the_jetson():
    line = describe_pipeline(CAMERA, PC | {"deinterlace"}, CaptureOptions())
    assert "decodebin ! deinterlace fields=top ! videoconvert ! video/x-raw,format=RGB ! appsink" in line
    assert "deinterlace" not in describe_pipeline(CAMERA, JETSON | {"deinterlace"}, CaptureOptions())


def test_launch_line_holds_no_address_or_password():
    line = describe_pipeline(CAMERA, JETSON, CaptureOptions())
    assert "secret" not in line
    assert "cam" not in line


def test_jetson_decodes_and_converts_in_hardware():
    line = describe_pipeline(CAMERA, JETSON, CaptureOptions(codec="h265", transport="udp", latency_ms=50))
    assert "protocols=udp latency=50" in line
    assert "rtph265depay ! h265parse ! nvv4l2decoder ! nvvidconv ! video/x-raw,format=RGBA ! appsink" in line


def test_jetson_decodes_an_unknown_codec_off_the_processor():
    line = describe_pipeline(CAMERA, JETSON, CaptureOptions())
    assert "media=video ! decodebin ! nvvidconv ! video/x-raw,format=RGBA ! appsink" in line
    assert "videoconvert" not in line


@pytest.mark.parametrize(
    ("written", "chosen"), [({"RGBA", "RGB"}, "RGB"), ({"BGRx", "RGBA"}, "RGBA"), ({"BGRx"}, "BGRx")]
)
def test_converter_writes_the_format_that_costs_least(written, chosen):
    line = describe_pipeline(CAMERA, JETSON, CaptureOptions(), {"nvvidconv": frozenset(written)})
    assert f"nvvidconv ! video/x-raw,format={chosen} ! appsink" in line
    assert "videoconvert" not in line


@pytest.mark.parametrize(
    ("present", "decoder"),
    [
        (PC | {"vah264dec", "v4l2h264dec"}, "vah264dec"),
        (PC | {"v4l2h264dec"}, "v4l2h264dec"),
        (PC, "avdec_h264"),
        (frozenset({"rtspsrc"}), "decodebin"),
    ],
)
def test_hardware_decoders_come_first(present, decoder):
    assert decoder == choose_decoder("h264", frozenset(present))


def test_sink_of_a_file_waits_and_sink_of_a_camera_drops():
    assert "drop=false" in describe_pipeline(parse_source("file:///x.mp4"), PC, CaptureOptions())
    assert "drop=true" in describe_pipeline(parse_source("v4l2://0"), PC, CaptureOptions())


def test_v4l2_accepts_raw_or_jpeg_of_the_requested_size():
    line = describe_pipeline(parse_source("v4l2://0?width=640&height=480&fps=7.5"), PC, CaptureOptions())
    caps = "width=640,height=480,framerate=7500/1000"
    assert f'v4l2src name=source ! "video/x-raw,{caps};image/jpeg,{caps}" ! decodebin' in line


def test_csi_uses_the_camera_element_of_the_board():
    source = parse_source("csi://0?width=1280&height=720")
    assert describe_pipeline(source, JETSON, CaptureOptions()).startswith(
        'nvarguscamerasrc name=source ! "video/x-raw(memory:NVMM),width=1280,height=720" ! nvvidconv'
    )
    assert describe_pipeline(source, PC | {"libcamerasrc"}, CaptureOptions()).startswith("libcamerasrc name=source")
    with pytest.raises(CaptureError, match="a CSI camera needs one of the GStreamer elements"):
        describe_pipeline(source, PC, CaptureOptions())


def test_csi_camera_of_a_jetson_has_a_number():
    with pytest.raises(CaptureError, match="csi://front: NVIDIA's cameras have numbers, not names"):
        describe_pipeline(parse_source("csi://front"), JETSON, CaptureOptions())


def test_libcamera_does_not_count_its_cameras():
    """Its element has no such property: csi://1 would show the first camera."""
    present = PC | {"libcamerasrc"}
    assert "libcamerasrc" in describe_pipeline(parse_source("csi://front"), present, CaptureOptions())
    with pytest.raises(CaptureError, match="csi://1: libcamera's cameras have names"):
        describe_pipeline(parse_source("csi://1"), present, CaptureOptions())


def test_custom_pipeline_is_used_unchanged():
    line = "videotestsrc ! videoconvert ! video/x-raw,format=RGB ! appsink name=sink"
    assert line == describe_pipeline(parse_source(f"gst:{line}"), PC, CaptureOptions())
