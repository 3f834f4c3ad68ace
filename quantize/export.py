"""Exports a trained network to FP32 ONNX that takes camera bytes. The only module here that imports torch."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from edge.durable import write_durably
from edge.errors import QuantizeError, first_line
from edge.inference.onnxruntime_engine import open_session_from_bytes
from edge.manifest.model import Preprocess
from quantize.forms.fold_normalisation import fold_normalisation, pool_by_average_pool
from quantize.forms.graph import drop_unused
from quantize.forms.merge_padding import merge_padding
from quantize.forms.tensorrt_rules import find_violations
from quantize.network_spec import Spec, conversion_path, write_spec

log = logging.getLogger(__name__)

OPSET = 17
PARITY = 1e-3  # largest allowed difference, relative to the largest output: float rounding
PADDING_PARITY = 5e-2  # the same for the folded graph, whose zero padding is a slightly different grey


class CameraInput(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """Converts bytes (n, h, w, 3) to the normalised floats (n, 3, h, w) that a network was trained on."""

    def __init__(self, network: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        mean = torch.tensor(preprocess.mean).reshape(1, 3, 1, 1)
        std = torch.tensor(preprocess.std).reshape(1, 3, 1, 1)
        self.network = network
        self.register_buffer("scale", 1.0 / (255.0 * std))
        self.register_buffer("bias", -mean / std)

    def forward(self, image: Any) -> Any:
        """Normalise, then run the network."""
        return self.network(image.float().permute(0, 3, 1, 2) * self.scale + self.bias)


def export_module(network: nn.Module, spec: Spec, out_onnx: Path, *, fold: bool = True) -> bool:
    """Export a network, fold its normalisation, compare both with torch, and write the spec beside the file.

    Args:
        network: the network, in eval mode.
        spec: spec of the network.
        out_onnx: the file to write.
        fold: fold the normalisation. A network that is never quantised gains nothing and stays exact without it.

    Returns:
        whether the normalisation was folded into the first convolution.

    Raises:
        QuantizeError: the export failed, or the file does not compute what torch computes.
    """
    wrapped = CameraInput(network, spec.preprocess).eval()
    size = (spec.preprocess.height, spec.preprocess.width)
    out_onnx.parent.mkdir(parents=True, exist_ok=True)
    _trace(wrapped, spec, size, out_onnx)
    model = onnx.load(str(out_onnx))
    merge_padding(model)
    pool_by_average_pool(model)
    drop_unused(model)
    onnx.save(model, str(out_onnx))
    difference = _difference(wrapped, model, size)
    if not difference <= PARITY:
        raise QuantizeError(
            f"{out_onnx}: differs from torch by {difference:.1e} of its largest output, expected at most {PARITY}"
        )
    plain = model.SerializeToString()
    folded = fold and fold_normalisation(model)
    if folded:
        drop_unused(model)
        onnx.checker.check_model(model)
        difference = _difference(wrapped, model, size)
        folded = difference <= PADDING_PARITY
    if not folded:
        model = onnx.load_from_string(plain)
    log.info("%s: normalisation folded: %s, differs from torch by %.1e", out_onnx, folded, difference)
    for finding in find_violations(model):
        log.warning("%s: TensorRT does not take it: %s", out_onnx, finding)
    write_durably(out_onnx, model.SerializeToString())
    write_spec(out_onnx, spec)
    return folded


def _trace(wrapped: nn.Module, spec: Spec, size: tuple[int, int], out_onnx: Path) -> None:
    from trainer.models.fixed_padding import with_fixed_padding

    camera_frame = torch.zeros(1, *size, 3, dtype=torch.uint8)
    try:
        with warnings.catch_warnings():
            # The exporter that needs no onnxscript is deprecated. It also warns of each shape it traces as a constant.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                with_fixed_padding(wrapped, camera_frame),
                (camera_frame,),
                str(out_onnx),
                opset_version=OPSET,
                dynamo=False,
                input_names=[spec.input_name],
                output_names=spec.output_names,
                dynamic_axes={name: {0: "n"} for name in (spec.input_name, *spec.output_names)},
            )
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        raise QuantizeError(f"{out_onnx}: torch cannot export it: {first_line(error)}") from error


def _difference(wrapped: nn.Module, model: onnx.ModelProto, size: tuple[int, int]) -> float:
    """Return the largest difference from torch on a noisy gradient, relative to the largest output."""
    generator = np.random.default_rng(0)
    ramp = np.linspace(0, 200, size[1])[None, None, :, None]
    batch = (ramp + generator.integers(0, 56, (2, *size, 3))).astype(np.uint8)
    with torch.no_grad():
        outputs = wrapped(torch.from_numpy(batch))
    expected = [o.numpy() for o in ([outputs] if isinstance(outputs, torch.Tensor) else outputs)]
    found = open_session_from_bytes(model.SerializeToString(), "exported model").run(batch)
    return max(
        float(np.abs(want - got).max()) / max(float(np.abs(want).max()), 1e-6)
        for want, got in zip(expected, found, strict=True)
    )


def export_fp32(run_folder: Path, out_onnx: Path) -> Spec:
    """Export a training run (`model.safetensors`, `model.json`).

    Raises:
        TrainError: the training run cannot be loaded.
        QuantizeError: the export failed, or the file does not compute what torch computes.
    """
    from trainer.models.networks import ClassifierWithDescriptor, load_model

    network, card = load_model(run_folder)
    if card.kind == "finder" and not card.shared_trunk:
        raise QuantizeError(
            f"{run_folder}: this finder has two trunks; only a finder with a shared trunk can be exported"
        )
    outputs = {
        "detector": [f"stride_{stride}" for stride in card.strides],
        "classifier": ["logits", "descriptor"] if card.descriptor_dim else ["logits"],
        "embedder": ["embedding"],
        "localiser": ["mask"],
        "finder": ["representation", "guide"] if card.guide else ["representation"],
    }[card.kind]
    spec = Spec(
        kind=card.kind,
        output_names=outputs,
        preprocess=card.preprocess,
        strides=card.strides if card.kind in {"detector", "localiser"} else [],
        labels=card.labels,
        categories=card.categories,
        heads=card.vector_parts,
        finder=card.finder,
        channels=card.channels,
        guide=card.guide,
        score_threshold=card.score_threshold,
        temperature=card.temperature,
        descriptor_dim=card.descriptor_dim,
        record={"backbone": card.backbone, "seed": card.seed, "data": card.data, "metrics": card.metrics}
        | ({} if card.cut_to_mask is None else {"cut_to_mask": card.cut_to_mask.metrics}),
    )
    if card.finder is None:
        export_module(ClassifierWithDescriptor(network) if card.descriptor_dim else network, spec, out_onnx)
        return spec
    export_module(network.represent, spec, out_onnx, fold=False)
    stride, given = card.finder.map_stride, card.preprocess
    maps = torch.rand(2, card.finder.maps + card.guide, given.height // stride, given.width // stride)
    _export_conversion(network.conversion, maps, conversion_path(out_onnx))
    return spec


def _export_conversion(network: nn.Module, maps: Any, out_onnx: Path) -> None:
    """Export the conversion network of a finder: heat maps (n, maps, h, w) float32 in, one heat map (n, h, w) out."""
    names = ["maps", "heat"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in _trace
        torch.onnx.export(
            network, (maps,), str(out_onnx), opset_version=OPSET, dynamo=False, input_names=names[:1],
            output_names=names[1:], dynamic_axes={name: {0: "n"} for name in names},
        )  # fmt: skip
    with torch.no_grad():
        wanted = network(maps).numpy()
    got = open_session_from_bytes(out_onnx.read_bytes(), str(out_onnx)).run(maps.numpy())[0]
    difference = float(np.abs(wanted - got).max()) / max(float(np.abs(wanted).max()), 1e-6)
    if not difference <= PARITY:
        raise QuantizeError(
            f"{out_onnx}: differs from torch by {difference:.1e} of its largest output, expected at most {PARITY}"
        )
