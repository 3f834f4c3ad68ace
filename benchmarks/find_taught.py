"""Taught items without a detector: the demo's stream, with boxes from the finder alone.

    python benchmarks/find_taught.py                # after benchmarks/find.py

Every item of the stream that the finder of seed 0 never saw is removed from the gallery and taught with three pictures
on white. The pipeline then has boxes from `recognition.seek` only. The embedders of the demo's bundle were trained on
these items, so this measures the search, not the recognition. Writes benchmarks/results/find_taught.json.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.find import held_out, on_device  # noqa: E402
from edge.build import load_models  # noqa: E402
from edge.capture.frame_source import CaptureOptions, EndOfStream  # noqa: E402
from edge.capture.open_source import open_source  # noqa: E402
from edge.config.camera_url import parse_source  # noqa: E402
from edge.config.schema import CameraConfig, EngineConfig, RecognitionConfig, SeekConfig  # noqa: E402
from edge.demo.score import last_answers, read_ground_truth, score  # noqa: E402
from edge.frame_loop import build_pipeline  # noqa: E402
from edge.imaging.image import encode_image  # noqa: E402
from edge.kiosk.taught_items import TaughtItems  # noqa: E402
from edge.kiosk.taught_store import TaughtStore  # noqa: E402
from edge.messaging.payload import event_payload  # noqa: E402
from edge.recognition.loaded_models import LoadedModels, Search  # noqa: E402
from edge.telemetry.counters import Counters  # noqa: E402
from edge.types import FloatArray, Frame, Hit  # noqa: E402

DEMO = ROOT / "demo"
SEEK = SeekConfig(every_s=0.2, items=4, looks=2)


@dataclass(frozen=True, slots=True)
class GalleryWithout:
    """A gallery without some of its items."""

    base: Search
    removed: frozenset[str]

    def search(self, queries: FloatArray, k: int) -> list[list[Hit]]:
        """Return the k nearest of the other items."""
        found = self.base.search(queries, k + len(self.removed))
        return [[hit for hit in hits if hit.item_id not in self.removed][:k] for hits in found]


def main() -> None:
    """Teach the items, run the stream, score the events."""
    from benchmarks.grocery import machine

    truth = read_ground_truth(DEMO / "stream.json")
    items, category = held_out(0)
    new = {one.item_id for one in truth.objects.values() if one.category == category or one.item_id in items}
    with tempfile.TemporaryDirectory() as folder:
        models, names = teach(sorted(new), Path(folder))
        counts = Counters()
        started = time.process_time()
        events = run_stream(models, counts)
        spent_s = time.process_time() - started
    renamed_events = [event | {"match": renamed(event["match"], names)} for event in events]
    result = score(truth, last_answers(renamed_events))
    of_new = {number: one for number, one in result.outcomes.items() if truth.objects[number].item_id in new}
    tree = {
        "date": date.today().isoformat(),  # noqa: DTZ011
        "machine": machine(),
        "seek": SEEK.model_dump(),
        "things_taught": len(new),
        "objects_of_them": len(of_new),
        "verdicts": Counter(of_new.values()),
        "other_objects": Counter(one for number, one in result.outcomes.items() if number not in of_new),
        "tracks_on_nothing": result.false_tracks,
        "frames": len(truth.frames),
        "frames_searched": counts.total("frames_sought"),
        "boxes": counts.total("boxes_sought"),
        "cpu_s": round(spent_s, 2),
    }
    print(json.dumps(tree, indent=1))
    (ROOT / "benchmarks/results/find_taught.json").write_text(json.dumps(tree, indent=1) + "\n")


def teach(items: list[str], folder: Path) -> tuple[LoadedModels, dict[str, str]]:
    """Load the demo's bundle without detector, and its gallery with these items taught instead."""
    from trainer.synthetic.items import catalogue
    from trainer.synthetic.render import catalogue_picture

    finder, _ = on_device(ROOT / "runs/find/seed-0")
    models = load_models(DEMO / "bundle", DEMO / "gallery", EngineConfig())
    store, names = TaughtStore(folder / "overlay", len(items)), {}
    known = {item.item_id: item for item in catalogue()}
    for number, item in enumerate(items):
        rng = np.random.default_rng([number, 5])
        pictures = [encode_image(catalogue_picture(known[item], rng)[0], ".jpg", 95) for _ in range(3)]
        names[store.save(f"taught {item}", known[item].category, pictures, "2026-01-01T00:00:00Z").item_id] = item
    bare = replace(
        models,
        stages=replace(models.stages, detector=None),
        indexes={name: GalleryWithout(index, frozenset(items)) for name, index in models.indexes.items()},
        finder=finder,
    )
    return TaughtItems(store, lambda *_: frozenset(), Counters(), SEEK.looks).add_to(bare), names


def run_stream(models: LoadedModels, counts: Counters) -> list[dict[str, Any]]:
    """Return the events of the stream."""
    address = f"file://{DEMO / 'stream.mp4'}"
    cameras = {"shelf": CameraConfig(source=address)}
    pipeline = build_pipeline(models, RecognitionConfig(seek=SEEK), cameras, counts)
    events = []
    with closing(open_source(parse_source(address), "auto", CaptureOptions())) as source:
        number = 0
        while True:
            try:
                picture = source.read(5.0)
            except EndOfStream:
                break
            if picture is None:
                sys.exit(f"{address}: no frame within 5 s")
            frame = Frame(
                "shelf", number, picture.image_rgb, picture.arrived_ns, 0.0, picture.time_source, picture.pts_s
            )
            events += pipeline.process(frame).events
            number += 1
    events += pipeline.end_tracks("shelf")
    return [json.loads(event_payload(event, "site", "device", "boot", n)) for n, event in enumerate(events)]


def renamed(match: dict[str, Any] | None, names: dict[str, str]) -> dict[str, Any] | None:
    """Return a match of a taught item under its name in the ground truth."""
    return match and match | {"item": names.get(match["item"], match["item"])}


if __name__ == "__main__":
    main()
