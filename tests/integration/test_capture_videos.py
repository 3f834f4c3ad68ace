"""Videos that are not plain: interlaced, turned, stretched, without times, or damaged; by both back ends."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from edge.capture.camera import Camera
from edge.capture.camera_policy import Policy, policy_for
from edge.capture.frame_source import BackendError, CaptureOptions
from edge.capture.latest_frames import LatestFrames
from edge.capture.open_source import SourceOpener, open_source
from edge.config.camera_url import parse_source
from edge.diagnostics.camera_probe import probe_camera
from edge.errors import CaptureError
from tests.integration import video_files
from tests.integration.live_cameras import BACKENDS, StateLog, read_to_end, starting
from tests.integration.rtsp_server import RtspServer
from tests.integration.video_files import moving_bars, write_interlaced, write_with_gstreamer
from tests.waiting import DEADLINE_S

RATE = "framerate=15/1"


def read_all(path, backend="auto"):
    """All pictures of a file."""
    return read_to_end(open_source(parse_source(f"file://{path}"), backend), 300, 0.5)


def steps_of(pictures):
    return [after.pts_s - before.pts_s for before, after in pairwise(pictures)]


def fill_freed_memory(shape):
    """Leave another source's picture in memory that is free again."""
    pictures = [np.random.default_rng(0).integers(0, 255, shape, np.uint8) for _ in range(30)]
    del pictures


def test_interlaced_video_never_leaks_memory_through_opencv(tmp_path):
    path = write_interlaced(tmp_path / "i.mp4")
    for _ in range(5):
        fill_freed_memory((240, 320, 3))
        source = open_source(parse_source(f"file://{path}"), "opencv")
        with pytest.raises(BackendError, match="OpenCV cannot read interlaced video; use backend: gstreamer"):
            source.read(1)
        source.close()


def test_interlaced_video_is_deinterlaced(tmp_path):
    """The bars move by 12 pixels from field to field: woven fields differ from row to row."""
    pictures = read_all(write_interlaced(tmp_path / "i.mp4", frames=20))
    assert len(pictures) == 20
    assert steps_of(pictures) == pytest.approx([1 / 15] * 19, abs=1e-3)
    for picture in pictures[2:]:
        bars = picture.image_rgb[10:120].astype(int)
        assert np.abs(bars[1:] - bars[:-1]).mean() < 2.0
    assert np.abs(pictures[3].image_rgb.astype(int) - pictures[4].image_rgb).mean() > 5  # they do move


@pytest.mark.parametrize("backend", ["opencv", "auto"])
def test_state_of_interlaced_video(tmp_path, backend, caplog):
    """By OpenCV it is unsupported, with a reason; otherwise GStreamer reads every frame."""
    caplog.set_level(logging.INFO)
    source = parse_source(f"file://{write_interlaced(tmp_path / 'i.mp4', frames=10)}")
    latest_frames, states = LatestFrames(), StateLog()
    opener = SourceOpener(source, backend, CaptureOptions())
    policy = policy_for(source, "every_frame")
    camera = Camera("cam", source, opener.open, latest_frames, states.on_state, policy)
    camera.start()
    frames = list(latest_frames.frames())
    if backend == "opencv":
        assert (frames, camera.state) == ([], "unsupported")
        assert "interlaced" in camera.reason
        assert camera.error is not None
    else:
        assert [frame.index for frame in frames] == list(range(10))
        assert any("the video may be interlaced; GStreamer reads it" in record.message for record in caplog.records)


def test_probe_of_interlaced_video_tells_the_truth(tmp_path):
    source = parse_source(f"file://{write_interlaced(tmp_path / 'i.mp4')}")
    with pytest.raises(CaptureError, match="interlaced"):
        probe_camera(source, "opencv", CaptureOptions(), 0.1)
    assert probe_camera(source, "auto", CaptureOptions(), 0.1).decode_path.startswith("gstreamer")


def test_interlaced_camera_beside_another_one(tmp_path):
    """By OpenCV it is unsupported and delivers nothing, above all no picture of the other; GStreamer reads it."""
    path = write_interlaced(tmp_path / "i.mp4", frames=150)
    latest_frames, states, options = LatestFrames(), StateLog(), CaptureOptions(open_timeout_s=5, read_timeout_s=5)
    with (
        RtspServer(f"encoded:{path}") as interlaced,
        RtspServer("colour:e06010") as plain,
        starting(states, options, Policy(first_wait_s=0.2)) as start,
    ):
        start("plain", plain.url, "opencv", latest_frames)
        start("by_opencv", interlaced.url, "opencv", latest_frames)
        start("by_gstreamer", interlaced.url, "auto", latest_frames)
        assert "interlaced" in states.wait_for("by_opencv", "unsupported")
        states.wait_for("by_gstreamer", "online")
        states.wait_for("plain", "online")
        frames = [latest_frames.take(DEADLINE_S) for _ in range(20)]
    assert {frame.camera for frame in frames} <= {"plain", "by_gstreamer"}
    for frame in frames:
        if frame.camera == "by_gstreamer":
            assert frame.image_rgb[10:120].std() > 30  # bars, not one colour


def test_interlaced_video_of_another_codec_never_leaks(tmp_path):
    path = write_with_gstreamer(
        tmp_path / "i.mkv", f"{moving_bars(20)} ! interlace field-pattern=1:1 ! avenc_ffv1 ! matroskamux"
    )
    fill_freed_memory((240, 320, 3))
    with pytest.raises(BackendError, match="interlaced"):
        read_all(path, "opencv")
    assert len(read_all(path)) == 10


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_orientation_is_turned_upright(tmp_path, backend, orientation):
    pictures = read_all(video_files.write_corners(tmp_path / "v.mp4", orientation), backend)
    assert pictures[0].image_rgb.shape == ((120, 160, 3) if orientation < 5 else (160, 120, 3))
    assert video_files.corners_of(pictures[0].image_rgb) == video_files.UPRIGHT[orientation]


@pytest.mark.parametrize(
    ("stored", "aspect", "shown"),
    [
        ((720, 576), "16/11", (1047, 576)),  # PAL, wide
        ((720, 576), "12/11", (785, 576)),
        ((704, 480), "64/45", (1001, 480)),
        ((1440, 1080), "4/3", (1920, 1080)),  # HDV, AVCHD
        ((720, 480), "8/9", (720, 540)),  # NTSC: no column is lost
        ((320, 240), "1/2", (320, 480)),
        ((320, 240), "2/1", (640, 240)),
        ((320, 240), "1/1", (320, 240)),
    ],
)
def test_both_backends_make_pixels_square(tmp_path, stored, aspect, shown):
    caps = f"width={stored[0]},height={stored[1]},{RATE},pixel-aspect-ratio={aspect}"
    path = write_with_gstreamer(tmp_path / "s.mp4", f"{moving_bars(2, caps)} ! x264enc ! h264parse ! mp4mux")
    by_opencv, by_gstreamer = (read_all(path, backend)[0].image_rgb for backend in BACKENDS)
    assert by_opencv.shape == by_gstreamer.shape == (shown[1], shown[0], 3)
    assert np.abs(by_opencv.astype(int) - by_gstreamer).mean() < 4


def test_turned_and_stretched_video(tmp_path):
    caps = f"width=320,height=240,{RATE},pixel-aspect-ratio=2/1"
    path = write_with_gstreamer(tmp_path / "s.mp4", f"{moving_bars(2, caps)} ! x264enc ! h264parse ! mp4mux")
    path.write_bytes(video_files.with_orientation(path.read_bytes(), 6))
    for backend in BACKENDS:
        source = open_source(parse_source(f"file://{path}"), backend)
        assert source.read(5).image_rgb.shape == (640, 240, 3)
        assert source.decode_path.rstrip(")").endswith("turned upright, pixels made square")
        source.close()


def two_sizes(tmp_path):
    parts = []
    for number, size in enumerate(((320, 240), (160, 200))):
        caps = f"width={size[0]},height={size[1]},{RATE}"
        line = f"{moving_bars(20, caps)} ! x264enc bframes=0 ! h264parse config-interval=-1 ! mpegtsmux"
        parts.append(write_with_gstreamer(tmp_path / f"{number}.ts", line).read_bytes())
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    return tmp_path / "both.ts"


def test_size_change_is_read_without_stretching(tmp_path):
    pictures = read_all(two_sizes(tmp_path))
    sizes = [picture.image_rgb.shape[:2] for picture in pictures]
    assert sizes == [(240, 320)] * 20 + [(200, 160)] * 20
    assert all(step > 0 for step in steps_of(pictures))


@pytest.mark.parametrize("backend", BACKENDS)
def test_turned_and_stretched_video_is_scaled_to_a_size(tmp_path, backend):
    turned = video_files.write_corners(tmp_path / "v.mp4", 6)  # 160x120, stored on its side
    caps = f"width=320,height=240,{RATE},pixel-aspect-ratio=2/1"
    stretched = write_with_gstreamer(tmp_path / "s.mp4", f"{moving_bars(2, caps)} ! x264enc ! h264parse ! mp4mux")
    for path, max_px, shape in (
        (turned, 80, (80, 60, 3)),
        (turned, 400, (160, 120, 3)),
        (stretched, 320, (120, 320, 3)),
    ):
        source = open_source(parse_source(f"file://{path}"), backend, CaptureOptions(max_px=max_px))
        image_rgb = source.read(5).image_rgb
        source.close()
        assert image_rgb.shape == shape
        if path == turned:
            assert video_files.corners_of(image_rgb) == video_files.UPRIGHT[6]


def test_size_change_in_a_scaled_stream(tmp_path):
    path = two_sizes(tmp_path)
    for backend in ("auto", "gstreamer"):
        pictures = read_to_end(
            open_source(parse_source(f"file://{path}"), backend, CaptureOptions(max_px=128)), 300, 0.5
        )
        assert [one.image_rgb.shape[:2] for one in pictures] == [(96, 128)] * 20 + [(128, 102)] * 20


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("rate", "said"), [("15/1", 15), ("30000/1001", 29.97)])
def test_raw_stream_is_paced_by_the_rate_it_says(tmp_path, backend, rate, said):
    caps = f"width=160,height=120,framerate={rate}"
    line = f"{moving_bars(20, caps)} ! x264enc bframes=0 ! video/x-h264,stream-format=byte-stream"
    pictures = read_all(write_with_gstreamer(tmp_path / "raw.h264", line), backend)
    assert len(pictures) == 20
    assert steps_of(pictures) == pytest.approx([1 / said] * 19, rel=0.01)


def test_raw_stream_without_a_rate_is_paced_at_25_hz(tmp_path):
    caps = "width=160,height=120,framerate=15/1"
    path = write_with_gstreamer(tmp_path / "raw.mjpeg", f"{moving_bars(60, caps)} ! jpegenc")
    pictures = read_all(path, "opencv")
    assert len(pictures) == 60
    assert steps_of(pictures) == pytest.approx([1 / 25] * 59, rel=0.01)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("pixel_format", "size", "to"),
    [
        ("I420", (321, 243), "avenc_ffv1 ! matroskamux"),
        ("Y42B", (320, 240), "x264enc ! h264parse ! mp4mux"),
        ("Y444", (320, 240), "x264enc ! h264parse ! mp4mux"),
        ("I420_10LE", (320, 240), "x264enc ! h264parse ! mp4mux"),
        ("GRAY8", (320, 240), "avenc_ffv1 ! matroskamux"),
        ("GRAY16_LE", (320, 240), "avenc_ffv1 ! matroskamux"),
        ("BGRA", (320, 240), "avenc_ffv1 ! matroskamux"),
        ("RGBA", (322, 240), "pngenc ! qtmux"),
        ("YUY2", (320, 240), "avimux"),
    ],
)
def test_every_pixel_format_becomes_rgb(tmp_path, backend, pixel_format, size, to):
    caps = f"width={size[0]},height={size[1]},{RATE}"
    path = write_with_gstreamer(tmp_path / "v.bin", f"{moving_bars(3, caps, pixel_format)} ! {to}")
    pictures = read_all(path, backend)
    assert len(pictures) == 3
    assert {picture.image_rgb.shape for picture in pictures} == {(size[1], size[0], 3)}
    assert {picture.image_rgb.dtype for picture in pictures} == {np.dtype(np.uint8)}
    bar = pictures[0].image_rgb[20, 4].astype(int)  # the first bar is grey, 75 %
    assert np.abs(bar - 190).max() < 20


def test_video_that_crashes_opencv_is_read_by_gstreamer(tmp_path):
    """Uncompressed 24-bit AVI files store their rows from the bottom up."""
    caps = f"width=322,height=240,{RATE}"
    path = write_with_gstreamer(tmp_path / "v.avi", f"{moving_bars(3, caps, 'BGR')} ! avimux")
    code = "import sys; from tests.integration.test_capture_videos import read_all; print(len(read_all(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", code, path], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
    with pytest.raises(BackendError, match="uncompressed 24-bit"):
        read_all(path, "opencv")


@pytest.mark.parametrize("backend", BACKENDS)
def test_file_without_video_has_one_clear_error(tmp_path, backend):
    path = write_with_gstreamer(tmp_path / "a.mp4", "audiotestsrc num-buffers=20 ! avenc_aac ! mp4mux")
    with pytest.raises(CaptureError, match=r"a\.mp4: (it holds no video|FFmpeg cannot read this file .* as a video)"):
        read_all(path, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("harm", ["starts late", "cut off", "wrong bytes"])
def test_damaged_stream_gives_only_its_own_pictures(tmp_path, backend, harm):
    """Every picture that comes is one of the bars, not memory and not a grey field."""
    caps = f"width=320,height=240,{RATE}"
    line = f"{moving_bars(60, caps)} ! x264enc key-int-max=20 bframes=0 ! h264parse config-interval=-1 ! mpegtsmux"
    whole = write_with_gstreamer(tmp_path / "v.ts", line).read_bytes()
    packets = len(whole) // 188
    if harm == "starts late":
        harmed = whole[188 * (packets // 4) :]
    elif harm == "cut off":
        harmed = whole[: 188 * (packets // 2) + 77]
    else:
        chance, copy = random.Random(3), bytearray(whole)
        for _ in range(40):
            copy[chance.randrange(188 * 20, len(copy))] ^= 1 << chance.randrange(8)
        harmed = bytes(copy)
    (tmp_path / "harmed.ts").write_bytes(harmed)
    fill_freed_memory((240, 320, 3))
    pictures = read_all(tmp_path / "harmed.ts", backend)
    assert 15 <= len(pictures) <= 60
    rows = [picture.image_rgb[20:130].astype(int) for picture in pictures]
    plain = [np.abs(picture - 128).mean() < 10 for picture in rows]
    assert not any(plain)
