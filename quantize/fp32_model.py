"""The FP32 model that every form of a network is made from: exported from a training run, or copied from elsewhere."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import onnx

from edge.durable import write_durably
from edge.errors import QuantizeError
from edge.inference.onnxruntime_engine import open_session_from_bytes
from edge.inference.preprocess import to_batch
from quantize.forms.form_of import form_of
from quantize.forms.graph import constants
from quantize.forms.legalise import legalise
from quantize.network_spec import Spec, conversion_path, model_entry, read_spec, spec_path, write_spec
from quantize.onnx_file import check_fits, fixed_batch, has_external_weights, largest_batch, read_onnx

log = logging.getLogger(__name__)


def export_or_copy(source: Path, fp32: Path, spec_of: Path | Spec | None = None) -> Spec:
    """Write a network as FP32 ONNX: export a training run, or copy an ONNX file that has a spec beside it.

    The weights of an ONNX file are put into the copy. A spec without `input_name` means the model's own name.

    Raises:
        TrainError: the training run cannot be loaded.
        QuantizeError: the network cannot be exported or read, has no spec, is not what its spec says, is not FP32, or
            has weights that are not finite.
        EngineError: ONNX Runtime cannot run it.
    """
    if source.is_dir():
        from quantize.export import export_fp32

        spec = export_fp32(source, fp32)
        _require_fp32(onnx.load(str(fp32)), source)
        return spec
    if source.suffix != ".onnx" or not source.is_file():
        raise QuantizeError(
            f"{source} is not a training run or an ONNX file; give a run folder or an exported .onnx model"
        )
    model = read_onnx(source)
    _require_fp32(model, source)
    spec = spec_of if isinstance(spec_of, Spec) else read_spec(spec_of or spec_path(source))
    if "input_name" not in spec.model_fields_set:
        spec = spec.model_copy(update={"input_name": model.graph.input[0].name})
    if has_external_weights(source):
        onnx.save(model, str(fp32))
    elif source.resolve() != fp32.resolve():
        shutil.copyfile(source, fp32)  # byte for byte: its hash names the embedding space
    if spec.kind == "finder" and source.resolve() != fp32.resolve():
        shutil.copyfile(conversion_path(source), conversion_path(fp32))
    entry = model_entry(spec, {"fp32": fp32.name}, "fp32", "", "conversion.onnx")
    check_fits(fp32, entry, source)
    most = fixed_batch(model) or largest_batch(fp32, entry)
    if most == 1 and not fixed_batch(model):
        log.warning("%s: does not run batches, although its input says so; packed for one picture at a time", source)
    spec = spec.model_copy(update={"max_batch": most})
    write_spec(fp32, spec)
    return spec


def _require_fp32(model: onnx.ModelProto, where: Path) -> None:
    form = form_of(model)
    if form != "fp32":
        what = "in FP16" if form == "fp16" else "already quantised"
        raise QuantizeError(f"{where}: is {what}; give the FP32 model that it was made from")
    for name, value in constants(model.graph).items():
        if not np.issubdtype(value.dtype, np.floating):
            continue
        # An infinite constant may be a mask; an infinite weight is damage.
        if np.isnan(value).any() or (value.ndim > 1 and np.isinf(value).any()):
            raise QuantizeError(f"{where}: {name!r} holds values that are not finite; train or export the model again")


def legalise_file(fp32: Path, spec: Spec) -> list[str]:
    """Rewrite an FP32 model for TensorRT in place, where that changes no bit of its outputs; return what was done.

    Raises:
        QuantizeError: the rewritten model gives other outputs on a test picture, which is a fault in this program.
        EngineError: ONNX Runtime cannot run it.
    """
    model = onnx.load(str(fp32))
    before = model.SerializeToString()
    done = legalise(model)
    if not done:
        return []
    size = (spec.preprocess.height, spec.preprocess.width, 3)
    batch = to_batch(spec.preprocess, [np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)])
    after = model.SerializeToString()
    outputs = [open_session_from_bytes(one, str(fp32)).run(batch) for one in (before, after)]
    if not all(np.array_equal(a, b) for a, b in zip(*outputs, strict=True)):
        raise QuantizeError(f"{fp32}: gives other outputs after rewriting it for TensorRT ({'; '.join(done)})")
    write_durably(fp32, after)
    return done
