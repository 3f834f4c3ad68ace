"""INT8 against FP32 in ONNX Runtime, with and without groups of four pixels in the first convolution.

    python benchmarks/int8_speed.py [MODEL.onnx ...]

Without arguments: the demo's FP32 models, MobileNetV2, ResNet-18 and YOLOX-nano.

One thread, one picture, alternating forms, medians of CPU time. Calibrated on noise: only the speed counts here. Each
form is written twice from one calibration; `same_bits` says that both computed the same outputs, bit for bit.
MobileNetV2 and ResNet-18 are timm's, at 224 px with random weights. Writes benchmarks/results/int8_speed.json.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("FINESIGHT_DATA", ROOT.parent / "shared/data"))
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import onnx  # noqa: E402

from benchmarks.grocery import machine  # noqa: E402
from edge.inference.engine import open_engine  # noqa: E402
from quantize.forms import calibrate, ort_u8  # noqa: E402
from quantize.latency import cpu_info, interleaved_ms  # noqa: E402

_PUBLISHED = ("mobilenetv2_100", "resnet18")
_BATCHES = 4
_RUNS = 60
_SATURATES = ort_u8.lacks_dot_product(cpu_info())


def models(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name and the FP32 file of each network."""
    if sys.argv[1:]:
        yield from ((Path(given).stem.removesuffix(".fp32"), Path(given)) for given in sys.argv[1:])
        return
    for path in sorted((ROOT / "demo/bundle/models").glob("*.fp32.onnx")):
        yield path.stem.removesuffix(".fp32"), path
    for name in _PUBLISHED:
        yield name, exported(name, folder / f"{name}.onnx")
    yield "yolox_nano", DATA / "weights/yolox_nano_coco_416.onnx"


def exported(name: str, out_onnx: Path) -> Path:
    """Export a network of timm with random weights."""
    from edge.manifest.model import Preprocess
    from quantize.export import export_module
    from quantize.network_spec import Spec
    from trainer.models.timm_library import timm

    given = Preprocess(width=224, height=224, resize="letterbox", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    spec = Spec(kind="classifier", output_names=["logits"], preprocess=given, labels=[str(n) for n in range(1000)])
    export_module(timm.create_model(name, pretrained=False).eval(), spec, out_onnx)
    return out_onnx


def noise(path: Path) -> list[np.ndarray]:
    """Return pictures of noise for the input of a network."""
    given = onnx.load(str(path), load_external_data=False).graph.input[0].type.tensor_type
    shape = [1, *(dim.dim_value for dim in given.shape.dim[1:])]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(given.elem_type)
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, shape).astype(dtype) for _ in range(_BATCHES)]


def write_int8(fp32: Path, folder: Path, batches: list[np.ndarray]) -> list[Path]:
    """Write the INT8 form with single pixels and with groups."""
    prepared, single, grouped = (folder / f"{name}.onnx" for name in ("prepared", "single", "grouped"))
    ort_u8.prepare(fp32, prepared)
    histograms = calibrate.collect_histograms(prepared, batches)
    ranges = {name: histogram.range(100.0) for name, histogram in histograms.items()}
    means = {name: h.channel_means for name, h in histograms.items() if h.channel_means is not None}
    ort_u8.write_int8(prepared, ranges, means, grouped, saturates=_SATURATES)
    with patch.object(ort_u8, "group_pixels", lambda *_: False):
        ort_u8.write_int8(prepared, ranges, means, single, saturates=_SATURATES)
    return [single, grouped]


def main() -> None:
    """Measure every network and write the report."""
    rows: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, fp32 in models(Path(scratch)):
            batches = noise(fp32)
            forms = write_int8(fp32, Path(scratch), batches)
            engines = [open_engine(path, "onnxruntime") for path in (fp32, *forms)]
            fp32_ms, single_ms, grouped_ms = interleaved_ms(engines, batches[0], runs=_RUNS)
            single, grouped = (engine.run(batches[1]) for engine in engines[1:])
            rows[name] = {
                "input": list(batches[0].shape[1:]),
                "fp32_ms": round(fp32_ms, 3),
                "int8_single_pixels_ms": round(single_ms, 3),
                "int8_ms": round(grouped_ms, 3),
                "speedup_single_pixels": round(fp32_ms / single_ms, 2),
                "speedup": round(fp32_ms / grouped_ms, 2),
                "same_bits": all(np.array_equal(a, b) for a, b in zip(single, grouped, strict=True)),
            }
            print(name, rows[name])
    report = {
        "networks": rows,
        "runs": _RUNS,
        "clock": "CPU time of one thread",
        "dot_product": not _SATURATES,
        "onnxruntime": version("onnxruntime"),
        "date": date.today().isoformat(),  # noqa: DTZ011
        "machine": machine(),
    }
    (ROOT / "benchmarks/results/int8_speed.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
