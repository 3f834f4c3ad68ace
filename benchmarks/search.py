"""Exact int8 search compared with HNSW by gallery size, to set `edge.gallery.search.CROSSOVER_ROWS`.

One query at a time on one thread, with ten results. Recall is against float32 cosines before quantisation. The data are
clustered unit vectors: a tight cluster of a few rows per item, as photos of one product give.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np

from edge.gallery.search import ExactIndex, HnswIndex
from edge.gallery.store import CategoryItems, quantise
from edge.types import FloatArray

RESULT = Path(__file__).parent / "results" / "search.json"
QUERIES, K = 200, 10


def _unit(rows: FloatArray) -> FloatArray:
    unit: FloatArray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _clustered(n: int, dim: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Make n rows around n / 20 centres, and queries near some of the rows."""
    rng = np.random.default_rng(seed)
    centres = _unit(rng.normal(size=(max(1, n // 20), dim)).astype(np.float32))
    noise = rng.normal(size=(n, dim)).astype(np.float32) * (0.5 / np.sqrt(dim))
    rows = _unit(centres[np.arange(n) % len(centres)] + noise)
    near = rng.normal(size=(QUERIES, dim)).astype(np.float32) * (0.3 / np.sqrt(dim))
    return rows, _unit(rows[rng.integers(0, n, QUERIES)] + near)


def _measured(index: ExactIndex | HnswIndex, queries: FloatArray, truth: list[list[str]]) -> tuple[float, float, float]:
    """Return the median latency in microseconds, Recall@1 and Recall@10."""
    found, times = [], []
    for _ in range(3):
        found = []
        for query in queries:
            started = time.perf_counter()
            hits = index.search(query[None], K)[0]
            times.append(time.perf_counter() - started)
            found.append([hit.item_id for hit in hits])
    at_1 = statistics.mean(a[0] == b[0] for a, b in zip(found, truth, strict=True))
    at_10 = statistics.mean(len(set(a) & set(b)) / len(b) for a, b in zip(found, truth, strict=True))
    return statistics.median(times) * 1e6, at_1, at_10


def measure(n: int, dim: int) -> dict[str, float]:
    """Measure both indexes at one size."""
    rows, queries = _clustered(n, dim, seed=n + dim)
    vectors_i8, scales = quantise(rows)
    ids = tuple(str(i) for i in range(n))
    items = CategoryItems(ids, ids, ({},) * n, vectors_i8, scales, np.arange(n, dtype=np.int32), ())
    truth = [[ids[i] for i in np.argsort(-(rows @ query))[:K]] for query in queries]
    row: dict[str, float] = {"rows": n, "dim": dim}
    for name, kind in (("exact", ExactIndex), ("hnsw", HnswIndex)):
        started = time.perf_counter()
        index = kind(items)
        row[f"{name}_build_s"] = round(time.perf_counter() - started, 3)
        latency_us, at_1, at_10 = _measured(index, queries, truth)
        row |= {f"{name}_us": round(latency_us), f"{name}_recall_1": at_1, f"{name}_recall_10": round(at_10, 4)}
    return row


def _machine() -> str:
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} ({platform.machine()})"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def main() -> int:
    """Print the table and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = [100, 1000, 5000, 20_000, 50_000]
    parser.add_argument("--rows", type=int, nargs="+", default=sizes, help="gallery sizes; default: %(default)s")
    parser.add_argument("--dims", type=int, nargs="+", default=[128, 384], help="vector lengths; default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULT, help="report to write; default: %(default)s")
    args = parser.parse_args()
    table = []
    print(f"{'rows':>7} {'dim':>4} | {'exact us':>8} {'R@1':>6} {'R@10':>6} {'build s':>7} |", end="")
    print(f" {'hnsw us':>8} {'R@1':>6} {'R@10':>6} {'build s':>7}")
    for dim in args.dims:
        for n in args.rows:
            row = measure(n, dim)
            table.append(row)
            cells = [
                f"{row[f'{kind}_us']:>8.0f} {row[f'{kind}_recall_1']:>6.3f} {row[f'{kind}_recall_10']:>6.3f} "
                f"{row[f'{kind}_build_s']:>7.2f}"
                for kind in ("exact", "hnsw")
            ]
            print(f"{n:>7} {dim:>4} | {cells[0]} | {cells[1]}", flush=True)
    result = {
        "machine": _machine(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": {name: version(name) for name in ("onnxruntime", "hnswlib", "numpy")},
        "load_average": round(os.getloadavg()[0], 1),  # at the end; well above 1 means that other work was running
        "threads": 1,
        "k": K,
        "table": table,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
