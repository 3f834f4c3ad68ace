"""Memory and time with 10, 100 and 1,000 categories: one shared embedder or one each, with and without a budget.

    python benchmarks/engine_memory.py [--large EMBEDDER.onnx]

Each row runs in a process of its own. The own embedders are copies of the demo's embedder of cans, each with other
weights. A look classifies a crop of 128x128 pixels and embeds it in one category; categories are drawn by Zipf's law.
--large names an ONNX file of another size, uint8 NHWC to one vector, for 100 categories. Memory is resident memory
above the start of the process, with the libraries loaded. Looks are timed by CPU time, on one thread, which other work
on the machine hardly changes; frames by wall time. Writes benchmarks/results/engine_memory.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from edge.engine_store.process_memory import release_heap  # noqa: E402
from edge.telemetry.health_report import resident_bytes  # noqa: E402

LOOKS = 1000
MIB = 2**20
# categories, own embedder, form, budget in MiB
SMALL = [
    (10, False, "ort-u8", None),
    (100, False, "ort-u8", None),
    (1000, False, "ort-u8", None),
    (10, True, "ort-u8", None),
    (100, True, "ort-u8", None),
    (100, True, "ort-u8", 64),
    (1000, True, "ort-u8", None),
    (1000, True, "ort-u8", 1024),
    (1000, True, "ort-u8", 256),
    (1000, True, "ort-u8", 64),
    (1000, True, "fp32", None),
    (1000, True, "fp32", 256),
]
LARGE = [(100, True, "fp32", None), (100, True, "fp32", 512)]


def main() -> None:
    """Measure every row, each in a process, and write the report."""
    parser = argparse.ArgumentParser(description="Memory of engines")
    parser.add_argument("--large", type=Path, help="ONNX file of a large embedder")
    parser.add_argument("--row", help="internal: measure one row, and print it as JSON")
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(*json.loads(arguments.row))))
        return
    from benchmarks import rig

    rows = [run_row([*row, None]) for row in SMALL]
    if arguments.large:
        rows += [run_row([*row, str(arguments.large.resolve())]) for row in LARGE]
    report = {
        "looks": LOOKS,
        "rows": rows,
        "frame loop while models load": frame_loop_row(),
        "galleries": [gallery_row(*shape) for shape in ((10, 100), (100, 100), (1000, 20), (1000, 100))],
    }
    rig.write_report(report, ROOT / "benchmarks/results/engine_memory.json")


def run_row(row: list[Any]) -> dict[str, Any]:
    """Measure one row in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--row", json.dumps(row)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps(found), file=sys.stderr)
    return found


def make_bundle(folder: Path, categories: int, form: str, large: str | None, *, own: bool) -> Any:
    """Write the models of a bundle with so many categories, and return its manifest."""
    from edge.durable import sha256_of
    from edge.manifest.manifest import Manifest

    demo = ROOT / "demo/bundle"
    manifest = json.loads((demo / "bundle.json").read_text())
    embedder = next(one for one in manifest["embedders"] if one["categories"] == ["can"])
    source = Path(large) if large else demo / embedder["files"][form]
    if large:
        embedder |= tensors_of(source)
    files = {path: demo / path for model in ("detector", "classifier") for path in manifest[model]["files"].values()}
    for path, original in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(original.read_bytes())
    names = [f"category-{i:04d}" for i in range(categories)]
    groups = [[name] for name in names] if own else [names]
    embedders, content = [], source.read_bytes()
    for number, group in enumerate(groups):
        path = f"models/embedder-{number:04d}.{form}.onnx"
        (folder / path).write_bytes(with_other_weights(content, number))
        files[path] = folder / path
        rules = {name: next(iter(embedder["open_set"].values())) for name in group}
        embedders.append(
            embedder
            | {"categories": group, "files": {form: path}, "ship": form, "open_set": rules, "compatible": []}
            | {"space_id": f"{number:064x}", "outline": {}}
        )
    listed = [
        {"path": path, "size": (folder / path).stat().st_size, "sha256": sha256_of(folder / path)} for path in files
    ]
    changes = {"embedders": embedders, "files": listed, "probes": [], "scene_probes": [], "finder": None}
    return Manifest.model_validate(manifest | changes)


def tensors_of(path: Path) -> dict[str, Any]:
    """Return the manifest keys that describe the tensors of an ONNX file of uint8 NHWC to one vector."""
    from edge.inference.onnxruntime_library import ort

    session = ort.InferenceSession(str(path))
    (image,), (vector, *_) = session.get_inputs(), session.get_outputs()
    heads = [{"name": "class", "dim": int(vector.shape[-1])}]
    spec = {"width": image.shape[2], "height": image.shape[1]}
    return {
        "input_name": image.name,
        "output_names": [one.name for one in session.get_outputs()],
        "heads": heads,
        "preprocess": spec,
        "classifier_share": 0.0,
    }


def with_other_weights(content: bytes, number: int) -> bytes:
    """Return a model with slightly other weights: the lowest bit of some bytes of its largest tensor is flipped."""
    import onnx

    model = onnx.load_from_string(content)
    largest = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    raw = np.frombuffer(largest.raw_data, np.uint8).copy()
    raw[np.random.default_rng(number).integers(0, len(raw) // 4, 64) * 4] ^= 1
    largest.raw_data = raw.tobytes()
    return bytes(model.SerializeToString())


def resident_mib() -> float:
    """Return the resident memory of this process."""
    return (resident_bytes() or 0) / MIB


def quantiles_ms(times_s: list[float]) -> dict[str, float | int | None]:
    """Return the count, median and 95th percentile of times."""
    if not times_s:
        return {"count": 0, "p50_ms": None, "p95_ms": None}
    ms = [1000 * one for one in times_s]
    return {
        "count": len(ms),
        "p50_ms": round(statistics.median(ms), 2),
        "p95_ms": round(float(np.percentile(ms, 95)), 2),
    }


def measure(categories: int, own: bool, form: str, budget_mib: int | None, large: str | None) -> dict[str, Any]:
    """Load a bundle with so many categories, look at them by Zipf's law, and return what it took."""
    from edge.engine_store.engine_store import EngineStore
    from edge.inference.stages import load_stages
    from edge.process import limit_heaps
    from edge.telemetry.counters import Counters
    from edge.telemetry.timing import Timings

    limit_heaps()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = make_bundle(folder, categories, form, large, own=own)
        release_heap()
        before_mib, counts = resident_mib(), Counters()
        started, started_cpu = time.perf_counter(), time.process_time()
        store = EngineStore(None if budget_mib is None else budget_mib * MIB, counts)
        stages = load_stages(folder, manifest, "onnxruntime", store=store)
        start_s, start_cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
        start_mib = resident_mib() - before_mib
        drawn = zipf(categories)
        crop = np.random.default_rng(1).integers(0, 256, (128, 128, 3)).astype(np.uint8)
        box = (0.0, 0.0, 128.0, 128.0)
        hits, misses = [], []
        for i in drawn:
            embedder = stages.embedders[f"category-{i:04d}"]
            loads = counts.total("engine_loads")
            started = time.process_time()
            stages.classifier.classify(crop, [box], Timings())
            embedder.embed(crop, [box], Timings())
            took_s = time.process_time() - started
            (hits if counts.total("engine_loads") == loads else misses).append(took_s)
        return {
            "categories": categories,
            "embedder": "own" if own else "shared",
            "file_mib": round(manifest.files[-1].size / MIB, 2),
            "form": form,
            "budget_mib": budget_mib,
            "start_s": round(start_s, 2),
            "start_cpu_s": round(start_cpu_s, 2),
            "start_mib": round(start_mib, 1),
            "mib_after_looks": round(resident_mib() - before_mib, 1),
            "accounted_mib": round(store.used_bytes() / MIB, 1),
            "loaded": sum(one.status == "loaded" for one in store.memory()),
            "evictions": counts.total("engine_evictions"),
            "hits": quantiles_ms(hits),
            "misses": quantiles_ms(misses),
        }


def zipf(categories: int) -> list[int]:
    """Draw categories by Zipf's law: the n-th most frequent one is n times as rare as the first."""
    weights = 1.0 / np.arange(1, categories + 1)
    return [int(i) for i in np.random.default_rng(7).choice(categories, LOOKS, p=weights / weights.sum())]


def frame_loop_row() -> dict[str, Any]:
    """Measure the time of a frame while nothing loads, while models load in the background, and in the loop itself."""
    from edge.engine_store.engine_store import EngineStore
    from edge.inference.stages import load_stages
    from edge.telemetry.counters import Counters
    from edge.telemetry.timing import Timings

    frames, every = 300, 5
    picture = np.random.default_rng(1).integers(0, 256, (480, 640, 3)).astype(np.uint8)
    box = (100.0, 100.0, 228.0, 228.0)
    found: dict[str, Any] = {"frames": frames, "a new category every": every}
    with tempfile.TemporaryDirectory() as name:
        manifest = make_bundle(Path(name), 2 * frames // every + 1, "ort-u8", None, own=True)
        stages = load_stages(Path(name), manifest, "onnxruntime", store=EngineStore(16 * MIB, Counters()))
        embedders = iter(list(stages.embedders.values()))
        waited: list[int] = []
        for mode in ("nothing loads", "in the background", "in the frame loop"):
            times = []
            waiting: dict[Any, int] = {}
            for number in range(frames):
                started = time.perf_counter()
                stages.detector.detect([picture], Timings())
                if number % every == 0 and mode != "nothing loads":
                    waiting[next(embedders)] = number
                for embedder, since in list(waiting.items()):
                    if mode == "in the frame loop" or embedder.readiness() == "ready":
                        embedder.embed(picture, [box], Timings())
                        del waiting[embedder]
                        if mode == "in the background":
                            waited.append(number - since)
                times.append(time.perf_counter() - started)
                threading.Event().wait(max(0.0, 1 / 15 - times[-1]))
            found[mode] = quantiles_ms(times) | {"max_ms": round(1000 * max(times), 1)}
        found["frames that a first look waits"] = {"p50": statistics.median(waited), "max": max(waited)}
    return found


def gallery_row(categories: int, items: int, dim: int = 128, rows: int = 3) -> dict[str, Any]:
    """Measure the memory of the search indexes of so many categories."""
    from edge.gallery.search import build_index
    from edge.gallery.store import CategoryItems
    from edge.manifest.embedder import Head

    rng = np.random.default_rng(0)
    release_heap()
    before, started = resident_mib(), time.perf_counter()

    def category() -> CategoryItems:
        return CategoryItems(
            tuple(f"item-{i:05d}" for i in range(items)),
            tuple(f"An item {i}" for i in range(items)),
            np.zeros(items, np.bool_),
            rng.integers(-127, 128, (items * rows, dim)).astype(np.int8),
            np.full(items * rows, 1 / 127, np.float32),
            np.repeat(np.arange(items, dtype=np.int32), rows),
            (Head(name="class", dim=dim),),
        )

    indexes = [build_index(category()) for _ in range(categories)]
    release_heap()
    return {
        "categories": len(indexes),
        "items of each": items,
        "vectors of each item": rows,
        "dim": dim,
        "mib": round(resident_mib() - before, 1),
        "build_s": round(time.perf_counter() - started, 2),
    }


if __name__ == "__main__":
    main()
