"""Catalogues: pictures a second of `edge-train embed`, before and after a change, beside bare decoding and engine.

    git worktree add /tmp/before COMMIT && ln -s "$PWD/.venv" /tmp/before/.venv
    python benchmarks/catalogue.py --before /tmp/before [--rounds 5] [--cases '1200 px']

Real photos of groceries (JPEG, 348 px), in items of five; the same as catalogue pictures, whose plain background is cut
off; and the same enlarged to 1200 px. All are embedded as bottles of the demo's bundle, which costs what the right
category would. `bare` is the least that must be done: read the file, `cv2.imdecode`, one `cv2.resize`, the engine in
batches of eight; it finds no damaged file, writes no thumbnail and no gallery. Models are loaded before the clock
starts. Each checkout runs in a process of its own, on one core and on two, in turn; medians. Also measured: batches for
training by worker processes, and the bytes that a picture leaves behind. Writes benchmarks/results/catalogue.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("FINESIGHT_DATA", ROOT / "../shared/data")).resolve()
PICTURES = {"348 px": 600, "348 px, catalogue": 600, "1200 px": 100}
CORES = (1, 2)
PER_ITEM = 5
WORKERS = (0, 1, 2)
LOADED = 10  # batches of 64 pictures


def main() -> None:
    """Measure both checkouts in alternation and write the report."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.rig import write_report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout to measure beside this one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="*", choices=PICTURES, default=list(PICTURES))
    arguments = parser.parse_args()
    checkouts = {"before": arguments.before.resolve()} if arguments.before else {}
    checkouts |= {"after": ROOT, "bare": ROOT}
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in arguments.cases:
            report |= measure_case(Path(folder), case, checkouts, arguments.rounds)
        report |= measure_loader(Path(folder), arguments.rounds)
    if arguments.before and len(arguments.cases) == len(PICTURES):
        write_report(report, ROOT / "benchmarks/results/catalogue.json")


def measure_case(folder: Path, case: str, checkouts: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Return and print what one case takes, on one core and on two."""
    report = {}
    pictures = write_pictures(folder, case)
    workers = {name: Worker(name, checkout, pictures, case) for name, checkout in checkouts.items()}
    for cores in CORES:
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
        for turn in range(rounds + 1):
            for name, worker in workers.items():
                measured = worker.measure(cores)
                if turn:  # the first warms up
                    runs[name].append(measured)
        report[f"{case}, {cores} cores"] = summary(runs, PICTURES[case])
        print(case, cores, json.dumps(report[f"{case}, {cores} cores"]), flush=True)
    for worker in workers.values():
        worker.close()
    return report


def measure_loader(folder: Path, rounds: int) -> dict[str, Any]:
    """Return and print how many pictures for training worker processes make in a second."""
    worker = Worker("loader", ROOT, write_pictures(folder, "348 px"), "348 px")
    rates: dict[int, list[float]] = {number: [] for number in WORKERS}
    own_ms: dict[int, list[float]] = {number: [] for number in WORKERS}
    for turn in range(rounds + 1):
        for number in WORKERS:
            took = worker.measure(number)
            if turn:
                rates[number].append(LOADED * 64 / took["wall_s"])
                own_ms[number].append(1000 * took["cpu_s"] / (LOADED * 64))
    worker.close()
    report = {
        "batches for training, pictures a second by workers": {n: round(median(v)) for n, v in rates.items()},
        "processor ms a picture in the training process": {n: round(median(v), 3) for n, v in own_ms.items()},
    }
    print(json.dumps(report), flush=True)
    return report


def summary(runs: dict[str, list[dict[str, float]]], pictures: int) -> dict[str, Any]:
    """Return the medians of one case: pictures a second, processor time of a picture, and ratios to `bare`."""
    row: dict[str, Any] = {}
    for name, measured in runs.items():
        row[name] = {
            "pictures_per_s": round(median(pictures / one["wall_s"] for one in measured)),
            "cpu_ms": round(median(one["cpu_s"] for one in measured) / pictures * 1000, 3),
        }
        row[name] |= {"bytes_per_picture": round(measured[0]["bytes"] / pictures)} if measured[0]["bytes"] else {}
        for key in ("wall_s", "cpu_s"):
            ratios = [one[key] / bare[key] for one, bare in zip(measured, runs["bare"], strict=True)]
            row[name][f"{key.removesuffix('_s')}_over_bare"] = round(median(ratios), 2)
    return row


def write_pictures(folder: Path, case: str) -> Path:
    """Return a folder with the photos of a case."""
    out = folder / case.partition(",")[0]
    if out.is_dir():
        return out
    photos = sorted((DATA / "grocery/train").rglob("*.jpg"))[: PICTURES[case]]
    if not photos:
        sys.exit(f"{DATA}/grocery is missing; set FINESIGHT_DATA to the folder that holds it")
    out.mkdir()
    sys.path.insert(0, str(ROOT))
    from edge.imaging.image import encode_image, read_image, resize

    for number, photo in enumerate(photos):
        path = out / f"{number:04d}.jpg"
        if case.startswith("348"):
            shutil.copyfile(photo, path)
        else:
            path.write_bytes(encode_image(resize(read_image(photo), 1200, 1200), ".jpg", 90))
    return out


class Worker:
    """A process of one checkout that measures one run at a time."""

    def __init__(self, name: str, checkout: Path, pictures: Path, case: str) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", name, str(pictures), case]
        environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, cwd=checkout, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def measure(self, number: int) -> dict[str, float]:
        """Return the seconds of one run on that many cores, or with that many workers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        return json.loads(line) if line else sys.exit("a worker failed; its error is above")

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def work(name: str, pictures: Path, case: str) -> None:
    """Measure one run whenever a number comes in; in the checkout that PYTHONPATH names."""
    import cv2

    cv2.setNumThreads(1)
    paths = sorted(pictures.glob("*.jpg"))
    makers = {"bare": bare, "loader": load}
    run = makers[name](paths) if name in makers else embed(paths, "catalogue" if "catalogue" in case else "train")
    allowed = sorted(os.sched_getaffinity(0))
    for line in sys.stdin:
        if name != "loader":
            os.sched_setaffinity(0, allowed[: int(line)])
        cpu_s, started = time.process_time(), time.perf_counter()
        written = run(int(line))
        took = {"wall_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu_s, "bytes": written}
        print(json.dumps(took), flush=True)


def embed(paths: list[Path], split: str) -> Callable[[int], int]:
    """Return what embeds the pictures with this checkout, and returns the bytes of the gallery."""
    try:
        from trainer.catalogue import embed_item as module
        from trainer.catalogue.embed_gallery import embed_gallery
    except ImportError:
        import trainer.embed_gallery as module
        from trainer.embed_gallery import embed_gallery
    from dataset_formats.records import Sample

    samples = [Sample(path, split, "bottle", f"item-{i // PER_ITEM:04d}") for i, path in enumerate(paths)]
    loaded: list[Any] = []
    load_stages = module.load_stages

    def load_once(*words: Any) -> Any:
        if not loaded:
            loaded.append(load_stages(*words))
        return loaded[0]

    module.load_stages = load_once

    def run(_cores: int) -> int:
        with tempfile.TemporaryDirectory() as folder:
            embed_gallery(ROOT / "demo/bundle", samples, Path(folder, "gallery"))
            return sum(path.stat().st_size for path in Path(folder, "gallery").iterdir())

    return run


def bare(paths: list[Path]) -> Callable[[int], int]:
    """Return what decodes the pictures and runs the engine on them, and no more."""
    import cv2
    import numpy as np

    from edge.bundle.bundle import read_bundle
    from edge.inference.engine import open_engine

    bundle = read_bundle(ROOT / "demo/bundle")
    model = next(one for one in bundle.manifest.embedders if "bottle" in one.categories)
    spec = model.preprocess
    assert (spec.resize, spec.layout, spec.interpolation) == ("stretch", "nhwc", "area")
    engine = open_engine(bundle.folder / model.files[model.ship], "onnxruntime", 1, max_batch=8)

    def batch(some: list[Path]) -> None:
        decoded = [cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) for path in some]
        size = (spec.width, spec.height)
        engine.run(np.stack([cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in decoded]))

    def run(cores: int) -> int:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(batch, (paths[start : start + 8] for start in range(0, len(paths), 8))))
        return 0

    return run


def load(paths: list[Path]) -> Callable[[int], int]:
    """Return what makes batches for training, augmented to 224 px, by a number of workers."""
    import torch

    from edge.imaging.image import read_image, resize

    try:
        from edge.manifest.model import Preprocess
    except ImportError:  # an older checkout, where the manifest was one module
        from edge.manifest import Preprocess  # type: ignore[attr-defined,no-redef]
    from trainer.data.augment import augment_crop, canvases_to_input, pad
    from trainer.loop.batch import Batch
    from trainer.loop.batch_maker import make_batches
    from trainer.recipe_parts import Augment

    torch.set_num_threads(1)
    spec, how = Preprocess(width=224, height=224), Augment()
    images = [resize(read_image(path), 290, 290) for path in paths[:256]]

    class Source:
        def batch(self, _step: int, rng: Any) -> Batch:
            crops = [augment_crop(images[i], spec, how, rng) for i in rng.integers(0, len(images), 64)]
            return Batch({"x": canvases_to_input(pad(crops, spec), spec)}, [])

    def run(workers: int) -> int:
        return sum(0 for _ in make_batches(Source(), 0, 0, LOADED, workers))

    return run


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], Path(sys.argv[3]), sys.argv[4])
    else:
        main()
