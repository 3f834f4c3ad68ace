from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.capture.frame_source import CaptureOptions
from edge.capture.packets import PacketSource
from edge.config.camera_url import parse_source
from edge.diagnostics.camera_probe import format_report, group_of_pictures, longest_gap_s, probe_camera, rate_hz
from edge.errors import CaptureError


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "grey.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for _ in range(30):
        writer.write(np.full((48, 64, 3), 96, np.uint8))
    writer.release()
    return path


def probe_file(address: str, **changes: object):
    return probe_camera(parse_source(address), "opencv", CaptureOptions(), seconds=5.0, **changes)


def test_rate_is_counted_over_the_whole_span():
    arrivals = [0, 10_000_000, 500_000_000, 1_000_000_000]
    assert rate_hz(arrivals) == 3.0
    assert longest_gap_s(arrivals) == 0.5


def test_one_frame_has_no_rate():
    assert rate_hz([7]) is None
    assert longest_gap_s([7]) == 0.0


def test_group_of_pictures_is_the_mean_distance_of_key_frames():
    assert group_of_pictures([True, False, False, True, False, True]) == 2.5
    assert group_of_pictures([False, True, False]) is None


def test_file_reports_codec_size_and_decoder(video: Path):
    report = probe_file(f"file://{video}")
    assert (report.codec, report.width, report.height, report.frames) == ("fmp4", 64, 48, 30)
    assert report.decode_path.startswith("opencv FFmpeg")
    assert report.group_of_pictures == 12  # the default of FFmpeg's encoder
    assert report.rate_hz is None
    assert report.load_cores is None  # a file has no rate of its own


def test_recognition_is_timed_on_the_watched_frames(video: Path):
    shown = []
    report = probe_file(f"file://{video}", recognise=lambda frames: shown.extend(frames) or 4.0)
    assert report.recognise_ms == 4.0
    assert len(shown) == 20
    assert any("4.0 ms recognition" in line for line in format_report(report))


def test_folder_has_no_codec(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 30, 3), np.uint8))
    report = probe_file(f"folder://{tmp_path}")
    assert (report.width, report.height, report.frames, report.codec) == (30, 20, 1, None)


def test_empty_file_is_named(tmp_path: Path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(CaptureError, match=r"empty.mp4: the file is empty"):
        probe_file(f"file://{tmp_path / 'empty.mp4'}")


def test_folder_sends_no_packets():
    with pytest.raises(CaptureError, match="folder sources send no encoded video"):
        PacketSource(parse_source("folder:///tmp"), CaptureOptions())
