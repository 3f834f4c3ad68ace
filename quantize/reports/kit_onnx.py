"""The ONNX files of a kit: the FP32 network with a batch of one and static shapes, in two forms of its input.

`uint8` takes what a device has: bytes, (1, height, width, 3). Compilers that take Cast and Transpose need no more.

`nchw` takes float32 (1, 3, height, width) that is already normalised, and starts with the first convolution. Most
vendors' compilers put the normalisation and the change of layout in front by themselves, from two lists of numbers, and
run them in hardware. A Cast, Transpose or Sub in the file would become operators of the CPU.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edge.errors import QuantizeError
from edge.inference.onnxruntime_library import ort
from quantize.forms.fold_normalisation import pool_by_average_pool
from quantize.forms.graph import constants, consumers, drop_unused
from quantize.onnx_file import read_onnx
from quantize.reports.bundle_models import BundleModel

MAX_OPSET = 17  # Hailo's Dataflow Compiler takes no newer one; RKNN-Toolkit2 takes 12 to 19
PARITY = 1e-3  # largest difference from the FP32 form, relative to the largest value of an output
_ARITHMETIC = {"Mul", "Add", "Sub", "Div"}
_TO_NCHW = [0, 3, 1, 2]


@dataclass(frozen=True, slots=True)
class Normalisation:
    """What the `nchw` file expects: (byte - mean) / std, for each channel in the model's colour order."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def apply(self, canvas: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the input of the `nchw` file for (height, width, 3) bytes."""
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        scaled = (canvas.astype(np.float32) - mean) / std
        return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], np.float32)


def write_uint8(one: BundleModel, out: Path) -> None:
    """Write the file that takes what a device has.

    Raises:
        QuantizeError: the file cannot be read, or has shapes that are not static with a batch of one.
    """
    _save(_static(one), one, out)


def write_nchw(one: BundleModel, out: Path) -> Normalisation:
    """Write the file that takes normalised float32; return how to normalise.

    Raises:
        QuantizeError: the file cannot be read, or its first operators are not a normalisation.
    """
    model = _static(one)
    normalisation = _strip_input(model, one)
    _save(model, one, out)
    return normalisation


def _static(one: BundleModel) -> onnx.ModelProto:
    model = read_onnx(one.files["fp32"])
    opset = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    if opset > MAX_OPSET:
        raise QuantizeError(
            f"{one.files['fp32']}: has opset {opset}; the compilers take {MAX_OPSET} at most: export it with that"
        )
    graph = model.graph
    model.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    for output, shape in zip(graph.output, one.model.output_shapes(1), strict=True):
        _set_shape(output, shape)
    pool_by_average_pool(model)
    drop_unused(model)
    return model


def _set_shape(value: onnx.ValueInfoProto, shape: tuple[int, ...]) -> None:
    value.type.tensor_type.shape.Clear()
    for size in shape:
        value.type.tensor_type.shape.dim.add().dim_value = size


def _strip_input(model: onnx.ModelProto, one: BundleModel) -> Normalisation:
    """Remove Cast, Transpose and the normalisation from the input on, in place."""
    graph, preprocess = model.graph, one.spec.preprocess
    known, value = constants(graph), graph.input[0]
    scale, offset = np.ones(3), np.zeros(3)
    name, is_last = value.name, preprocess.layout == "nhwc"
    stripped: list[onnx.NodeProto] = []
    while len(readers := consumers(graph, name)) == 1:
        node = readers[0]
        numbers = next((known[other] for other in node.input if other in known), None)
        if node.op_type == "Transpose" and is_last and list(node.attribute[0].ints) == _TO_NCHW:
            is_last = False
        elif node.op_type in _ARITHMETIC and numbers is not None and numbers.size in {1, 3}:
            if node.op_type in {"Sub", "Div"} and node.input[0] != name:
                break
            row = np.broadcast_to(np.asarray(numbers, np.float64).reshape(-1), (3,))
            if node.op_type in {"Add", "Sub"}:
                offset = offset + (row if node.op_type == "Add" else -row)
            else:
                factor = row if node.op_type == "Mul" else 1 / row
                scale, offset = scale * factor, offset * factor
        elif node.op_type not in {"Cast", "Identity"}:
            break
        stripped.append(node)
        name = node.output[0]
    if is_last or not scale.all():
        raise QuantizeError(
            f"{one.files['fp32']}: its input is not cast, transposed and normalised by plain operators, so there is no "
            "file for compilers that do this themselves"
        )
    for node in stripped:
        graph.node.remove(node)
    for node in consumers(graph, name):
        node.input[list(node.input).index(name)] = value.name
    value.type.tensor_type.elem_type = TensorProto.FLOAT
    _set_shape(value, (1, 3, preprocess.height, preprocess.width))
    drop_unused(model)
    mean, std = (-offset / scale).tolist(), (1 / scale).tolist()
    return Normalisation((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def _save(model: onnx.ModelProto, one: BundleModel, out: Path) -> None:
    """Fold constants and shapes, infer every shape, and write the file."""
    with tempfile.TemporaryDirectory(prefix="finesight-kit-") as folder:
        plain, simple = Path(folder) / "plain.onnx", Path(folder) / "simple.onnx"
        onnx.save(model, str(plain))
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # standard operators only
        options.optimized_model_filepath = str(simple)
        try:
            ort.InferenceSession(str(plain), options, providers=["CPUExecutionProvider"])
            model = onnx.shape_inference.infer_shapes(onnx.load(str(simple)), strict_mode=True, data_prop=True)
        except Exception as error:  # ONNX and ONNX Runtime raise types of their own C++ bindings
            raise QuantizeError(
                f"{one.files['fp32']}: cannot be made static: {(str(error).splitlines() or [''])[0][:300]}"
            ) from error
    if foreign := sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"}):
        raise QuantizeError(f"{one.files['fp32']}: has operators of {foreign}; a kit holds standard ones only")
    _drop_expand(model)
    kept = [entry for entry in model.opset_import if entry.domain in {"", "ai.onnx"}]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    if free := dynamic_tensors(model):
        raise QuantizeError(f"{one.files['fp32']}: the shape of {free[0]!r} stays dynamic with a batch of one")
    onnx.checker.check_model(model)
    onnx.save(model, str(out))


def _drop_expand(model: onnx.ModelProto) -> None:
    """Remove Expand nodes whose only reader broadcasts to that shape itself, in place: few compilers have them."""
    graph = model.graph
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output)
    }
    for node in [node for node in graph.node if node.op_type == "Expand"]:
        expanded = node.output[0]
        readers = consumers(graph, expanded)
        if len(readers) != 1 or readers[0].op_type not in _ARITHMETIC or expanded not in shapes:
            continue
        others = [shapes.get(name) for name in readers[0].input if name != expanded]
        if others == [shapes[expanded]]:
            readers[0].input[list(readers[0].input).index(expanded)] = node.input[0]
            graph.node.remove(node)
    _drop_unused_values(model)


def _drop_unused_values(model: onnx.ModelProto) -> None:
    graph = model.graph
    used = {name for node in graph.node for name in (*node.input, *node.output)}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    for value in [value for value in graph.value_info if value.name not in used]:
        graph.value_info.remove(value)


def dynamic_tensors(model: onnx.ModelProto) -> list[str]:
    """Return the tensors of a graph whose shape is not fixed or not known."""
    graph = model.graph
    known = {v.name: v for v in (*graph.input, *graph.output, *graph.value_info)}
    constant = set(constants(graph))
    named = {name for node in graph.node for name in (*node.input, *node.output) if name} - constant
    return sorted(
        name
        for name in named
        if name not in known
        or not known[name].type.tensor_type.HasField("shape")
        or any(dim.dim_value <= 0 for dim in known[name].type.tensor_type.shape.dim)
    )


def weight_rows(path: Path) -> list[dict[str, object]]:
    """Return the range of the weights of each layer, and what one scale for all channels costs the weakest one."""
    graph = read_onnx(path).graph
    known = {tensor.name: tensor for tensor in graph.initializer}
    rows: list[dict[str, object]] = []
    for node in graph.node:
        if node.op_type not in {"Conv", "Gemm", "MatMul"} or node.input[1] not in known:
            continue
        weight = np.asarray(numpy_helper.to_array(known[node.input[1]]), np.float64)
        transposed = node.op_type == "MatMul" or (
            node.op_type == "Gemm" and not any(a.name == "transB" and a.i for a in node.attribute)
        )
        rows_of = weight.T if transposed else weight
        channels = np.abs(rows_of.reshape(len(rows_of), -1)).max(axis=1)
        used = channels[channels > 0]
        lost = float(np.log2(channels.max() / used.min())) if len(used) else 0.0
        rows.append(
            {
                "layer": node.name or node.output[0],
                "operator": node.op_type,
                "output": node.output[0],
                "weight_min": float(weight.min()),
                "weight_max": float(weight.max()),
                "weight_scale_s8": float(channels.max() / 127),
                "bits_lost_by_weakest_channel": lost,
                "bits_lost_by_median_channel": float(np.log2(channels.max() / np.median(used))) if len(used) else 0.0,
            }
        )
    return rows
