"""Networks that TensorRT must take in every form: published architectures with random weights, and YOLOX-nano."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import torch

from edge.manifest.model import Preprocess
from quantize.detector_specs import find_spec
from quantize.export import export_module
from quantize.forms.write_forms import calibrate_network, write_fp16, write_tensorrt_s8
from quantize.network_spec import Spec
from quantize.pictures import Sample
from trainer.models.timm_library import timm

ROOT = Path(__file__).parents[2]
SIDES_PX = {"mobilenetv2_100": 96, "mobilenetv4_conv_small": 96, "efficientnet_lite0": 96, "resnet18": 64}
YOLOX = ROOT.parent / "shared/data/weights/yolox_nano_coco_416.onnx"
FORMS = ("fp32", "fp16", "tensorrt-s8")
_PICTURES = 3
_LABELS = 16


def preprocess(side_px: int) -> Preprocess:
    """Return the preprocessing of the architectures."""
    return Preprocess(width=side_px, height=side_px, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def export(name: str, folder: Path, side_px: int = 0) -> dict[str, Path]:
    """Export an architecture of timm as a classifier; return the file of each form."""
    torch.manual_seed(7)
    network = timm.create_model(name, pretrained=False, num_classes=_LABELS).eval()
    labels = [f"class {i}" for i in range(_LABELS)]
    spec = Spec(
        kind="classifier",
        output_names=["logits"],
        preprocess=preprocess(side_px or SIDES_PX[name]),
        labels=labels,
    )
    fp32 = folder / f"{name}.fp32.onnx"
    export_module(network, spec, fp32)
    return write_forms(fp32, spec)


def yolox(folder: Path) -> dict[str, Path]:
    """Return the file of each form of YOLOX-nano, whose batch is fixed at one."""
    fp32 = folder / "yolox_nano.fp32.onnx"
    shutil.copyfile(YOLOX, fp32)
    return write_forms(fp32, find_spec(fp32))


def write_forms(fp32: Path, spec: Spec) -> dict[str, Path]:
    """Write the forms for TensorRT as `edge-quantize pack` writes them, calibrated on pictures of the demo."""
    stem = fp32.name.removesuffix(".fp32.onnx")
    forms = {form: fp32.with_name(f"{stem}.{form}.onnx") for form in FORMS}
    paths = sorted((ROOT / "demo/bundle/probes").glob("*.png"))[:_PICTURES]
    pictures = [Sample(path, path.name, "train", "thing", "thing") for path in paths]
    prepared = fp32.with_name(f"{stem}.prepared.onnx")
    calibration = calibrate_network(spec, fp32, pictures, prepared, lambda items, _: items)
    write_fp16(calibration, spec, forms["fp16"])
    write_tensorrt_s8(calibration, spec, forms["tensorrt-s8"], rest="fp16")
    return forms


def fix_batch(source: Path, out: Path, rows: int) -> Path:
    """Write a network of an open batch with a batch of this many rows."""
    model = onnx.load(str(source))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = rows
    onnx.save(model, str(out))
    return out
