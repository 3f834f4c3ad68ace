"""How long the console's server takes for a page, with much in it. The aim is below 200 ms.

    python benchmarks/console_pages.py [--items 100000] [--pictures 50000] [--devices 2000] [--rounds 9]

Made-up rows: one set of pictures with two crops each, half of them named; a signed repository with one category of
items with three vectors each; devices in a real fleet server. Each page is requested over HTTP on loopback, in the
process of the console: `first` is the first request after the start, `median` and `worst` are of the next ones. It also
says how long the console read the gallery, once, in the background.

Other work on the machine (`load_1_min`) lengthens all of it. Writes benchmarks/results/console_pages.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

TARGET_MS = 200.0
PAGES = (
    "/", "/sets", "/sets/1", "/sets/1?which=boxed", "/sets/1/pictures/100", "/boxes", "/boxes/1", "/review",
    "/review/1", "/api/v1/review/1/crops?order=doubt", "/api/v1/review/1/crops?state=item", "/gallery",
    "/gallery/shelf",
    "/gallery/shelf?text=777", "/gallery/shelf?order=vectors", "/gallery/shelf/items?item=item-100",
    "/gallery/-/changes", "/gallery/-/warnings", "/search", "/training", "/training/new?set=1", "/fleet",
    "/fleet?group=group-7", "/fleet/devices/cam-000010", "/fleet/rollouts", "/account", "/account/audit",
)  # fmt: skip


def main() -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--pictures", type=int, default=50_000)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=9, help="requests of each page after the first")
    arguments = parser.parse_args()
    from benchmarks import rig

    logging.disable(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="console-pages-") as folder:
        report = measure(Path(folder), arguments) | {"load_1_min": os.getloadavg()[0]}
    rig.write_report(report, ROOT / "benchmarks/results/console_pages.json")


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the report, without machine and date."""
    from benchmarks.fleet_collector import reports, serving
    from tests.console_samples import running_console

    repository = make_repository(folder, arguments.items)
    (folder / "fleet").mkdir()
    with serving(folder / "fleet") as fleet:
        fleet.ingest(reports(range(arguments.devices), 1))
        settings = {"repository": repository, "keys": folder / "repo.keys", "fleet": fleet.server.url}
        with running_console(folder / "console", **settings) as client:
            fill_set(client.services.database, arguments.pictures)
            started = time.monotonic()
            client.send("POST", "/api/v1/gallery/refresh")
            task = client.services.tasks.wait("gallery/index", 1800)
            assert task is not None
            assert task.state == "done", task.says
            read_s = time.monotonic() - started
        with running_console(folder / "console", **settings) as client:
            pages = {path: times_of(client, path, arguments.rounds) for path in PAGES}
    over = [path for path, one in pages.items() if max(one["first"], one["median"]) > TARGET_MS]
    counts = {"items": arguments.items, "pictures": arguments.pictures, "devices": arguments.devices}
    return {**counts, "target_ms": TARGET_MS, "gallery_read_s": round(read_s, 1), "pages_ms": pages, "over": over}


def times_of(client: Any, path: str, rounds: int) -> dict[str, Any]:
    """Return how long a page takes, in milliseconds."""
    took = []
    for _ in range(rounds + 1):
        started = time.monotonic()
        reply = client.get(path)
        took.append((time.monotonic() - started) * 1000)
        assert reply.status == 200, (path, reply.text[:500])
    first, *others = took
    return {
        "first": round(first, 1),
        "median": round(float(np.median(others)), 1),
        "worst": round(max(others), 1),
        "bytes": len(reply.body),
    }


def make_repository(folder: Path, items: int) -> Path:
    """Sign a repository with one category of so many items."""
    from edge.gallery.generation import write_gallery_index
    from edge.gallery.writer import GalleryWriter
    from edge.manifest.embedder import Head
    from gallery_sync.repository.metadata import SignedMetadata
    from gallery_sync.repository.publish import publish
    from tests.fleet_bundles import CATEGORY, DIM, SPACE, write_bundle
    from tests.sync_samples import development_keys

    random = np.random.default_rng(0)
    with GalleryWriter(folder / "gallery", CATEGORY, SPACE, [Head(name="class", dim=DIM)]) as writer:
        for number in range(items):
            rows = random.normal(size=(3, DIM)).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            writer.add(f"item-{number}", f"Item {number % 9973} of shelf {number}", rows)
    write_gallery_index(folder / "gallery", "2026-01-01T00:00:00Z")
    keys, now = development_keys(folder / "repo.keys"), datetime.now(timezone.utc)
    SignedMetadata.create(folder / "repo", "shop", "online", keys, now)
    bundle = write_bundle(folder / "bundle", 1)
    publish(folder / "repo", keys, now, bundle_folder=bundle, gallery_folder=folder / "gallery")
    return folder / "repo"


def fill_set(database: Any, pictures: int) -> None:
    """Write one set of pictures with two crops each, half of them named, all with proposals and vectors."""
    from console.sets.sets import create_set

    random = np.random.default_rng(1)
    now = time.time()
    with database.write() as rows:
        set_id = create_set(rows, now, "benchmark", "Many", "folder", Path(tempfile.gettempdir()))
        for number in range(1, pictures + 1):
            state = ("confirmed", "proposed")[number % 10 == 0]
            rows.execute(
                "INSERT INTO pictures(id, set_id, name, sha256, size, width, height, boxes, uncertainty, added_at)"
                " VALUES (?, ?, ?, ?, 100000, 1280, 720, ?, ?, ?)",
                (number, set_id, f"{number:06d}.jpg", f"{number:064x}", state, random.random(), now),
            )
            for half in (0, 1):
                named = half == 0 and state == "confirmed"
                item = f"item-{random.integers(0, 5000)}"
                proposal = {"category": "shelf", "item": item, "label": item, "similarity": round(random.random(), 4)}
                vector = random.normal(size=64).astype(np.float32)
                rows.execute(
                    "INSERT INTO crops(set_id, picture_id, x0, y0, x1, y1, box_source, state, category, item, label,"
                    " decided_by, decided_at, proposals, proposed_category, similarity, doubt, vector, space)"
                    " VALUES (?, ?, 10, 10, 200, 300, 'detector', ?, ?, ?, ?, ?, ?, ?, 'shelf', ?, ?, ?, 'c')",
                    (
                        set_id, number, "item" if named else "open", *(("shelf", item, item) if named else (None,) * 3),
                        *(("ann", now) if named else (None, None)), json.dumps([proposal]), proposal["similarity"],
                        round(random.random(), 6), (vector / np.linalg.norm(vector)).tobytes(),
                    ),
                )  # fmt: skip


if __name__ == "__main__":
    main()
