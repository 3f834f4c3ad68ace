"""Search of large galleries: ours beside hnswlib, faiss-cpu and usearch, and beside ours of an earlier commit.

One query at a time on one thread, five results. Every method gets the same int8 rows (faiss, hnswlib and usearch as
unit vectors in float32), and its hits are scored as ours are. The rows have the structure of a catalogue: families of
200 rows, items of five pictures. There are three kinds of queries: *known*, another picture of an item; *similar*, an
item of a family that is not in the gallery; *unlike*, random vectors. Recall is against exact cosines of the stored
rows. A peer runs with the least effort of those tried that finds the best item of 99 % of known and similar queries.

The times are CPU time of the searching thread: medians of rounds in which the methods take turns. Peers are installed
beside the project, never into it:

    pip install --no-deps --no-binary hnswlib --target /tmp/peers faiss-cpu hnswlib usearch numkong
    python benchmarks/search.py --peers /tmp/peers --before ../finesight-before
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).parent / "results" / "search.json"
DIM, K, ROUNDS = 256, 5, 5
QUERIES = 100  # of each kind
ROWS_OF_ITEM, ROWS_OF_FAMILY = 5, 200
CHUNK = 50_000
SLOW_ROWS = 200_000  # from so many on, exact methods answer few queries, and graphs that take minutes are left out
PEERS = ("faiss-flat", "faiss-ivf-sq8", "faiss-hnsw-sq8", "hnswlib", "usearch-i8")
Search = Callable[[np.ndarray], list[tuple[int, float]]]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Data:
    """A catalogue and queries, made in chunks from a seed: the same in every process."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(count)

        def noise(n: int, length: float) -> np.ndarray:
            return rng.normal(size=(n, DIM)).astype(np.float32) * np.float32(length / np.sqrt(DIM))

        families, items = unit(noise(max(2, count // ROWS_OF_FAMILY), 1)), count // ROWS_OF_ITEM
        centres = unit(families[rng.integers(0, len(families), items)] + noise(items, 0.9))
        self.item_of = np.repeat(np.arange(items, dtype=np.int32), ROWS_OF_ITEM)
        self.rows = np.empty((len(self.item_of), DIM), np.int8)
        for start in range(0, len(self.rows), CHUNK):
            part = self.item_of[start : start + CHUNK]
            rows = unit(centres[part] + noise(len(part), 0.5))
            self.rows[start : start + CHUNK] = np.rint(rows / (np.abs(rows).max(axis=1, keepdims=True) / 127))
        self.queries = {
            "known": unit(centres[rng.integers(0, items, QUERIES)] + noise(QUERIES, 0.7)),
            "similar": unit(families[rng.integers(0, len(families), QUERIES)] + noise(QUERIES, 0.9)),
            "unlike": unit(noise(QUERIES, 1)),
        }

    def floats(self) -> Iterator[np.ndarray]:
        """Yield the rows as unit vectors, some thousand at a time."""
        for start in range(0, len(self.rows), CHUNK):
            yield unit(self.rows[start : start + CHUNK].astype(np.float32))

    def best_scores(self) -> dict[str, np.ndarray]:
        """Return the scores of the K nearest items of each query, (queries, K), by kind."""
        best = {kind: np.full((QUERIES, K), -2.0, np.float32) for kind in self.queries}
        for rows in self.floats():
            for kind, queries in self.queries.items():
                scores = (queries @ rows.T).reshape(QUERIES, -1, ROWS_OF_ITEM).max(axis=2)
                best[kind] = -np.sort(-np.concatenate([best[kind], scores], axis=1), axis=1)[:, :K]
        return best


def ours(data: Data, kind: str) -> Search:
    """Build an index of this checkout: exact, or with lists."""
    from edge.gallery import search
    from edge.gallery.store import CategoryItems
    from edge.gallery.texts import Texts

    search.LISTS_FROM = 0  # here also where a device would read all rows
    ids = Texts.of(map(str, range(int(data.item_of[-1]) + 1)))
    scales = np.ones(len(data.rows), np.float32)
    index = search.build_index(
        CategoryItems(ids, ids, np.zeros(len(ids), np.bool_), data.rows, scales, data.item_of, heads=())
    )
    if kind == "lists":
        index.build_lists()
    return lambda query: [(int(hit.item_id), hit.score) for hit in index.search(query[None], K)[0]]


def before(data: Data, _kind: str) -> Search:
    """Build the index that an earlier commit chooses; its folder is first on the path."""
    from edge.gallery.search import build_index
    from edge.gallery.store import CategoryItems

    ids = tuple(map(str, range(int(data.item_of[-1]) + 1)))
    scales = np.ones(len(data.rows), np.float32)
    index = build_index(CategoryItems(ids, ids, ({},) * len(ids), data.rows, scales, data.item_of, ()))
    return lambda query: [(int(hit.item_id), hit.score) for hit in index.search(query[None], K)[0]]


def by_item(data: Data, query: np.ndarray, rows: np.ndarray) -> list[tuple[int, float]]:
    """Score the rows that a peer found as ours are, and return each item once."""
    found = np.asarray(rows).reshape(-1)
    found = found[found >= 0].astype(np.int64)
    vectors = data.rows[found].astype(np.float32)
    scores = (vectors @ query) / np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    best: dict[int, float] = {}
    for at in np.argsort(-scores).tolist():
        best.setdefault(int(data.item_of[found[at]]), float(scores[at]))
    return list(best.items())[:K]


def faiss_index(data: Data, kind: str) -> tuple[Any, str, list[int]]:
    """Build an index of faiss; return it with its parameter of effort and the values to try."""
    import faiss

    faiss.omp_set_num_threads(1)
    lists = min(2048, int(4 * len(data.rows) ** 0.5))
    spec = {
        "faiss-flat": "Flat",
        "faiss-ivf-sq8": f"IVF{lists},SQ8",
        "faiss-hnsw-sq8": "HNSW16_SQ8",
    }[kind]
    index = faiss.index_factory(DIM, spec, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        sample = np.random.default_rng(1).choice(len(data.rows), min(len(data.rows), 40 * lists), replace=False)
        index.train(unit(data.rows[np.sort(sample)].astype(np.float32)))
    for rows in data.floats():
        index.add(rows)
    effort = {"faiss-flat": "", "faiss-ivf-sq8": "nprobe", "faiss-hnsw-sq8": "efSearch"}[kind]
    return index, effort, {"nprobe": [4, 8, 16, 32], "efSearch": [32, 64, 128]}.get(effort, [0])


def usearch_index(data: Data) -> tuple[Any, str, list[int]]:
    """Build an index of usearch, as `faiss_index` does."""
    from usearch.index import Index

    index = Index(ndim=DIM, metric="cos", dtype="i8")
    keys = np.arange(len(data.rows))
    for start, rows in zip(range(0, len(keys), CHUNK), data.floats(), strict=True):
        index.add(keys[start : start + CHUNK], rows, threads=1)
    return index, "expansion_search", [64, 128]


def hnswlib_index(data: Data) -> tuple[Any, str, list[int]]:
    """Build an index of hnswlib, as `faiss_index` does."""
    import hnswlib

    index = hnswlib.Index(space="ip", dim=DIM)
    index.init_index(len(data.rows), ef_construction=200, M=16, random_seed=1)
    index.set_num_threads(1)
    for rows in data.floats():
        index.add_items(rows)
    return index, "ef", [32, 64, 128]


class Peer:
    """The index of a peer."""

    def __init__(self, data: Data, kind: str) -> None:
        builders = {"hnswlib": hnswlib_index, "usearch-i8": usearch_index}
        made = builders[kind](data) if kind in builders else faiss_index(data, kind)
        self._index, self._name, self._efforts = made
        self._data, self._kind = data, kind
        self.setting = ""

    def tune(self, best: dict[str, np.ndarray]) -> None:
        """Choose the effort."""
        for effort in self._efforts:
            if self._name == "ef":
                self._index.set_ef(effort)
            elif self._name == "expansion_search":
                self._index.expansion_search = effort
            elif self._name:
                import faiss

                faiss.ParameterSpace().set_index_parameter(self._index, self._name, effort)
            self.setting = f"{self._name} {effort}" if self._name else ""
            if min(recall(self, self._data, best, kind)[0] for kind in ("known", "similar")) >= 0.99:
                return

    def __call__(self, query: np.ndarray) -> list[tuple[int, float]]:
        """Return the K nearest items and their scores, best first."""
        wanted = K * ROWS_OF_ITEM  # rows, so that they are K items
        if self._kind == "hnswlib":
            rows = self._index.knn_query(query[None], wanted)[0]
        elif self._kind == "usearch-i8":
            rows = self._index.search(query, wanted, threads=1).keys
        else:
            rows = self._index.search(query[None], wanted)[1]
        return by_item(self._data, query, rows)


def recall(search: Search, data: Data, best: dict[str, np.ndarray], kind: str) -> tuple[float, float]:
    """Return the share of queries whose best item is found, and of the K best items that are."""
    first, all_found = [], []
    for query, scores in zip(data.queries[kind], best[kind], strict=True):
        found = [score for _, score in search(query)]
        first.append(float(bool(found) and found[0] >= scores[0] - 1e-5))
        all_found.append(sum(bool(score >= scores[-1] - 1e-5) for score in found[:K]) / K)
    return statistics.mean(first), statistics.mean(all_found)


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def serve(args: argparse.Namespace) -> None:
    """In a child: build one index, report it, and run a round of searches for each line that comes in."""
    data = Data(args.rows[0])
    best = data.best_scores()
    if args.peers:
        sys.path.insert(0, str(args.peers))
    start_mib, started = resident_mib(), time.process_time()
    search = (Peer if args.method in PEERS else before if args.method == "before" else ours)(data, args.method)
    slow = len(data.rows) >= SLOW_ROWS and args.method in ("exact", "faiss-flat")
    report: dict[str, Any] = {"build_s": round(time.process_time() - started, 2), "setting": ""}
    report["mib"] = round(resident_mib() - start_mib)  # above the rows of the data
    if isinstance(search, Peer):
        search.tune(best)
        report["setting"] = search.setting
    if not slow:
        report["recall"] = {kind: recall(search, data, best, kind) for kind in data.queries}
    print(json.dumps(report), flush=True)
    for _ in sys.stdin:
        times = {}
        for kind, queries in data.queries.items():
            spent = []
            for query in queries[: 10 if slow else QUERIES]:
                began = time.thread_time()
                search(query)
                spent.append(time.thread_time() - began)
            times[kind] = statistics.median(spent) * 1e6
        print(json.dumps(times), flush=True)


def start(method: str, rows: int, args: argparse.Namespace) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).resolve()), "--method", method, "--rows", str(rows)]
    if args.peers:
        command += ["--peers", str(args.peers)]
    root = args.before if method == "before" else Path(__file__).parents[1]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment = os.environ | one_thread | {"PYTHONPATH": str(Path(root).resolve())}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def measure(rows: int, methods: list[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all methods at one size: they are built one after the other, and then take turns."""
    running = {}
    for method in methods:
        child = start(method, rows, args)
        line = child.stdout.readline() if child.stdout else ""
        if line:
            running[method] = (child, json.loads(line))
        else:
            print(f"{rows:>8} {method:<15} did not run", flush=True)
    rounds: dict[str, list[dict[str, float]]] = {method: [] for method in running}
    for _ in range(ROUNDS):
        for method, (child, _report) in running.items():
            assert child.stdin
            assert child.stdout
            child.stdin.write("\n")
            child.stdin.flush()
            rounds[method].append(json.loads(child.stdout.readline()))
    table = []
    for method, (child, report) in running.items():
        child.communicate()
        times = {kind: round(statistics.median(one[kind] for one in rounds[method])) for kind in rounds[method][0]}
        row = {"rows": rows, "method": method, "us": times, **report}
        table.append(row)
        print(_line(row), flush=True)
    return table


def _line(row: dict[str, Any]) -> str:
    found = row.get("recall")
    cells = [
        f"{us:>7} {found[kind][0]:>5.2f} {found[kind][1]:>5.2f}" if found else f"{us:>7} {'1':>5} {'1':>5}"
        for kind, us in row["us"].items()
    ]
    return (
        f"{row['rows']:>8} {row['method']:<15} {row['build_s']:>8.2f} {row['mib']:>6} | {' | '.join(cells)} "
        f"| {row['setting']}"
    )


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} ({platform.machine()})"


def main() -> int:
    """Print the table and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = [5000, 20_000, 100_000, 1_000_000]
    parser.add_argument("--rows", type=int, nargs="+", default=sizes, help="gallery sizes; default: %(default)s")
    parser.add_argument("--peers", type=Path, help="folder with faiss-cpu, hnswlib and usearch; default: ours alone")
    parser.add_argument("--before", type=Path, help="checkout of an earlier commit, up to 20,000 rows")
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULT, help="report to write; default: %(default)s")
    args = parser.parse_args()
    if args.method:
        serve(args)
        return 0
    print(
        "CPU seconds to build, MiB of the index; CPU us of a query, recall@1 and @5 of known, similar, unlike queries"
    )
    table = []
    for rows in args.rows:
        methods = ["exact", "lists"]
        methods += ["before"] if args.before and rows <= 20_000 else []
        graphs = ("faiss-hnsw-sq8", "hnswlib", "usearch-i8")
        methods += [name for name in PEERS if args.peers and not (rows >= SLOW_ROWS and name in graphs)]
        table += measure(rows, methods, args)
    result = {
        "machine": _machine(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "load_average": round(os.getloadavg()[0], 1),  # at the end; well above 1 means that other work was running
        "dim": DIM,
        "k": K,
        "threads": 1,
        "table": table,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
