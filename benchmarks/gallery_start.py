"""Time and memory until a large gallery can be searched: at a start, and when a few items of it change.

    git worktree add /tmp/before COMMIT && ln -s "$PWD/.venv" /tmp/before/.venv
    python benchmarks/gallery_start.py [--before /tmp/before] [--rounds 3] [--limit 60]

A start verifies the hash of the store, reads and checks it, moves its vectors half way to the centroid of their item
and answers the first query: `ready`. The lists of a large gallery are built after that, beside the queries: `lists`.
A delta of 50 added and 50 deleted items is loaded beside the gallery that serves: `ready` is until the new one does.
Each row runs in a process of its own, the checkouts in turn; rows that the other checkout does not end within --limit
are shown as such. Seconds are CPU time, which other work on the machine changes less than wall time. Memory is resident
memory above a process that searched a small gallery, as a multiple of the int8 vectors. Stores of 256 numbers a vector,
with metadata that differs for each item, are made once in runs/gallery_start: 1 M items take two minutes.
Writes benchmarks/results/gallery_start.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, os.environ.get("FINESIGHT_CHECKOUT", str(ROOT)))

from edge.gallery.generation import read_gallery, write_gallery_index  # noqa: E402
from edge.gallery.loaded_gallery import load_gallery  # noqa: E402
from edge.gallery.writer import GalleryWriter  # noqa: E402
from edge.telemetry.health_report import resident_bytes  # noqa: E402

try:
    from edge.manifest.embedder import Head
    from edge.manifest.manifest import Manifest
except ImportError:  # an older checkout, where the manifest was one module
    from edge.manifest import Head, Manifest  # type: ignore[attr-defined,no-redef]

RUNS = ROOT / "runs/gallery_start"
DIM, SPACE, CHANGED = 256, "a" * 64, 50
SHAPES = [(20_000, 1), (100_000, 1), (100_000, 4), (1_000_000, 1)]  # items, vectors of each
DELTAS = [(100_000, 1), (1_000_000, 1)]
QUERIES = 20


def main() -> None:
    """Measure every row in turn, print it, and write the report."""
    parser = argparse.ArgumentParser(description="Start with large galleries")
    parser.add_argument("--before", type=Path, help="another checkout to measure beside this one")
    parser.add_argument("--rounds", type=int, default=3, help="of galleries below a million items")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds a row of the other checkout may take")
    parser.add_argument("--row", help="internal: measure one row, and print it as JSON")
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(_measure(*json.loads(arguments.row))))
        return
    from benchmarks import rig

    checkouts = {"before": arguments.before, "after": ROOT} if arguments.before else {"after": ROOT}
    _store(5_000, 1)
    report: dict[str, Any] = {"limit_s": arguments.limit, "rows": []}
    for kind, items, vectors in [("start", *shape) for shape in SHAPES] + [("delta", *shape) for shape in DELTAS]:
        store, changed = _store(items, vectors), kind == "delta" and _changed_store(items, vectors)
        rounds = arguments.rounds if items * vectors < 1_000_000 else 1
        found: dict[str, list[dict[str, float] | None]] = {name: [] for name in checkouts}
        for _ in range(rounds):
            for name, checkout in checkouts.items():
                limit_s = None if name == "after" else arguments.limit
                if None not in found[name] and not (name == "before" and changed):
                    found[name].append(_run(checkout, [str(store), str(changed or "")], limit_s))
        row = {"kind": kind, "items": items, "vectors": vectors} | {name: _median(all_) for name, all_ in found.items()}
        report["rows"].append(row)
        print(json.dumps(row), flush=True)
    rig.write_report(report, ROOT / "benchmarks/results/gallery_start.json")


def _run(checkout: Path, row: list[str], limit_s: float | None) -> dict[str, float] | None:
    command = [sys.executable, str(Path(__file__)), "--row", json.dumps(row)]
    environment = os.environ | {"FINESIGHT_CHECKOUT": str(checkout.resolve()), "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return None
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _median(rows: list[dict[str, float] | None]) -> dict[str, float] | str:
    whole = [row for row in rows if row is not None]
    if not rows or len(whole) < len(rows):
        return "not measured" if not rows else "over the limit"
    return {name: round(statistics.median(row[name] for row in whole), 3) for name in whole[0]}


def _measure(store: str, changed: str) -> dict[str, float]:
    """Load a gallery, or one beside another that serves, in this process."""
    manifest = _manifest()
    queries = np.random.default_rng(0).normal(size=(QUERIES, DIM)).astype(np.float32)
    if (RUNS / "5000x1").exists():  # what any gallery takes: the libraries, and the runtime's session
        load_gallery(manifest, read_gallery(RUNS / "5000x1")).indexes["shelf"].search(queries, 10)
    found, loaded, base = {}, None, resident_bytes() or 0
    peak = _Peak()
    if changed:
        loaded = load_gallery(manifest, read_gallery(Path(store)))
        loaded.build_lists()
    before = time.process_time()
    gallery = read_gallery(Path(changed or store))
    loaded = load_gallery(manifest, gallery, loaded) if changed else load_gallery(manifest, gallery)
    index = loaded.indexes["shelf"]
    index.search(queries[:1], 10)
    found["ready_s"] = time.process_time() - before
    vectors = gallery.categories["shelf"].vectors * DIM
    found["ready_steady"] = ((resident_bytes() or 0) - base) / vectors
    started = time.perf_counter()
    index.search(queries, 10)
    found["first_query_ms"] = (time.perf_counter() - started) * 1e3 / QUERIES
    if hasattr(loaded, "build_lists"):
        before = time.process_time()
        loaded.build_lists()
        found["lists_s"] = time.process_time() - before
        started = time.perf_counter()
        index.search(queries, 10)
        found["query_ms"] = (time.perf_counter() - started) * 1e3 / QUERIES
    found["peak"] = (peak.stop() - base) / vectors
    found["steady"] = ((resident_bytes() or 0) - base) / vectors
    return found


class _Peak:
    """The most resident memory, looked at every 10 ms."""

    def __init__(self) -> None:
        self._most, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            self._most = max(self._most, resident_bytes() or 0)

    def stop(self) -> int:
        """Return it, in bytes."""
        self._ended.set()
        self._thread.join()
        return self._most


def _manifest() -> Manifest:
    embedder = {
        "files": {"ort-u8": "shelf.onnx"},
        "input_name": "image",
        "output_names": ["vector"],
        "preprocess": {"width": 96, "height": 96},
        "categories": ["shelf"],
        "heads": [{"name": "class", "dim": DIM}],
        "space_id": SPACE,
        "gathering": 0.5,
    }
    classifier = {  # or the items are searched by space, too
        "files": {"ort-u8": "shelf.onnx"},
        "input_name": "image",
        "output_names": ["probabilities"],
        "preprocess": {"width": 96, "height": 96},
        "labels": ["shelf", "other"],
    }
    files = [{"path": "shelf.onnx", "size": 1, "sha256": "0" * 64}]
    about = {"schema": 1, "bundle_id": "shelf", "sequence": 1, "created_at": "2026-01-01T00:00:00Z"}
    return Manifest.model_validate(
        about | {"runtimes": ["ort-u8"], "files": files, "classifier": classifier, "embedders": [embedder]}
    )


def _store(items: int, vectors: int) -> Path:
    """Return the folder of a gallery; make it if it does not exist."""
    folder = RUNS / f"{items}x{vectors}"
    if not (folder / "gallery.json").exists():
        rng, started = np.random.default_rng(1), time.process_time()
        with GalleryWriter(folder, "shelf", SPACE, [Head(name="class", dim=DIM)]) as writer:
            for item in range(items):
                metadata = {"size": item, "aisle": f"a{item % 40}"}
                writer.add(f"item-{item:07d}", f"Product {item}", _vectors(rng, vectors), metadata)
        write_gallery_index(folder, "2026-01-01T00:00:00Z")
        print(f"made {folder.name}: {(time.process_time() - started) / items * 1e6:.0f} us an item", flush=True)
    return folder


def _changed_store(items: int, vectors: int) -> Path:
    folder, base = RUNS / f"{items}x{vectors}-changed", _store(items, vectors)
    if not (folder / "gallery.json").exists():
        rng = np.random.default_rng(2)
        path = read_gallery(base, verify=False).path("shelf")
        with GalleryWriter(folder, "shelf", SPACE, [Head(name="class", dim=DIM)], base=path) as writer:
            for item in range(CHANGED):
                writer.delete(f"item-{item * 7:07d}")
            for item in range(CHANGED):
                writer.add(f"new-{item}", f"New {item}", _vectors(rng, vectors))
        write_gallery_index(folder, "2026-01-02T00:00:00Z")
    return folder


def _vectors(rng: np.random.Generator, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the vectors of one item: near to each other."""
    rows = rng.standard_normal((1, DIM), np.float32) + 0.5 * rng.standard_normal((count, DIM), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
