"""What a small change of a large gallery costs: bytes to download, and time until the new items are found.

    python benchmarks/gallery_delta.py [--rounds 7]

A category of 20,000 items with a vector of 256 numbers and a thumbnail of 1,200 bytes each changes by +100 / -50 items.
The segment is compared with the bytes of the changed records: vectors, scales, texts and pictures of the new items, ids
of the others. A device then has a loaded gallery that answers queries, and the bytes of the segment. `apply_s`: the new
store is written, its root checked and flushed. `index_s`: the generation's index is written, and so the store hashed
and its pages checked. `load_s`: the gallery is verified, read and loaded beside the one that serves. `ready_s` is all
of it, from the last byte until the loaded gallery finds a new item; wall time, the median of the rounds. `ready_cpu_s`
is the CPU time of this, which other work on the machine changes less. Another thread asks the gallery that serves,
about 60 times a second: `failed_queries` counts those that did not find their item.
Writes benchmarks/results/gallery_delta.json.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from edge.gallery.generation import read_gallery, write_gallery_index  # noqa: E402
from edge.gallery.loaded_gallery import LoadedGallery, load_gallery  # noqa: E402
from edge.gallery.store import quantise  # noqa: E402
from edge.gallery.writer import GalleryWriter  # noqa: E402
from edge.manifest.embedder import Head  # noqa: E402
from edge.manifest.manifest import Manifest  # noqa: E402
from gallery_sync.formats.documents import Base, Segment, SpaceLog  # noqa: E402
from gallery_sync.formats.fields import ObjectRef  # noqa: E402
from gallery_sync.gallery_log import live_root  # noqa: E402
from gallery_sync.gallery_log.apply import apply_steps, stamp  # noqa: E402
from gallery_sync.gallery_log.records import Delete, Upsert, digest  # noqa: E402
from gallery_sync.gallery_log.segment_file import write_segment  # noqa: E402
from gallery_sync.gallery_log.states import path_to  # noqa: E402

ITEMS, DIM, ADDED, DELETED, THUMBNAIL_BYTES = 20_000, 256, 100, 50, 1200
SPACE, HEADS, CATEGORY = "a" * 64, [Head(name="class", dim=DIM)], "shelf"


def main() -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(description="A small change of a large gallery")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    from benchmarks import rig

    with tempfile.TemporaryDirectory(prefix="gallery-delta-", dir=ROOT / "runs") as folder:
        report = _measure(Path(folder), arguments.rounds)
    rig.write_report(report, ROOT / "benchmarks/results/gallery_delta.json")


def _item(number: int, random: np.random.Generator) -> Upsert:
    row = random.normal(size=(1, DIM)).astype(np.float32)
    vectors, scales = quantise(row / np.linalg.norm(row))
    picture = b"\xff\xd8\xff" + random.bytes(THUMBNAIL_BYTES - 3)
    return Upsert(f"item-{number:06d}", f"Item {number}", f'{{"sku": {number}}}', picture, None, vectors, scales)


def _measure(folder: Path, rounds: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    items = [_item(number, random) for number in range(ITEMS)]
    new = [_item(ITEMS + number, random) for number in range(ADDED)]
    gone = [Delete(one.item_id) for one in items[:: ITEMS // DELETED][:DELETED]]
    log, data = _log(folder, items, new, gone)
    steps = path_to(log, 1, 2)
    changed = sum(map(_content_bytes, new)) + sum(len(one.item_id) for one in gone)
    store = folder / f"1/{CATEGORY}.sqlite"
    before = load_gallery(_manifest(), read_gallery(store.parent))
    before.build_lists()
    runs: list[dict[str, float]] = []
    queries = _Queries(before, items[1])
    queries.start()
    try:
        for number in range(rounds):
            out = folder / f"new{number}/{CATEGORY}.sqlite"
            out.parent.mkdir()
            started, cpu = [time.perf_counter()], time.thread_time()

            def lap(started: list[float] = started) -> None:
                started.append(time.perf_counter())

            apply_steps(store, log, steps, out, lambda _: data, category=CATEGORY)
            lap()
            write_gallery_index(out.parent, "2026-01-01T00:00:00Z")
            lap()
            after = load_gallery(_manifest(), read_gallery(out.parent), before)
            found = _nearest(after, new[0])
            lap()
            cpu = time.thread_time() - cpu
            if found != new[0].item_id or not after.updates:
                raise SystemExit(f"found {found}, expected {new[0].item_id}")
            names = ("apply_s", "index_s", "load_s")
            times = [end - start for start, end in pairwise(started)]
            runs.append(
                dict(zip(names, times, strict=True)) | {"ready_s": started[-1] - started[0], "ready_cpu_s": cpu}
            )
    finally:
        queries.stop()
    return {
        "items": ITEMS,
        "dim": DIM,
        "added": ADDED,
        "deleted": DELETED,
        "store_bytes": store.stat().st_size,
        "segment_bytes": len(data),
        "changed_record_bytes": changed,
        "segment_to_changed": round(len(data) / changed, 4),
        **{name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]},
        "ready_worst_s": round(max(run["ready_s"] for run in runs), 3),
        "queries_meanwhile": queries.count,
        "failed_queries": queries.failed,
    }


def _log(folder: Path, items: list[Upsert], new: list[Upsert], gone: list[Delete]) -> tuple[SpaceLog, bytes]:
    """Make the store of the first state, and the segment to the second."""
    with GalleryWriter(folder / "plain", CATEGORY, SPACE, HEADS) as writer:
        for one in items:
            vectors = one.vectors_i8.astype(np.float32) * one.scales[:, None]
            writer.add(one.item_id, one.label, vectors, {"sku": int(one.item_id[-6:])}, one.thumbnail)
    (folder / "1").mkdir()
    state = stamp(folder / f"plain/{CATEGORY}.sqlite", 1, folder / f"1/{CATEGORY}.sqlite")
    write_gallery_index(folder / "1", "2026-01-01T00:00:00Z")
    data = write_segment([*new, *gone], SPACE, DIM)
    kept = {one.item_id for one in gone}
    root = live_root.root_text(sum(digest(one) for one in [*items, *new] if one.item_id not in kept))
    store = ObjectRef(sha256="0" * 64, size=1 << 30)
    base = Base(sequence=1, object=store, live_root=state.live_root, items=ITEMS, vectors=ITEMS)
    ref = ObjectRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    counts = {"upserts": len(new), "deletes": len(gone)}
    segment = Segment(after=1, sequence=2, object=ref, live_root=root, **counts)
    return SpaceLog(space_id=SPACE, heads=HEADS, bases=[base], segments=[segment]), data


def _content_bytes(one: Upsert) -> int:
    texts = (one.item_id, one.label, one.metadata)
    return one.vectors_i8.nbytes + one.scales.nbytes + len(one.thumbnail or b"") + sum(map(len, texts))


def _nearest(loaded: LoadedGallery, item: Upsert) -> str:
    query = (item.vectors_i8[0] * item.scales[0]).astype(np.float32)
    return str(loaded.indexes[CATEGORY].search(query[None], 1)[0][0].item_id)


class _Queries:
    """Asks the gallery that serves, all the time."""

    def __init__(self, loaded: LoadedGallery, item: Upsert) -> None:
        self.count = self.failed = 0
        self._ask: Callable[[], bool] = lambda: _nearest(loaded, item) == item.item_id
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.wait(0.01):
            self.count += 1
            self.failed += not self._ask()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()


def _manifest() -> Manifest:
    embedder = {
        "files": {"ort-u8": "models/shelf.onnx"},
        "input_name": "image",
        "output_names": ["vector"],
        "preprocess": {"width": 96, "height": 96},
        "categories": [CATEGORY],
        "heads": [head.model_dump() for head in HEADS],
        "space_id": SPACE,
        "gathering": 0.5,
    }
    return Manifest.model_validate(
        {
            "schema": 1,
            "bundle_id": "b-1",
            "sequence": 1,
            "created_at": "2026-01-01T00:00:00Z",
            "runtimes": ["ort-u8"],
            "files": [{"path": "models/shelf.onnx", "size": 1, "sha256": "0" * 64}],
            "embedders": [embedder],
        }
    )


if __name__ == "__main__":
    main()
