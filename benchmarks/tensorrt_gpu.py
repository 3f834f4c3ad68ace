"""TensorRT on a machine with a GPU: builds and runs every model, compares it with ONNX Runtime, and times it.

    .venv/bin/python benchmarks/tensorrt_gpu.py pack FOLDER     here: what the machine needs, in parts of 45 MB
    python3 benchmarks/tensorrt_gpu.py join FOLDER              there: takes the parts in FOLDER; say it for each load
    python3 benchmarks/tensorrt_gpu.py run                      there: measures; writes results/tensorrt_gpu.json

The machine needs this checkout, an NVIDIA driver, and Python with numpy and cuda-bindings; no network. It uses its own
TensorRT where it has one, as a Jetson has, else the packed one: TensorRT for RTX, see scripts/tensorrt_builder.py. The
models are those of the demo bundle, four published architectures with random weights, and YOLOX-nano if its file is
there. Expected outputs are those of ONNX Runtime in FP32 on the packing machine, on real pictures.

`run --build-only` builds with the packed library and needs no GPU.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
WORK = Path(tempfile.gettempdir()) / "finesight-tensorrt-gpu"
RESULTS = ROOT / "benchmarks/results/tensorrt_gpu.json"
PARTS = "parts.json"
WHEELS = ("pydantic", "pydantic-core", "annotated-types", "typing-extensions", "typing-inspection")
ROWS = 8
SIDE_PX = 224  # of the published architectures
RUNS, WARM_UP = 200, 20


def pack(folder: Path, python: str, part_mb: int, networks: Sequence[str]) -> None:
    """Write the library, models, batches and expected outputs as parts of one archive."""
    from scripts.tensorrt_builder import BUILDER, prepare

    if folder.exists():
        sys.exit(f"tensorrt_gpu: {folder} already exists; choose a new folder")
    with tempfile.TemporaryDirectory() as temporary:
        load = Path(temporary)
        if why := prepare(load / "tensorrt", python).get(BUILDER):
            sys.exit(f"tensorrt_gpu: TensorRT {BUILDER}: {why}")
        models = list(_pack_models(load, networks))
        (load / "models.json").write_text(json.dumps(models, indent=1), encoding="utf-8")
        _pack_wheels(load / "site", python)
        folder.mkdir(parents=True)
        archive = folder / "archive"
        with tarfile.open(archive, "w:xz", preset=1) as tar:
            for name in ("models.json", "models", "site", f"tensorrt/{BUILDER}"):
                print(f"  packing {name}", flush=True)
                tar.add(load / name, name)
    digests = {}
    with archive.open("rb") as whole:
        for number, data in enumerate(iter(lambda: whole.read(part_mb * 1_000_000), b"")):
            name = f"part-{number:02}"
            (folder / name).write_bytes(data)
            digests[name] = hashlib.sha256(data).hexdigest()
    archive.unlink()
    (folder / PARTS).write_text(json.dumps(digests, indent=1), encoding="utf-8")
    print(f"{folder}: {len(digests)} parts for Python {python}; carry {PARTS} with each")


def _pack_wheels(site: Path, python: str) -> None:
    """Unpack the small packages that a machine with numpy and cuda-bindings lacks."""
    from importlib.metadata import version

    with tempfile.TemporaryDirectory() as wheels:
        pins = [f"{name}=={version(name)}" for name in WHEELS]
        options = ["--no-deps", "--only-binary=:all:", f"--python-version={python}", "--platform=manylinux_2_17_x86_64"]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-qq", "-d", wheels]
        subprocess.run([*pip, *options, *pins], check=True)
        for wheel in Path(wheels).glob("*.whl"):
            shutil.unpack_archive(wheel, site, "zip")


def _pack_models(load: Path, networks: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Write every form of every model with a batch of real pictures and the outputs in FP32; yield what they are."""
    from edge.bundle.bundle import read_bundle
    from quantize.detector_specs import find_spec
    from tests.integration import tensorrt_networks as published

    folder = load / "models"
    folder.mkdir()
    bundle = read_bundle(ROOT / "demo/bundle")
    manifest = bundle.manifest
    for model in (manifest.detector, manifest.classifier, *manifest.embedders):
        if model is not None:
            forms = {form: bundle.folder / name for form, name in model.files.items()}
            yield _pack_model(folder, Path(model.files["fp32"]).name.split(".")[0], model.preprocess, forms, ROWS)
    for name in networks:
        forms = published.export(name, load, side_px=SIDE_PX)
        yield _pack_model(folder, name, published.preprocess(SIDE_PX), forms, ROWS)
    if published.YOLOX.is_file():
        forms = published.yolox(load)
        yield _pack_model(folder, "yolox_nano", find_spec(forms["fp32"]).preprocess, forms, 1)


def _pack_model(folder: Path, name: str, preprocess: Any, forms: dict[str, Path], rows: int) -> dict[str, Any]:
    from dataset_formats.decode import read_picture
    from edge.inference.engine import open_engine
    from edge.inference.preprocess import to_batch, to_canvas

    pictures = sorted((ROOT.parent / "shared/data/grocery/iconic").glob("*.jpg"))
    pictures = (pictures or sorted((ROOT / "demo/bundle/probes").glob("*.png")))[:rows]
    canvases = [to_canvas(preprocess, read_picture(path)[0])[0] for path in pictures]
    batch = np.resize(to_batch(preprocess, canvases), (rows, *to_batch(preprocess, canvases[:1]).shape[1:]))
    expected = open_engine(forms["fp32"], "onnxruntime").run(batch)
    np.savez(folder / f"{name}.npz", batch, *expected)
    for form, path in forms.items():
        shutil.copyfile(path, folder / f"{name}.{form}.onnx")
    print(f"  {name}: {', '.join(forms)}", flush=True)
    return {"name": name, "forms": list(forms), "rows": rows}


def join(folder: Path, work: Path) -> bool:
    """Take the parts of a folder; unpack when all are there. Return whether they are."""
    digests = json.loads((folder / PARTS).read_text(encoding="utf-8"))
    parts = work / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    for name in digests:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, parts / name)
    missing = [name for name in digests if not (parts / name).is_file()]
    if missing:
        print(f"tensorrt_gpu: still without {', '.join(missing)}")
        return False
    whole = io.BytesIO()
    for name, digest in digests.items():
        data = (parts / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            (parts / name).unlink()
            sys.exit(f"tensorrt_gpu: {name} was damaged on the way; carry it again")
        whole.write(data)
    whole.seek(0)
    with tarfile.open(fileobj=whole, mode="r:xz") as tar:
        tar.extractall(work / "load", filter="data")
    print(f"tensorrt_gpu: unpacked into {work / 'load'}")
    return True


def use_library(load: Path, *, packed: bool) -> None:
    """Let `import tensorrt` find the machine's own library, else the packed one."""
    from importlib.util import find_spec

    if find_spec("pydantic") is None:
        sys.path.append(str(load / "site"))
    if packed or find_spec("tensorrt") is None:
        sys.path.insert(0, str(next((load / "tensorrt").iterdir())))


def run(load: Path, *, build_only: bool) -> dict[str, Any]:
    """Build every model, and run it unless told not to; return the report."""
    use_library(load, packed=build_only)
    import tensorrt

    measure: Callable[[Path, np.ndarray, list[np.ndarray]], dict[str, Any]] = build if build_only else measure_form
    report: dict[str, Any] = {"tensorrt": tensorrt.__version__, "date": date.today().isoformat()}  # noqa: DTZ011
    if not build_only:
        from edge.inference.tensorrt_engine import gpu_kind

        report["gpu"] = str(gpu_kind())
    report["models"] = {}
    for model in json.loads((load / "models.json").read_text(encoding="utf-8")):
        with np.load(load / "models" / f"{model['name']}.npz") as arrays:
            batch, *expected = (arrays[name] for name in arrays.files)
        rows = report["models"][model["name"]] = {}
        for form in model["forms"]:
            path = load / "models" / f"{model['name']}.{form}.onnx"
            if form in {"fp32", "fp16", "tensorrt-s8"}:
                rows[form] = attempt(measure, path, batch, expected)
            if form in {"fp32", "ort-u8"} and not build_only:
                rows[f"onnxruntime cpu {form}"] = attempt(measure_cpu, path, batch, expected)
        print(table_rows(model["name"], rows), flush=True)
    return report


def attempt(measure: Callable[..., dict[str, Any]], path: Path, *rest: Any) -> dict[str, Any]:
    """Measure one form; a form that fails is a row, too."""
    try:
        return measure(path, *rest)
    except Exception as error:  # noqa: BLE001  one model must not end the measurement of the others
        return {"error": f"{type(error).__name__}: {error}"}


def build(path: Path, batch: np.ndarray, _: list[np.ndarray]) -> dict[str, Any]:
    from edge.config.schema import TensorRtConfig
    from edge.inference.tensorrt_build import build_plan

    built = build_plan(path.read_bytes(), path.name, len(batch), TensorRtConfig())
    return {"build_s": round(built.took_s, 2), "plan_bytes": len(built.plan)}


def measure_form(path: Path, batch: np.ndarray, expected: list[np.ndarray]) -> dict[str, Any]:
    """Build, run, compare and time a form, with and without CUDA graphs."""
    from edge.config.schema import TensorRtConfig
    from edge.inference.tensorrt_engine import TensorRtEngine

    row: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        for graphs in (False, True):
            started_s = time.monotonic()
            engine = TensorRtEngine(path, Path(cache), len(batch), TensorRtConfig(cuda_graphs=graphs))
            row["load_s" if graphs else "build_s"] = round(time.monotonic() - started_s, 2)
            row |= agreement(engine.run(batch), expected)
            row |= {f"ms{name}{' graph' if graphs else ''}": ms for name, ms in times(engine, batch).items()}
    return row


def measure_cpu(path: Path, batch: np.ndarray, expected: list[np.ndarray]) -> dict[str, Any]:
    from edge.inference.engine import open_engine

    engine = open_engine(path, "onnxruntime")
    return agreement(engine.run(batch), expected) | {f"ms{name}": ms for name, ms in times(engine, batch).items()}


def times(engine: Any, batch: np.ndarray) -> dict[str, float]:
    """Return the median milliseconds of a run, by the number of rows."""
    found = {}
    for rows in sorted({1, len(batch)} if len(batch) > 1 else {1}):
        taken = []
        for number in range(WARM_UP + RUNS):
            started_s = time.perf_counter()
            engine.run(batch[:rows])
            if number >= WARM_UP:
                taken.append(time.perf_counter() - started_s)
        found[f" {rows}"] = round(1000 * statistics.median(taken), 4)
    return found


def agreement(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> dict[str, float]:
    """Return the lowest cosine of a picture's output to that of FP32, and the relative RMS difference."""
    cosines, differences = [], []
    for got, want in zip(found, expected, strict=True):
        a, b = (np.asarray(one, np.float64).reshape(len(want), -1) for one in (got, want))
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines.append(float(((a * b).sum(axis=1) / np.maximum(norms, 1e-12)).min()))
        differences.append(float(np.sqrt(((a - b) ** 2).mean() / max(float((b**2).mean()), 1e-24))))
    return {"lowest_cosine": round(min(cosines), 6), "relative_rms": round(max(differences), 6)}


def table_rows(name: str, rows: dict[str, dict[str, Any]]) -> str:
    cells = ("build_s", "plan_bytes", "lowest_cosine", "ms 1", "ms 1 graph", f"ms {ROWS}", f"ms {ROWS} graph", "error")
    return "\n".join(
        f"{name:24} {form:24} " + "  ".join(f"{cell} {row[cell]}" for cell in cells if cell in row)
        for form, row in rows.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=["pack", "join", "run"])
    parser.add_argument("folder", nargs="?", type=Path, help="of the parts")
    parser.add_argument("--python", default="3.12", help="of the machine with the GPU")
    parser.add_argument("--part-mb", type=int, default=45)
    parser.add_argument("--networks", nargs="*", help="published architectures to pack; default: all")
    parser.add_argument("--work", type=Path, default=WORK, help="where the parts are joined")
    parser.add_argument("--build-only", action="store_true", help="needs no GPU, measures nothing")
    given = parser.parse_args()
    if given.step != "run" and given.folder is None:
        parser.error("name the folder of the parts")
    if given.step == "pack":
        from tests.integration.tensorrt_networks import SIDES_PX

        pack(given.folder, given.python, given.part_mb, SIDES_PX if given.networks is None else given.networks)
    elif given.step == "join":
        sys.exit(0 if join(given.folder, given.work) else 3)
    else:
        report = run(given.work / "load", build_only=given.build_only)
        if not given.build_only:
            RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
