"""Counters, stage times, process memory, systemd notifications and the health report."""

from __future__ import annotations

import math
import os
import socket
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Literal

RuntimeState = Literal["starting", "running", "degraded", "stopping"]
GallerySpace = Literal["native", "compatible"]
_Key = tuple[str, tuple[tuple[str, str], ...]]


class Counters:
    """Named counts that only grow; thread-safe.

    Labels tell causes apart: `counters.add("frames_dropped", camera="door", reason="superseded")`. Label values come
    from small closed sets; never a URL, an id or a message, which would leak secrets and grow without bound.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[_Key, int] = {}

    def add(self, name: str, amount: int = 1, /, **labels: str) -> None:
        """Add to a count."""
        key = (name, tuple(sorted(labels.items())))
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + amount

    def total(self, name: str, /, **labels: str) -> int:
        """Return the sum of a name over all label sets that contain these labels."""
        wanted = set(labels.items())
        with self._lock:
            return sum(n for (found, pairs), n in self._counts.items() if found == name and wanted <= set(pairs))

    def items(self) -> list[tuple[str, tuple[tuple[str, str], ...], int]]:
        """Return all counts as name, labels and count."""
        with self._lock:
            return [(name, labels, self._counts[name, labels]) for name, labels in sorted(self._counts)]

    def snapshot(self) -> dict[str, int]:
        """Return all counts, keyed as Prometheus writes them: `frames_dropped{camera="door",reason="superseded"}`."""
        return {_prometheus_key((name, labels)): count for name, labels, count in self.items()}


def _prometheus_key(key: _Key) -> str:
    name, labels = key
    return name + ("{" + ",".join(f'{label}="{value}"' for label, value in labels) + "}" if labels else "")


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


_BOUNDS_MS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, math.inf)


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


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> int | None:
    """Return the resident memory of this process; None where the system does not report it."""
    try:
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def notify_systemd(state: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send a state to systemd: READY=1, WATCHDOG=1, STOPPING=1, STATUS=...

    Returns:
        Whether it was sent; without a service manager (NOTIFY_SOCKET unset) nothing happens.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)  # called by the frame loop, which must not wait
            # a leading @ stands for the zero byte of an abstract address: sd_notify(3)
            channel.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
    except OSError:
        return False
    return True


def watchdog_interval_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return how often to send WATCHDOG=1: half the systemd timeout; None without a watchdog for this process."""
    timeout_us = environment.get("WATCHDOG_USEC", "")
    watched_pid = environment.get("WATCHDOG_PID", str(os.getpid()))
    if not timeout_us.isdecimal() or watched_pid != str(os.getpid()):
        return None
    return int(timeout_us) / 2e6


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The state of one device at one time, as sent on its health topic."""

    site: str
    device: str
    boot_id: str
    at: float  # Unix seconds
    uptime_s: float
    state: RuntimeState
    cameras: Mapping[str, str]  # name -> CameraState
    counters: Mapping[str, int]
    stages: Mapping[str, StageTimes]
    outbox_events: int
    outbox_bytes: int
    mqtt_connected: bool
    mqtt_error: str | None = None  # the latest reason for having no connection; None while connected
    resident_bytes: int | None = None
    temperatures_c: Mapping[str, float] = field(default_factory=dict)  # by sensor, where the kernel reports them
    throttling: bool | None = None  # slowed down to keep cool; None: not reported by the kernel
    versions: Mapping[str, str] = field(default_factory=dict)  # edge, bundle, gallery
    gallery_space: GallerySpace = "native"  # compatible: part of the gallery is not yet embedded by this bundle
    categories_compatible: tuple[str, ...] = ()  # that part
    evidence: Mapping[str, str] = field(default_factory=dict)  # camera name -> reason for its state
    clock_offsets_s: Mapping[str, float] = field(default_factory=dict)  # camera's clock minus ours, where known
    clocks_off: tuple[str, ...] = ()  # cameras whose clock is too far off
    gallery_age_s: float | None = None  # since it was created; None: unknown
    gallery_drift: float | None = None  # of the confidence of answers since its activation, 0..1; None: too few answers
    gallery_stale: tuple[str, ...] = ()  # why it should be renewed
    safe_mode: bool = False  # started with the last good configuration, because the file was invalid
    config_error: str | None = None  # why the file is invalid
