"""Bytes that a device downloads for a fine-tuned model: whole, in zstd, as our residual, and as other tools' patches.

    pip install --no-deps --target build/bsdiff bsdiff4==1.3.2   # a peer; without it, its rows are missing
    PYTHONPATH=build/bsdiff python benchmarks/residual.py [--runs FOLDER] [--only NAME]

Every model is trained, trained on, and quantised by this project, each time with its own calibration: nothing of the
first model is kept but what training keeps. Models:

* the embedder `can` of the demo ($RUNS/embedders/can, from benchmarks/reproduce_demo.sh), trained on with edge-train
  for 2 epochs at a tenth of its learning rate, and for 8 epochs at half of it;
* MobileNetV2 trained on ImageNet ($FINESIGHT_DATA/weights), trained on for 40 steps on phone photos
  ($FINESIGHT_DATA/grocery), every layer; and with Gaussian noise on every weight of 0.3, 1 and 3 % of the deviation of
  its tensor: a stand-in, and said so in its name.

Each as FP32, FP16 and INT8 for CPUs. Writes benchmarks/results/residual.json: bytes, share of the whole file, seconds
of a processor to make and to apply it, and the memory by which the process that applies it grew.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import lzma
import os
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
STEPS, BATCH, CALIBRATION = 40, 16, 100
NOISE = (0.003, 0.01, 0.03)
TRAININGS = {"2 epochs, lr 2e-4": (2, 2e-4), "8 epochs, lr 1e-3": (8, 1e-3)}
FORMS = ("fp32", "fp16", "int8")


def main() -> None:
    """Measure every pair, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="folder of the demo's runs and synthetic data")
    parser.add_argument("--work", type=Path, help="folder that keeps the trained models for another run")
    parser.add_argument("--only", default="", help="pairs whose name holds this; the others of the report stay")
    parser.add_argument("--apply", nargs=5, help=argparse.SUPPRESS)  # delivery, base, out, size, hash: one process
    arguments = parser.parse_args()
    if arguments.apply:
        apply_and_print(*arguments.apply)
        return
    from benchmarks.grocery import machine

    out = ROOT / "benchmarks/results/residual.json"
    report: dict[str, Any] = json.loads(out.read_text()) if arguments.only and out.is_file() else {}
    with tempfile.TemporaryDirectory(prefix="finesight-residual-") as scratch:
        work = arguments.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        for name, base, target in pairs(arguments, work):
            report[name] = measure(base, target, Path(scratch))
            print(f"{name:50} {report[name]}", flush=True)
    tools = {tool: installed(tool) for tool in ("zstandard", "bsdiff4", "numpy", "onnx", "torch")}
    report["about"] = {
        "calibration": CALIBRATION,
        "load_1_min": os.getloadavg()[0],
        "tools": tools,
        "date": date.today().isoformat(),  # noqa: DTZ011
        "machine": machine(),
    }
    out.write_text(json.dumps(report, indent=1) + "\n")


def installed(tool: str) -> str | None:
    """Return the version of a package; None: it is not installed."""
    try:
        return version(tool)
    except ImportError:
        return None


def pairs(arguments: argparse.Namespace, work: Path) -> Iterator[tuple[str, Path, Path]]:
    """Yield each pair: its name, the old and the new file."""
    for name, base, target in itertools.chain(
        demo(arguments.runs, work, arguments.only), mobilenet(work, arguments.only)
    ):
        for form in FORMS:
            if arguments.only in f"{name}, {form}":
                yield f"{name}, {form}", base.with_suffix(f".{form}.onnx"), target.with_suffix(f".{form}.onnx")


# the demo's embedder


def demo(runs: Path, work: Path, only: str) -> Iterator[tuple[str, Path, Path]]:
    """Train the embedder `can` on; yield the pairs."""
    from quantize.dataset import read_data
    from quantize.export import export_fp32

    if not any(only in f"demo embedder, {name}" or "demo" in only for name in TRAININGS):
        return
    data = read_data(runs / "synthetic/index.csv", runs / "synthetic/scenes.json", None, None, CALIBRATION, CALIBRATION)
    base = work / "can"
    spec = export_fp32(runs / "embedders/can", base.with_suffix(".fp32.onnx"))
    write_forms(base, spec, data.calibration_crops(spec))
    for name, (epochs, rate) in TRAININGS.items():
        folder = work / f"can-{epochs}"
        if not (folder / "can/model.safetensors").is_file():
            command = ["-m", "trainer.cli", "embedder", "-c", "configs/train/demo-embedder.yaml", "-o", folder]
            more = [f"optimiser.epochs={epochs}", f"optimiser.lr={rate}", f"optimiser.evaluate_every={epochs}"]
            settings = [word for key in more for word in ("--set", key)]
            words = [sys.executable, *command, "--base", runs / "embedders", "--categories", "can", *settings]
            subprocess.run([str(word) for word in words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        target = work / f"can-{epochs}-trained"
        write_forms(target, export_fp32(folder / "can", target.with_suffix(".fp32.onnx")), data.calibration_crops(spec))
        yield f"demo embedder, {name}", base, target


# MobileNetV2


def mobilenet(work: Path, only: str) -> Iterator[tuple[str, Path, Path]]:
    """Train MobileNetV2 on, or put noise on its weights; yield the pairs."""
    import torch
    from safetensors.torch import load_file

    from benchmarks.int8_peers import grocery
    from trainer.models.timm_library import timm

    names = ["mobilenetv2, 40 steps on grocery", *(f"mobilenetv2, noise of {share:.1%}" for share in NOISE)]
    if not any(only in name or "mobilenetv2" in only for name in names):
        return
    folder = Path(os.environ.get("FINESIGHT_DATA", ROOT.parent / "shared/data"))
    weights = load_file(str(folder / "weights/mobilenetv2_100_in1k.safetensors"))
    photos = list(grocery(folder / "grocery", "train"))
    chosen = [photos[number] for number in np.random.default_rng(0).permutation(len(photos))]
    base = work / "mobilenetv2"
    export_mobilenet(weights, base, chosen[:CALIBRATION])
    for name, share in zip(names, (0.0, *NOISE), strict=True):
        torch.manual_seed(0)
        network = timm.create_model("mobilenetv2_100", pretrained=False, pad_type="")
        network.load_state_dict(weights)
        if share:
            for parameter in network.parameters():
                parameter.data += torch.randn_like(parameter) * parameter.std(correction=0) * share
        else:
            train_on(network, chosen[CALIBRATION:])
        target = work / f"mobilenetv2-{share}"
        export_mobilenet(network.state_dict(), target, chosen[:CALIBRATION])
        yield name, base, target


def train_on(network: Any, samples: list[Any]) -> None:
    """Train every layer for some steps, as a fine-tuning does: AdamW at 1e-4, on the first outputs as classes."""
    import torch

    from edge.manifest.model import Preprocess
    from quantize.forms.calibrate import preprocessed_batches

    preprocess = Preprocess(width=224, height=224, interpolation="area", mean=(0.5,) * 3, std=(0.5,) * 3)
    samples = samples[: STEPS * BATCH // 2]
    labels = {item: number for number, item in enumerate(sorted({sample.item for sample in samples}))}
    pictures = np.concatenate(list(preprocessed_batches(samples, preprocess)))
    classes = torch.tensor([labels[sample.item] for sample in samples])
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
    random = np.random.default_rng(0)
    network.train()
    for _ in range(STEPS):
        rows = random.choice(len(pictures), BATCH, replace=False)
        batch = torch.from_numpy(pictures[rows].astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
        loss = torch.nn.functional.cross_entropy(network(batch), classes[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()


def export_mobilenet(weights: Any, out: Path, pictures: list[Any]) -> None:
    """Write the forms of MobileNetV2 with some weights."""
    from safetensors.torch import save_file

    from benchmarks import int8_peers

    stored = out.with_suffix(".safetensors")
    save_file({name: value.contiguous() for name, value in weights.items()}, str(stored))
    write_forms(out, int8_peers.export_mobilenet(stored, out.with_suffix(".fp32.onnx")), pictures)


def write_forms(stem: Path, spec: Any, pictures: list[Any]) -> None:
    """Write the FP16 and the INT8 form of an exported network, as `edge-quantize pack` does."""
    from quantize.command import saturates
    from quantize.forms.write_forms import calibrate_network, write_fp16, write_ort_u8

    prepared = stem.with_suffix(".prepared.onnx")
    fp32 = stem.with_suffix(".fp32.onnx")
    calibration = calibrate_network(spec, fp32, pictures, prepared, lambda all_, _: all_)
    write_fp16(calibration, spec, stem.with_suffix(".fp16.onnx"))
    write_ort_u8(calibration, spec, stem.with_suffix(".int8.onnx"), saturates=saturates("any"))


# measuring


def measure(base: Path, target: Path, scratch: Path) -> dict[str, Any]:
    """Return the bytes of every way from one file to another, and what ours costs."""
    from gallery_sync.transport.compressed import make_residual, make_zstd

    old, new = base.read_bytes(), target.read_bytes()
    row: dict[str, Any] = {"whole_bytes": len(new)}
    ways: dict[str, Callable[[], bytes]] = {
        "zstd": lambda: make_zstd(new),
        "residual": lambda: make_residual(old, new),
        "xz": lambda: lzma.compress(new, preset=9),
        "zstd_patch": lambda: zstd_patch(old, new),
    }
    if installed("bsdiff4"):
        import bsdiff4

        ways["bsdiff"] = lambda: bytes(bsdiff4.diff(old, new))
    made: dict[str, bytes] = {}
    for way, make in ways.items():
        started_s = time.process_time()
        made[way] = make()
        row[way] = {
            "bytes": len(made[way]),
            "share": round(len(made[way]) / len(new), 4),
            "make_cpu_s": round(time.process_time() - started_s, 2),
        }
    for way in ("zstd", "residual"):
        row[way] |= apply_in_process(made[way], base if way == "residual" else None, new, scratch)
    return row


def zstd_patch(old: bytes, new: bytes) -> bytes:
    """Compress as `zstd --patch-from` does: with the old file as a prefix, long matches and a window over both."""
    import zstandard

    window_log = max(10, (len(old) + len(new)).bit_length())
    parameters = zstandard.ZstdCompressionParameters.from_level(
        19, window_log=window_log, enable_ldm=True, source_size=len(new), dict_size=len(old)
    )
    prefix = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdCompressor(dict_data=prefix, compression_params=parameters).compress(new)


def apply_in_process(delivery: bytes, base: Path | None, target: bytes, scratch: Path) -> dict[str, Any]:
    """Apply a delivery in a process of its own; return its time and memory."""
    stored, out = scratch / "delivery", scratch / "made"
    stored.write_bytes(delivery)
    out.unlink(missing_ok=True)
    words = [str(stored), str(base or ""), str(out), str(len(target)), hashlib.sha256(target).hexdigest()]
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), "--apply", *words], capture_output=True, text=True, check=True
    )
    if out.read_bytes() != target:
        raise SystemExit(f"{base}: the delivery does not make the target")
    return dict(json.loads(done.stdout))


def apply_and_print(delivery: str, base: str, out: str, size: str, sha256: str) -> None:
    """Apply a delivery, and print the processor time and the memory that it took beside the imports."""
    from benchmarks.int8_peers import peak_mib
    from gallery_sync.transport.compressed import apply_delivery

    before_mib = peak_mib()
    started_s = time.process_time()
    apply_delivery(Path(delivery), Path(base) if base else None, Path(out), int(size), sha256)
    took_s = time.process_time() - started_s
    print(json.dumps({"apply_cpu_s": round(took_s, 3), "grew_mib": peak_mib() - before_mib}))


if __name__ == "__main__":
    main()
