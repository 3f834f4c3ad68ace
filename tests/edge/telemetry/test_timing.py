from __future__ import annotations

import pytest

from edge.telemetry.timing import StageTimer, Timings, percentile


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


def test_rest_is_the_time_that_no_other_stage_takes(monkeypatch):
    now_ms = [0.0]
    monkeypatch.setattr("edge.telemetry.timing.time.perf_counter_ns", lambda: round(now_ms[0] * 1e6))
    timings = Timings()

    def spend(stage, ms):
        with timings.stage(stage):
            now_ms[0] += ms

    spend("embed", 5.0)
    with timings.rest("fuse"):
        now_ms[0] += 1.0
        spend("embed", 2.0)
        now_ms[0] += 0.5
        spend("search", 3.0)
    assert timings.stages_ms == pytest.approx({"embed": 7.0, "fuse": 1.5, "search": 3.0})
    assert sum(timings.stages_ms.values()) == pytest.approx(now_ms[0])


def test_stage_that_fails_is_measured(monkeypatch):
    monkeypatch.setattr("edge.telemetry.timing.time.perf_counter_ns", iter([0, 2_000_000]).__next__)
    timings = Timings()
    with pytest.raises(ValueError, match="broken"), timings.stage("detect"):
        raise ValueError("broken")
    assert timings.stages_ms == {"detect": 2.0}
