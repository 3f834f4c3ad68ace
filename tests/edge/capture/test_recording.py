"""The file format of recorded video."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.capture.recording import Packet, Recognised, Record, Stream, StreamLost, encode_record, read_records
from edge.errors import CaptureError

CAPS = "video/x-h264"


def packet(number: int, *, key: bool = False) -> Packet:
    return Packet(number * 100, number, key, bytes([number % 256]) * 10)


def read(data: bytes) -> list[Record]:
    return list(read_records(io.BytesIO(data), "x"))


def test_records_survive_a_round_trip():
    records = [Stream("door", CAPS), packet(1, key=True), Recognised(100, 3, 17, 1.5, "rtcp"), StreamLost(), packet(2)]
    assert read(b"".join(map(encode_record, records))) == records


def test_line_feed_in_a_packet_is_data():
    tricky = Packet(0, 0, True, b'\n{"kind": "lost"}\n')
    data = encode_record(tricky) + encode_record(StreamLost())
    assert read(data) == [tricky, StreamLost()]


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_last_record_truncated_by_a_power_cut_is_ignored(cut: int):
    data = encode_record(Stream("door", CAPS)) + encode_record(packet(1, key=True))
    assert read(data[:-cut]) == [Stream("door", CAPS)]


def test_error_names_a_file_that_is_no_segment():
    with pytest.raises(CaptureError, match=r"x\.ring: b'hello"):
        list(read_records(io.BytesIO(b"hello\n"), "x.ring"))


TIMES = st.integers(0, 2**63)
RECORDS = st.one_of(
    st.builds(Stream, st.text(max_size=8), st.text(max_size=20)),
    st.builds(Packet, TIMES, TIMES, st.booleans(), st.binary(max_size=40)),
    st.builds(Recognised, TIMES, TIMES, TIMES, st.floats(0, 1e12), st.sampled_from(["rtcp", "arrival", "file"])),
    st.just(StreamLost()),
)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(RECORDS, max_size=6))
def test_any_records_survive_a_round_trip(records):
    assert read(b"".join(map(encode_record, records))) == records


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=4), st.data())
def test_any_truncated_segment_gives_its_whole_records(records, data):
    encoded = b"".join(map(encode_record, records))
    cut = data.draw(st.integers(0, len(encoded) - 1))
    found = read(encoded[:cut])
    assert found == records[: len(found)]
    assert len(found) < len(records)


VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.lists(st.integers(), max_size=2)
)
KEYS = st.sampled_from(["kind", "bytes", "pts_ns", "arrived_ns", "key", "camera", "caps", "x"])
OBJECTS = st.dictionaries(KEYS, VALUES | st.sampled_from(["stream", "packet", "looked", "lost"]), max_size=6)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    st.lists(st.binary(max_size=12) | (VALUES | OBJECTS).map(lambda one: json.dumps(one).encode() + b"\n"), max_size=4)
)
def test_any_bytes_give_records_or_a_capture_error(lines):
    with contextlib.suppress(CaptureError):
        assert all(isinstance(record, Record) for record in read(b"".join(lines)))


@pytest.mark.parametrize("size", [-5, 2**28 + 1, 10**30, None, "5", 1.5, []])
def test_packet_of_impossible_size_is_a_capture_error(size):
    line = json.dumps({"kind": "packet", "pts_ns": 0, "arrived_ns": 0, "key": True, "bytes": size}).encode() + b"\n"
    with pytest.raises(CaptureError, match="is not a record of a recording"):
        read(line + b"12345\n")


def test_deeply_nested_json_is_a_capture_error():
    with pytest.raises(CaptureError, match="is not a record of a recording"):
        read(b"[" * 100_000 + b"\n")
