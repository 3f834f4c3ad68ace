from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.capture.frame_source import CaptureOptions
from edge.capture.packets import PacketSource
from edge.config.camera_url import parse_source
from edge.diagnostics.camera_probe import describe, group_of_pictures, longest_gap_s, probe, rate_hz
from edge.errors import CaptureError


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "grey.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for _ in range(30):
        writer.write(np.full((48, 64, 3), 96, np.uint8))
    writer.release()
    return path


def look(address: str, **changes: object):
    return probe(parse_source(address), "opencv", CaptureOptions(), seconds=5.0, **changes)


def test_rate_is_counted_over_the_span_not_averaged_over_gaps():
    arrivals = [0, 10_000_000, 500_000_000, 1_000_000_000]
    assert rate_hz(arrivals) == 3.0
    assert longest_gap_s(arrivals) == 0.5


def test_one_picture_has_no_rate():
    assert rate_hz([7]) is None
    assert longest_gap_s([7]) == 0.0


def test_group_of_pictures_is_the_mean_distance_of_key_frames():
    assert group_of_pictures([True, False, False, True, False, True]) == 2.5
    assert group_of_pictures([False, True, False]) is None


def test_a_file_tells_its_codec_size_and_decoder(video: Path):
    seen = look(f"file://{video}")
    assert (seen.codec, seen.width, seen.height, seen.pictures) == ("fmp4", 64, 48, 30)
    assert seen.decode_path.startswith("opencv FFmpeg")
    assert seen.group_of_pictures == 12  # what FFmpeg's encoder uses
    assert seen.rate_hz is None
    assert seen.load_cores is None  # a file has no rate of its own


def test_recognition_is_timed_on_the_pictures_that_were_seen(video: Path):
    shown = []
    seen = look(f"file://{video}", recognise=lambda pictures: shown.extend(pictures) or 4.0)
    assert seen.recognise_ms == 4.0
    assert len(shown) == 20
    assert any("4.0 ms recognition" in line for line in describe(seen))


def test_a_folder_is_probed_without_a_codec(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 30, 3), np.uint8))
    seen = look(f"folder://{tmp_path}")
    assert (seen.width, seen.height, seen.pictures, seen.codec) == (30, 20, 1, None)


def test_an_empty_file_is_named(tmp_path: Path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(CaptureError, match=r"empty.mp4: found 0 bytes, expected a video"):
        look(f"file://{tmp_path / 'empty.mp4'}")


def test_packets_of_a_folder_are_refused():
    with pytest.raises(CaptureError, match="found a folder source, expected one that sends encoded video"):
        PacketSource(parse_source("folder:///tmp"), CaptureOptions())
