from __future__ import annotations

from edge.telemetry.timing import StageTimer, percentile


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
