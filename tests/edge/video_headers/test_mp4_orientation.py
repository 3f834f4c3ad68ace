"""Orientation in the header of MP4 files."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.video_headers.mp4_orientation import read_mp4_orientation
from tests.integration.video_files import MATRICES


def box(name, payload=b""):
    return struct.pack(">I4s", 8 + len(payload), name) + payload


def track(matrix, handler=b"vide", version=0):
    a, b, c, d = (round(65536 * number) for number in matrix)
    before = bytes([version]) + bytes(39 if version == 0 else 51)
    header = before + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + bytes(8)
    return box(b"trak", box(b"tkhd", header) + box(b"mdia", box(b"hdlr", bytes(8) + handler + bytes(12))))


def movie(*tracks):
    return box(b"ftyp", b"isom") + box(b"mdat", bytes(100)) + box(b"moov", box(b"mvhd", bytes(100)) + b"".join(tracks))


@pytest.fixture
def orientation_of(tmp_path):
    def read(data):
        (tmp_path / "v.mp4").write_bytes(data)
        return read_mp4_orientation(tmp_path / "v.mp4")

    return read


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation(orientation_of, orientation, version):
    assert orientation_of(movie(track(MATRICES[orientation], version=version))) == orientation


def test_orientation_of_the_video_track_counts(orientation_of):
    sound = track(MATRICES[3], b"soun")
    assert orientation_of(movie(sound, track(MATRICES[6]), track(MATRICES[8]))) == 6
    assert orientation_of(movie(sound)) is None


def test_scaled_and_sheared_matrices(orientation_of):
    assert orientation_of(movie(track((0, 2, -1.5, 0)))) == 6
    assert orientation_of(movie(track((0.7, 0.7, -0.7, 0.7)))) is None
    assert orientation_of(movie(track((0, 0, 0, 0)))) is None


def test_box_with_a_size_of_64_bits(orientation_of):
    large = struct.pack(">I4sQ", 1, b"mdat", 16 + 50) + bytes(50)
    assert orientation_of(large + movie(track(MATRICES[6]))) == 6


def test_other_files_have_none(orientation_of, tmp_path):
    assert orientation_of(b"") is None
    assert orientation_of(b"\0" * 1000) is None
    assert orientation_of(box(b"moov", struct.pack(">I4s", 2**31, b"trak"))) is None
    assert read_mp4_orientation(tmp_path / "missing.mp4") is None
    assert read_mp4_orientation(tmp_path) is None


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.integers(0, 400), st.integers(0, 400), st.binary(max_size=12))
def test_damaged_header_gives_an_orientation_or_none(tmp_path_factory, at, cut, noise):
    data = movie(track(MATRICES[6]))
    harmed = (data[:at] + noise + data[at + len(noise) :])[: len(data) - cut]
    path = tmp_path_factory.getbasetemp() / "harmed.mp4"
    path.write_bytes(harmed)
    assert read_mp4_orientation(path) in {None, *range(1, 9)}
