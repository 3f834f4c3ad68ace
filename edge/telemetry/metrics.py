"""What the runtime counts and measures about itself."""

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
    """Named counts that only grow, from any thread.

    Labels keep a name's causes apart: `counters.add("frames_dropped", camera="door", reason="superseded")`. Their
    values come from small closed sets; never a URL, an id or a message, which would leak secrets and grow for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[_Key, int] = {}

    def add(self, name: str, amount: int = 1, /, **labels: str) -> None:
        """Count something that happened."""
        key = (name, tuple(sorted(labels.items())))
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + amount

    def total(self, name: str, /, **labels: str) -> int:
        """The count of a name, over all label sets that contain these labels."""
        wanted = set(labels.items())
        with self._lock:
            return sum(n for (found, having), n in self._counts.items() if found == name and wanted <= set(having))

    def items(self) -> list[tuple[str, tuple[tuple[str, str], ...], int]]:
        """All counts: name, labels, count."""
        with self._lock:
            return [(name, labels, self._counts[name, labels]) for name, labels in sorted(self._counts)]

    def snapshot(self) -> dict[str, int]:
        """All counts, keyed as Prometheus writes them: `frames_dropped{camera="door",reason="superseded"}`."""
        return {_written((name, labels)): count for name, labels, count in self.items()}


def _written(key: _Key) -> str:
    name, labels = key
    return name + ("{" + ",".join(f'{label}="{value}"' for label, value in labels) + "}" if labels else "")


@dataclass(frozen=True, slots=True)
class StageTimes:
    """How long one stage took, over its latest runs."""

    count: int  # runs since the start
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class StageHistogram:
    """All runs of one stage since the start, as Prometheus counts them."""

    cumulative: tuple[tuple[float, int], ...]  # (upper bound in seconds, runs that took at most that); inf is the last
    sum_s: float


_BOUNDS_MS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, math.inf)


class StageTimer:
    """Durations of each stage: percentiles of the latest runs, which speak of now, and counts of all runs."""

    def __init__(self, window: int = 512) -> None:
        self._window = window
        self._lock = threading.Lock()
        self._latest_ms: dict[str, deque[float]] = {}
        self._within: dict[str, list[int]] = {}  # runs by the first bound that holds them
        self._sums_ms: dict[str, float] = {}

    def add(self, stages_ms: Mapping[str, float]) -> None:
        """Take in the durations of one frame or one event, by stage."""
        with self._lock:
            for stage, elapsed_ms in stages_ms.items():
                self._latest_ms.setdefault(stage, deque(maxlen=self._window)).append(elapsed_ms)
                within = self._within.setdefault(stage, [0] * len(_BOUNDS_MS))
                within[bisect_left(_BOUNDS_MS, elapsed_ms)] += 1
                self._sums_ms[stage] = self._sums_ms.get(stage, 0.0) + elapsed_ms

    def snapshot(self) -> dict[str, StageTimes]:
        """The percentiles of every stage."""
        with self._lock:
            latest = {stage: sorted(values) for stage, values in self._latest_ms.items()}
            counts = {stage: sum(within) for stage, within in self._within.items()}
        return {
            stage: StageTimes(counts[stage], *(round(percentile(values, p), 3) for p in (50, 95, 99)))
            for stage, values in latest.items()
        }

    def histograms(self) -> dict[str, StageHistogram]:
        """The counts of every stage."""
        with self._lock:
            within = {stage: list(accumulate(counts)) for stage, counts in self._within.items()}
            sums_ms = dict(self._sums_ms)
        bounds_s = [bound / 1e3 for bound in _BOUNDS_MS]
        return {
            stage: StageHistogram(tuple(zip(bounds_s, counts, strict=True)), sums_ms[stage] / 1e3)
            for stage, counts in within.items()
        }


def percentile(ascending: list[float], percent: float) -> float:
    """The nearest-rank percentile of values that are sorted and not empty."""
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> int | None:
    """The memory this process occupies; None where the system does not tell."""
    try:
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def notify_systemd(state: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell systemd about this process: READY=1, WATCHDOG=1, STOPPING=1, STATUS=...

    Returns:
        Whether a service manager listened; without one (NOTIFY_SOCKET unset) nothing happens.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)  # the frame loop pings: it must not wait for the service manager
            # a leading @ stands for the zero byte of an abstract address: sd_notify(3)
            channel.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
    except OSError:
        return False
    return True


def watchdog_interval_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """How often to send WATCHDOG=1, half of what systemd allows; None when it does not watch this process."""
    allowed_us = environment.get("WATCHDOG_USEC", "")
    watched_pid = environment.get("WATCHDOG_PID", str(os.getpid()))
    if not allowed_us.isdecimal() or watched_pid != str(os.getpid()):
        return None
    return int(allowed_us) / 2e6


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The state of one device at one moment, as sent on its health topic."""

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
    mqtt_error: str | None = None  # the latest reason for having no connection
    resident_bytes: int | None = None
    temperatures_c: Mapping[str, float] = field(default_factory=dict)  # by sensor, where the kernel tells
    throttling: bool | None = None  # slowed down to keep cool; None: the kernel does not tell
    versions: Mapping[str, str] = field(default_factory=dict)  # edge, bundle, gallery
    gallery_space: GallerySpace = "native"  # compatible: part of the gallery waits to be embedded by this bundle
    categories_compatible: tuple[str, ...] = ()  # that part
    evidence: Mapping[str, str] = field(default_factory=dict)  # name of a camera -> why its state is what it is
    clock_offsets_s: Mapping[str, float] = field(default_factory=dict)  # camera's clock minus ours, where it tells
    clocks_off: tuple[str, ...] = ()  # cameras for which that is too much
    gallery_age_s: float | None = None  # since it was made; None: nobody knows
    gallery_drift: float | None = None  # of the surety of answers since it began to serve, 0..1; None: too few yet
    gallery_stale: tuple[str, ...] = ()  # why it is to be renewed
    safe_mode: bool = False  # started by the configuration that last ran well: the file was bad
    config_error: str | None = None  # why the file cannot be used
