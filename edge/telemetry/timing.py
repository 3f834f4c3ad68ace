"""Stage times: of one frame, and of the latest and all frames."""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

ENGINE_STAGES = ("detect", "classify", "localise", "embed")  # time spent inside inference engines
_BOUNDS_MS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, math.inf)


class Timings:
    """Milliseconds by stage, for one frame; a stage that runs several times adds up.

    Frames of one batch share its time equally, so sums over frames are time spent.
    """

    __slots__ = ("stages_ms",)

    def __init__(self) -> None:
        self.stages_ms: dict[str, float] = {}

    def add_share(self, of: Timings, frames: int) -> None:
        """Add one share of the time of a batch of `frames` frames."""
        for name, ms in of.stages_ms.items():
            self.stages_ms[name] = self.stages_ms.get(name, 0.0) + ms / frames

    def stage(self, name: str) -> _Stage:
        """Measure the time inside the `with` block."""
        return _Stage(self.stages_ms, name)

    def rest(self, name: str) -> _Rest:
        """Measure the time inside the `with` block that no other stage takes."""
        return _Rest(self.stages_ms, name)


class _Stage:
    """Adds the time inside its `with` block to a stage; at half the cost of a generator."""

    __slots__ = ("_name", "_stages_ms", "_started_ns")

    def __init__(self, stages_ms: dict[str, float], name: str) -> None:
        self._stages_ms, self._name = stages_ms, name

    def __enter__(self) -> None:
        self._started_ns = time.perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        elapsed_ms = (time.perf_counter_ns() - self._started_ns) / 1e6
        self._stages_ms[self._name] = self._stages_ms.get(self._name, 0.0) + elapsed_ms


class _Rest:
    """Adds the time inside its `with` block to a stage, but for what other stages add meanwhile."""

    __slots__ = ("_before_ms", "_name", "_stages_ms", "_started_ns")

    def __init__(self, stages_ms: dict[str, float], name: str) -> None:
        self._stages_ms, self._name = stages_ms, name

    def __enter__(self) -> None:
        self._before_ms = sum(self._stages_ms.values())
        self._started_ns = time.perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        elapsed_ms = (time.perf_counter_ns() - self._started_ns) / 1e6
        rest_ms = elapsed_ms - (sum(self._stages_ms.values()) - self._before_ms)
        self._stages_ms[self._name] = self._stages_ms.get(self._name, 0.0) + max(0.0, rest_ms)


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Durations of one stage, over its latest runs."""

    count: int  # runs since the start
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class StageHistogram:
    """The histogram of one stage since the start, as Prometheus counts it."""

    cumulative: tuple[tuple[float, int], ...]  # (upper bound in seconds, runs up to it); the last bound is inf
    sum_s: float


class StageTimer:
    """Durations by stage: percentiles of the latest runs, and a histogram of all runs."""

    def __init__(self, window: int = 512) -> None:
        self._window = window
        self._lock = threading.Lock()
        self._latest_ms: dict[str, deque[float]] = {}
        self._buckets: dict[str, list[int]] = {}  # runs by the first bound not below them
        self._sums_ms: dict[str, float] = {}

    def add(self, stages_ms: Mapping[str, float]) -> None:
        """Add the durations of one frame or one event, by stage."""
        with self._lock:
            for stage, elapsed_ms in stages_ms.items():
                self._latest_ms.setdefault(stage, deque(maxlen=self._window)).append(elapsed_ms)
                buckets = self._buckets.setdefault(stage, [0] * len(_BOUNDS_MS))
                buckets[bisect_left(_BOUNDS_MS, elapsed_ms)] += 1
                self._sums_ms[stage] = self._sums_ms.get(stage, 0.0) + elapsed_ms

    def snapshot(self) -> dict[str, StageTimes]:
        """Return the percentiles of every stage."""
        with self._lock:
            latest = {stage: sorted(values) for stage, values in self._latest_ms.items()}
            counts = {stage: sum(buckets) for stage, buckets in self._buckets.items()}
        return {
            stage: StageTimes(counts[stage], *(round(percentile(values, p), 3) for p in (50, 95, 99)))
            for stage, values in latest.items()
        }

    def histograms(self) -> dict[str, StageHistogram]:
        """Return the histogram of every stage."""
        with self._lock:
            cumulative = {stage: list(accumulate(counts)) for stage, counts in self._buckets.items()}
            sums_ms = dict(self._sums_ms)
        bounds_s = [bound / 1e3 for bound in _BOUNDS_MS]
        return {
            stage: StageHistogram(tuple(zip(bounds_s, counts, strict=True)), sums_ms[stage] / 1e3)
            for stage, counts in cumulative.items()
        }


def percentile(ascending: list[float], percent: float) -> float:
    """Return the nearest-rank percentile of sorted, non-empty values."""
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]
