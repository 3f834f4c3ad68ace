import threading
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from edge.capture.recorder import Recorder, begin_run, segments
from edge.capture.recording import Packet, Recognised, Stream, StreamLost, read_records
from edge.telemetry.counters import Counters
from edge.types import Frame

CAPS = "video/x-h264"


def packet(number: int, *, key: bool = False, size: int = 10) -> Packet:
    return Packet(number * 100, number, key, bytes([number % 256]) * size)


def read(path: Path) -> list:
    with path.open("rb") as file:
        return list(read_records(file, str(path)))


def record(folder: Path, packets: list[Packet], *, max_bytes: int = 8 * 65536) -> Counters:
    counters = Counters()
    recorder = Recorder(folder, "door", max_bytes, counters)
    recorder.start()
    for one in packets:
        recorder.put(CAPS, one)
    recorder.close()
    return counters


def test_every_segment_starts_with_a_stream_and_a_key_packet(tmp_path: Path):
    record(tmp_path, [packet(i, key=i % 5 == 0, size=20_000) for i in range(20)])
    files = segments(tmp_path)
    assert len(files) > 1
    for path in files:
        first, second, *_ = read(path)
        assert first == Stream("door", CAPS)
        assert second.key


def test_ring_stays_within_max_bytes_and_keeps_the_newest(tmp_path: Path):
    record(tmp_path, [packet(i, key=True, size=30_000) for i in range(100)])
    files = segments(tmp_path)
    assert len(files) == 8
    assert sum(path.stat().st_size for path in files) < 8 * (65536 + 30_500)
    assert read(files[-1])[-1] == packet(99, key=True, size=30_000)


def test_reconnect_writes_the_stream_record_again(tmp_path: Path):
    recorder = Recorder(tmp_path, "door", 2**20, Counters())
    recorder.start()
    for _ in range(2):
        recorder.connected()
        recorder.put(CAPS, packet(0, key=True))
    recorder.close()
    assert [type(one).__name__ for one in read(segments(tmp_path)[0])] == ["Stream", "Packet"] * 2


def test_recognised_pictures_are_recorded_with_their_times(tmp_path: Path):
    recorder = Recorder(tmp_path, "door", 2**20, Counters())
    recorder.start()
    recorder.put(CAPS, packet(0, key=True))
    recorder.recognised(Frame("door", 7, np.zeros((2, 2, 3), np.uint8), 1234, 99.5, "arrival", 0.25))
    recorder.stream_lost()
    recorder.close()
    assert read(segments(tmp_path)[0])[2:] == [Recognised(250_000_000, 7, 1234, 99.5, "arrival"), StreamLost()]


def test_full_queue_drops_packets_up_to_the_next_key_and_counts(tmp_path: Path):
    counters = Counters()
    recorder = Recorder(tmp_path, "door", 2**20, counters)  # the writer is not started yet
    for number in range(300):
        recorder.put(CAPS, packet(number, key=number == 0))
    assert counters.total("records_dropped", camera="door") == 300 + 1 - 256
    recorder.start()
    recorder.close()
    recorded = [one for one in read(segments(tmp_path)[0]) if isinstance(one, Packet)]
    assert [one.arrived_ns for one in recorded] == list(range(255))


def test_failing_disk_stops_the_recording_and_is_counted(tmp_path: Path):
    (tmp_path / "file").touch()
    counters = record(tmp_path / "file", [packet(0, key=True), packet(1)])
    assert counters.total("recordings_failed", camera="door") == 1
    assert counters.total("records_dropped", camera="door") == 2


def test_only_the_last_earlier_run_is_kept(tmp_path: Path):
    for day in (1, 2, 3):
        begin_run(tmp_path, datetime(2026, 1, day, tzinfo=timezone.utc)).mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["20260102T000000Z", "20260103T000000Z"]


def test_bug_in_the_writer_is_counted_and_the_ring_goes_on(tmp_path: Path, monkeypatch):
    """In a new segment, which starts with a stream record like every one."""
    counters, written = Counters(), threading.Event()
    recorder = Recorder(tmp_path, "door", 2**20, counters)
    recorder._thread._wait = lambda _s: False  # the back-off
    write = recorder._write

    def failing(one, stream):
        if isinstance(one, Packet) and one.pts_ns == 100:
            raise ValueError("bug")
        write(one, stream)
        if isinstance(one, Packet) and one.pts_ns == 200:
            written.set()

    monkeypatch.setattr(recorder, "_write", failing)
    recorder.start()
    for number in range(3):
        recorder.put(CAPS, packet(number, key=True))
    assert written.wait(60)
    recorder.close()
    assert counters.snapshot()['thread_restarts{thread="record-door"}'] == 1
    assert read(segments(tmp_path)[-1]) == [Stream("door", CAPS), packet(2, key=True)]
