"""Latency of two forms of a network on one thread.

The forms run in turn. The measure is the CPU time of the thread, which equals wall time on an idle machine. On a busy
machine (load 10 on two cores) wall time differed by a third between runs, CPU time by a tenth.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.types import Engine

RUNS = 100
_WARM_UP = 5


def interleaved_ms(
    engines: list[Engine],
    batch: NDArray[np.generic],
    runs: int = RUNS,
    clock_s: Callable[[], float] = time.thread_time,
) -> list[float]:
    """Return the median milliseconds of each engine on one batch.

    Args:
        engines: engines that run in the calling thread.
        batch: input of every engine.
        runs: number of runs of each engine.
        clock_s: CPU seconds of the calling thread.
    """
    for engine in engines:
        for _ in range(_WARM_UP):
            engine.run(batch)
    taken_s = np.zeros((len(engines), runs))
    for run in range(runs):
        for index, engine in enumerate(engines):
            start_s = clock_s()
            engine.run(batch)
            taken_s[index, run] = clock_s() - start_s
    return [float(value) for value in np.median(taken_s, axis=1) * 1000]


def cpu_info() -> str:
    """Return the text of /proc/cpuinfo; empty on systems other than Linux."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def cpu_name() -> str:
    """Return the name of the processor, for tables."""
    names = [
        line.partition(":")[2].strip() for line in cpu_info().splitlines() if line.startswith(("model name", "Model"))
    ]
    return names[0] if names else "unknown CPU"
