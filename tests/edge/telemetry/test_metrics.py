from __future__ import annotations

import os
import socket
import threading

import pytest

from edge.telemetry.metrics import Counters, StageTimer, notify_systemd, percentile, resident_bytes, watchdog_interval_s


def test_labels_distinguish_causes():
    counters = Counters()
    counters.add("frames_dropped", camera="door", reason="superseded")
    counters.add("frames_dropped", 2, reason="stale", camera="door")
    counters.add("frames")
    assert counters.snapshot() == {
        "frames": 1,
        'frames_dropped{camera="door",reason="stale"}': 2,
        'frames_dropped{camera="door",reason="superseded"}': 1,
    }
    assert counters.total("frames_dropped", camera="door") == 3
    assert counters.total("frames_dropped", reason="stale") == 2
    assert counters.total("never") == 0


def test_counters_are_thread_safe():
    counters = Counters()

    def count():
        for _ in range(2000):
            counters.add("frames", camera="door")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.total("frames") == 8000


def test_percentiles_are_nearest_rank():
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, p) for p in (50, 95, 99, 100)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([7.0], 50) == 7.0


def test_percentiles_cover_only_the_latest_runs():
    timer = StageTimer(window=10)
    for elapsed_ms in [1000.0] * 50 + [1.0] * 10:
        timer.add({"detect": elapsed_ms})
    times = timer.snapshot()["detect"]
    assert (times.count, times.p50_ms, times.p99_ms) == (60, 1.0, 1.0)


def test_timer_without_runs_is_empty():
    assert StageTimer().snapshot() == {}


def test_resident_memory_is_read(tmp_path):
    assert resident_bytes() > 1_000_000
    assert resident_bytes(tmp_path / "missing") is None


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_notified(tmp_path, abstract):
    address = f"@finesight-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:] if abstract else address)
        assert notify_systemd("READY=1", {"NOTIFY_SOCKET": address})
        assert manager.recv(100) == b"READY=1"


def test_without_systemd_nothing_is_sent(tmp_path):
    assert not notify_systemd("READY=1", {})
    assert not notify_systemd("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})


def test_watchdog_interval_is_half_the_timeout():
    assert watchdog_interval_s({"WATCHDOG_USEC": "30000000"}) == 15.0
    assert watchdog_interval_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_interval_s({}) is None
