"""Our INT8 compared with ONNX Runtime's quantize_static and with NNCF, on the same models and pictures.

    edge-train synthesize -o runs/synthetic                    # the pictures of the demo's models
    python3 -m venv build/nncf
    build/nncf/bin/pip install nncf==3.4.0 onnx==1.23.2 openvino==2026.4.1 onnxruntime==1.31.1
    NNCF_PYTHON=build/nncf/bin/python python benchmarks/int8_peers.py [--masters FOLDER] [--data FOLDER] [--only NAME]

Models: the FP32 masters of the demo bundle, and MobileNetV2 trained on ImageNet ($FINESIGHT_DATA/weights) on phone
photos ($FINESIGHT_DATA/grocery). Every tool gets the same FP32 file, the same 200 calibration pictures in the same
preprocessing, per-channel weights and Q/DQ nodes. Each method quantises in a process of its own, which gives its
processor time and its peak memory. Accuracy is measured with ONNX Runtime on this machine, on held-out pictures: the
cosine with FP32's output of each picture, and the share of pictures with the same answer (top class, or nearest item of
the gallery). Times are interleaved medians of processor time on one thread. Without NNCF its rows say why they are
missing. Writes benchmarks/results/int8_peers.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
CALIBRATION, HELD_OUT, RUNS = 200, 500, 60
METHODS = ("ours", "ort min-max", "ort entropy", "ort percentile", "ort percentile 7 bits", "nncf")
NNCF_PINNED = "3.4.0"
SEVEN_BITS = " 7 bits"
LARGE_PX, CHUNK = 200, 10  # pictures above this side are calibrated in chunks by ONNX Runtime


def main() -> None:
    """Compare every method on every model, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masters", type=Path, default=ROOT / "demo/bundle/models", help="folder of *.fp32.onnx")
    parser.add_argument("--data", type=Path, default=ROOT / "runs/synthetic", help="the demo's synthetic data")
    parser.add_argument("--only", default="", help="models whose name holds this; the others of the report stay")
    parser.add_argument("--quantise", nargs=4, help=argparse.SUPPRESS)  # method, model, pictures, out: one process
    arguments = parser.parse_args()
    if arguments.quantise:
        quantise(*arguments.quantise)
        return
    from benchmarks.grocery import machine

    out = ROOT / "benchmarks/results/int8_peers.json"
    report: dict[str, Any] = json.loads(out.read_text()) if arguments.only and out.is_file() else {}
    with tempfile.TemporaryDirectory(prefix="finesight-peers-") as scratch:
        for name, fp32, spec, calibration, held_out, gallery in models(arguments, Path(scratch)):
            (Path(scratch) / "spec.json").write_text(spec.model_dump_json())
            report[name] = compare(name, fp32, (calibration, held_out, gallery), Path(scratch))
    tools = {tool: version(tool) for tool in ("onnxruntime", "openvino", "onnx", "numpy")}
    report["about"] = {
        "calibration": CALIBRATION,
        "runs": RUNS,
        "load_1_min": os.getloadavg()[0],
        "tools": {**tools, "nncf": NNCF_PINNED},
        "date": date.today().isoformat(),  # noqa: DTZ011
        "machine": machine(),
    }
    out.write_text(json.dumps(report, indent=1) + "\n")


Pictures = tuple[np.ndarray, list[str]]  # (n, ...) input of the model, and the item or class of each
Models = Iterator[tuple[str, Path, Any, Pictures, Pictures, Pictures | None]]


def models(arguments: argparse.Namespace, scratch: Path) -> Models:
    """Yield each model: name, FP32 file, spec, calibration and held-out pictures, and the gallery of an embedder."""
    from quantize.dataset import read_data
    from quantize.forms.calibrate import preprocessed_batches
    from quantize.network_spec import Spec
    from quantize.reports.bundle_models import bundle_models

    bundle_of = {one.name: one for one in bundle_models(ROOT / "demo/bundle")}
    data = read_data(arguments.data / "index.csv", arguments.data / "scenes.json", None, None, CALIBRATION, HELD_OUT)

    def batches(samples: list[Any], spec: Spec) -> Pictures:
        return np.concatenate(list(preprocessed_batches(samples, spec.preprocess))), [one.item for one in samples]

    for name, one in bundle_of.items():
        if one.spec.kind not in {"classifier", "embedder"} or arguments.only not in name:
            continue
        crops = data.calibration_crops(one.spec), data.held_out_crops(one.spec)
        gallery = batches(data.gallery_crops(one.spec), one.spec) if one.spec.kind == "embedder" else None
        fp32 = arguments.masters / f"{name}.fp32.onnx"
        yield name, fp32, one.spec, batches(crops[0], one.spec), batches(crops[1], one.spec), gallery
    folder = Path(os.environ.get("FINESIGHT_DATA", ROOT.parent / "shared/data"))
    if (folder / "weights/mobilenetv2_100_in1k.safetensors").is_file() and arguments.only in "mobilenetv2":
        fp32 = scratch / "mobilenetv2.fp32.onnx"
        spec = export_mobilenet(folder / "weights/mobilenetv2_100_in1k.safetensors", fp32)
        photos = {split: list(grocery(folder / "grocery", split)) for split in ("train", "val")}
        chosen = np.random.default_rng(0).permutation(len(photos["train"]))[:CALIBRATION]
        calibration = [photos["train"][i] for i in chosen]
        yield "mobilenetv2", fp32, spec, batches(calibration, spec), batches(photos["val"], spec), None


def grocery(folder: Path, split: str) -> Iterator[Any]:
    """Yield the photos of a split; paths in the index start at the folder above."""
    from quantize.pictures import Sample

    with (folder / "index.csv").open() as file:
        for row in csv.DictReader(file):
            if row["split"] == split:
                yield Sample(folder.parent / row["path"], row["path"], split, row["coarse"], row["fine"])


def export_mobilenet(weights: Path, out: Path) -> Any:
    """Export MobileNetV2 with its ImageNet classifier, as `edge-quantize export` exports a network."""
    from safetensors.torch import load_file

    from edge.manifest.model import Preprocess
    from quantize.export import export_module
    from quantize.network_spec import Spec
    from trainer.models.timm_library import timm

    network = timm.create_model("mobilenetv2_100", pretrained=False, pad_type="")
    network.load_state_dict(load_file(str(weights)))
    labels = [f"class {number}" for number in range(1000)]
    preprocess = Preprocess(width=224, height=224, interpolation="area", mean=(0.5,) * 3, std=(0.5,) * 3)
    spec = Spec(kind="classifier", output_names=["logits"], preprocess=preprocess, labels=labels)
    export_module(network.eval(), spec, out)
    return spec


def compare(
    name: str, fp32: Path, pictures: tuple[Pictures, Pictures, Pictures | None], scratch: Path
) -> dict[str, Any]:
    """Quantise a model with every method, and measure each result."""
    from edge.inference.engine import open_engine
    from quantize.latency import interleaved_ms

    calibration, held_out, gallery = pictures
    fp32 = Path(shutil.copyfile(fp32, scratch / "network.onnx"))
    np.save(scratch / "calibration.npy", calibration[0])
    files: dict[str, Path] = {"fp32": fp32}
    rows: dict[str, Any] = {"pictures": len(held_out[0]), "fp32": {}}
    for method in METHODS:
        out = scratch / f"{name}.{method.replace(' ', '-')}.onnx"
        rows[method] = in_process(method, fp32, scratch / "calibration.npy", out)
        if out.is_file():
            files[method] = out
    want = run(fp32, held_out[0])
    want_gallery = None if gallery is None else run(fp32, gallery[0])
    for method, path in files.items():
        got = run(path, held_out[0])
        got_gallery = None if gallery is None else run(path, gallery[0])
        rows[method] |= agreement(want, got, want_gallery, got_gallery, gallery)
    batch = held_out[0][:1]
    for backend in ("onnxruntime", "openvino"):
        engines = [open_engine(path, backend) for path in files.values()]
        clock: Callable[[], float] = time.process_time if backend == "openvino" else time.thread_time
        for method, ms in zip(files, interleaved_ms(engines, batch, RUNS, clock), strict=True):
            rows[method][f"{backend}_ms"] = round(ms, 3)
    for method in ("fp32", *METHODS):
        print(f"{name:18} {method:15} {rows[method]}", flush=True)
    return rows


def agreement(
    want: np.ndarray,
    got: np.ndarray,
    want_gallery: np.ndarray | None,
    got_gallery: np.ndarray | None,
    gallery: Pictures | None,
) -> dict[str, float]:
    """Return the cosine with FP32 over the pictures, and the share of equal answers."""
    cosine = (want * got).sum(1) / (np.linalg.norm(want, axis=1) * np.linalg.norm(got, axis=1))
    if gallery is None or want_gallery is None or got_gallery is None:
        same = want.argmax(1) == got.argmax(1)
    else:
        items = np.asarray(gallery[1])
        same = items[(want @ want_gallery.T).argmax(1)] == items[(got @ got_gallery.T).argmax(1)]
    percentile = float(np.percentile(cosine, 1))
    return {
        "cosine_mean": round(float(cosine.mean()), 5),
        "cosine_p1": round(percentile, 5),
        "same_answer": round(float(same.mean()), 4),
    }


def run(path: Path, batch: np.ndarray) -> np.ndarray:
    """Return the first output of every picture, one at a time."""
    from edge.inference.engine import open_engine

    engine = open_engine(path, "onnxruntime")
    return np.concatenate([np.asarray(engine.run(batch[i : i + 1])[0], np.float32) for i in range(len(batch))])


def in_process(method: str, fp32: Path, pictures: Path, out: Path) -> dict[str, Any]:
    """Quantise in a process of its own; return its time and memory, or why it failed."""
    python = os.environ.get("NNCF_PYTHON", sys.executable) if method == "nncf" else sys.executable
    command = [python, str(Path(__file__)), "--quantise", method, str(fp32), str(pictures), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"skipped": (done.stderr.strip().splitlines() or ["no output"])[-1][:300]}
    return dict(json.loads(lines[-1]))


def quantise(method: str, fp32: str, pictures: str, out: str) -> None:
    """Quantise with one method, and print the processor time and the peak memory of this process."""
    batches = np.load(pictures)
    quantiser = {"ours": ours, "nncf": nncf}.get(method, ort_static)
    before_mib = peak_mib()
    started_s = time.process_time()
    more = quantiser(method, Path(fp32), batches, Path(out)) or {}
    took_s = time.process_time() - started_s
    measured = {"cpu_seconds": round(took_s, 1), "peak_mib": peak_mib(), "grew_mib": peak_mib() - before_mib}
    print(json.dumps(measured | more))


def peak_mib() -> int:
    """Return the largest memory of this process so far, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def ours(_: str, fp32: Path, batches: np.ndarray, out: Path) -> dict[str, Any]:
    """Quantise as `edge-quantize pack` does: calibrate once, try each percentile, keep the nearest to FP32."""
    from edge.imaging.image import encode_image
    from quantize.command import saturates
    from quantize.forms.write_forms import quantize_network
    from quantize.network_spec import read_spec
    from quantize.pictures import Sample

    with tempfile.TemporaryDirectory() as folder:
        pictures = [Sample(Path(folder) / f"{i}.png", f"{i}.png", "train", "", "") for i in range(len(batches))]
        for picture, canvas in zip(pictures, batches, strict=True):
            picture.path.write_bytes(encode_image(canvas, ".png"))
        spec = read_spec(fp32.parent / "spec.json")
        record = quantize_network(spec, fp32, pictures, out, saturates=saturates("this"), progress=lambda all_, _: all_)
    return {key: record[key] for key in ("percentile", "saturation_free")}


def ort_static(method: str, fp32: Path, batches: np.ndarray, out: Path) -> dict[str, Any]:
    """Quantise with ONNX Runtime: U8 activations, S8 weights per channel, Q/DQ, after its own pre-processing.

    By default it keeps the activations of all pictures in memory; for large pictures that is gigabytes.
    """
    from edge.inference.onnxruntime_library import ort

    # isort: split
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self, name: str) -> None:
            self._name = name
            self.set_range(0, len(batches))

        def __len__(self) -> int:
            return len(batches)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._feeds = iter({self._name: batches[i : i + 1]} for i in range(start_index, end_index))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._feeds, None)

    chunked = max(batches.shape[1:3]) > LARGE_PX
    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
    methods = {
        "ort min-max": CalibrationMethod.MinMax,
        "ort entropy": CalibrationMethod.Entropy,
        "ort percentile": CalibrationMethod.Percentile,
    }
    quantize_static(
        str(prepared),
        str(out),
        Reader(ort.InferenceSession(str(prepared), providers=["CPUExecutionProvider"]).get_inputs()[0].name),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=methods[method.removesuffix(SEVEN_BITS)],
        reduce_range=method.endswith(SEVEN_BITS),  # its cure for CPUs without an 8-bit dot product
        extra_options={"CalibStridedMinMax": CHUNK} if chunked else {},
    )
    return {"pictures_at_once": CHUNK if chunked else len(batches)}


def nncf(_: str, fp32: Path, batches: np.ndarray, out: Path) -> None:
    """Quantise with NNCF's defaults: mixed preset off, fast bias correction, 200 pictures."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its reports stay here
    try:
        import nncf as library
        import onnx
    except ImportError as error:
        sys.exit(f"nncf is not installed here ({error}); see NNCF_PYTHON at the top of this file")
    model = onnx.load(str(fp32))
    name = model.graph.input[0].name
    dataset = library.Dataset([{name: batches[i : i + 1]} for i in range(len(batches))])
    onnx.save(library.quantize(model, dataset, subset_size=len(batches)), str(out))


if __name__ == "__main__":
    main()
