"""What one and two threads of numpy take for the small products of a device: whitening, and exact search.

    python benchmarks/numpy_threads.py

A process for each number of threads, since OpenBLAS reads it when numpy is loaded; the processes take turns, three
times each. Whitening multiplies a few vectors with a square matrix; search is that of `benchmarks/search.py`, one query
of 256 numbers at a time. Milliseconds of the clock and of the processor (of all threads), least and median of all
repeats. Adds the load of the machine. Writes benchmarks/results/numpy_threads.json.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.results_file import write_results  # noqa: E402

RESULT = ROOT / "benchmarks/results/numpy_threads.json"
THREADS = (1, 2)
VECTORS, DIMS = 4, (192, 384, 1280)
ROWS = (5000, 20_000)
ROUNDS, REPEATS = 3, 30
Times = list[tuple[float, float]]  # milliseconds of the clock and of the processor


def main() -> None:
    """Measure in processes of their own, and write the results."""
    if sys.argv[1:] == ["--here"]:
        print(json.dumps(measured()))
        return
    found: dict[str, dict[int, Times]] = defaultdict(lambda: defaultdict(list))
    for _ in range(ROUNDS):
        for threads in THREADS:
            environment = os.environ | {"OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
            command = [sys.executable, str(Path(__file__).resolve()), "--here"]
            said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
            for name, times in json.loads(said).items():
                found[name][threads] += times
    from benchmarks.grocery import machine

    rows = {
        name: {f"{n} thread{'s' * (n > 1)}": summary(times) for n, times in both.items()}
        for name, both in found.items()
    }
    about = {"date": date.today().isoformat(), "machine": machine(), "numpy": np.__version__}  # noqa: DTZ011
    tree = about | {"load_average": os.getloadavg()[0], "rounds": ROUNDS, "repeats": REPEATS, "milliseconds": rows}
    print(json.dumps(rows, indent=1))
    write_results(RESULT, tree)


def measured() -> dict[str, Times]:
    """Return the times of each product and search with this process's threads."""
    from benchmarks.search import Data, ours

    rng = np.random.default_rng(0)
    found: dict[str, Times] = {}
    for dim in DIMS:
        vectors, matrix = (rng.normal(size=(n, dim)).astype(np.float32) for n in (VECTORS, dim))
        found[f"{VECTORS} vectors of {dim} numbers"] = timed(lambda a=vectors, b=matrix: a @ b)  # type: ignore[misc]
    for rows in ROWS:
        data = Data(rows)
        search, query = ours(data, "exact"), data.queries["known"][0]
        found[f"exact search of {rows} rows"] = timed(lambda s=search, q=query: s(q))  # type: ignore[misc]
    return found


def timed(once: Callable[[], Any]) -> Times:
    """Return the times of repeats, after one that is not counted."""
    once()
    times = []
    for _ in range(REPEATS):
        clock, processor = time.perf_counter(), time.process_time()
        once()
        times.append((1e3 * (time.perf_counter() - clock), 1e3 * (time.process_time() - processor)))
    return times


def summary(times: Times) -> dict[str, list[float]]:
    """Return least and median of the clock and of the processor."""
    clock, processor = zip(*times, strict=True)
    return {
        "clock": [min(clock), statistics.median(clock)],
        "processor": [min(processor), statistics.median(processor)],
    }


if __name__ == "__main__":
    main()
