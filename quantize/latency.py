"""How long two forms of a network take on one thread.

They run in turn, and what is counted is the CPU time of that thread, which on an idle machine is the time that passes:
on a busy one (load 10 on two cores) passing time differed by a third between runs, CPU time by a tenth.
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
    """Median milliseconds of each engine on one batch.

    Args:
        engines: that run in the calling thread.
        batch: their input.
        runs: of each.
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
    """What Linux says of the processor; nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def cpu_name() -> str:
    """The processor's name, for tables."""
    names = [
        line.partition(":")[2].strip() for line in cpu_info().splitlines() if line.startswith(("model name", "Model"))
    ]
    return names[0] if names else "unknown CPU"
