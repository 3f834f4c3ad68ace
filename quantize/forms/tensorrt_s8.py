"""FP32 ONNX to S8 for TensorRT: symmetric Q/DQ nodes with zero point 0, weights per channel, float biases.

    x -> Q -> DQ -> Conv(DQ(weight), float bias) -> Relu -> Q -> DQ -> ...
    skip -> Q -> DQ -> Add(Conv's output, skip)

TensorRT fuses a convolution with what follows it up to the next Q. So Q/DQ stand on the inputs of convolutions and
weighted layers, and on the other input of an addition that a convolution feeds; never on a convolution's own output.
The tail stays as it is, see quantize.forms.ort_u8. What is not quantised runs in FP16, or in FP32.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge.errors import QuantizeError
from quantize.forms import fp16, weights
from quantize.forms.calibrate import Range
from quantize.forms.graph import (
    constants,
    constants_to_initializers,
    consumers,
    drop_unused,
    require_plain,
    shorten_names,
)
from quantize.forms.ort_u8 import unquantised_tail
from quantize.forms.stored_weights import store_as_s8

Rest = Literal["fp16", "fp32"]
_FP16_OPSET = 19  # from it on the scale of a Q/DQ may be float16
_NARROW = 16  # rows or columns from which a matrix product gains
_STEM_CHANNELS = 4
_SAME_SCALE = 2.0  # inputs of a concatenation share one scale if that costs none more than one bit


@dataclass(frozen=True, slots=True)
class _Weighted:
    """A layer with a constant weight that is quantised."""

    node: onnx.NodeProto
    weight: NDArray[np.float64]
    axis: int  # of the output channels


def write_s8(
    prepared: Path,
    ranges: Mapping[str, Range],
    means: Mapping[str, NDArray[np.float64]],
    out: Path,
    *,
    rest: Rest = "fp16",
    keep: Collection[str] = (),
) -> dict[str, int]:
    """Write the S8 form of a network for TensorRT.

    Args:
        prepared: the FP32 network, written by `ort_u8.prepare`.
        ranges: range of each float activation, by name.
        means: mean of each channel of each map, by name.
        out: the file to write.
        rest: what runs where nothing is quantised.
        keep: names of further nodes that are not quantised.

    Returns:
        number of layers by type: `int8`, and `fp16` or `fp32` for those that are not quantised.

    Raises:
        QuantizeError: the graph cannot be quantised.
    """
    try:
        model = onnx.load(str(prepared))
        require_plain(model.graph)
        constants_to_initializers(model)
        if rest == "fp16":
            model = _with_opset(model, _FP16_OPSET)
        tail = set(unquantised_tail(model)) | set(keep)
        layers = [one for one in _weighted(model.graph) if one.node.name not in tail and _pays(one)]
        quantised = {one.node.name for one in layers}
        others = [one.node.name for one in _weighted(model.graph) if one.node.name not in quantised]
        ranges = _shared_ranges(model.graph, ranges, {one.node.input[0] for one in layers})
        _quantise_weights(model, layers, means)
        _quantise_activations(model.graph, layers, ranges)
        store_as_s8(model, "dequantize")
        kept = fp16.convert(model, ranges) if rest == "fp16" else []
        drop_unused(model)
        shorten_names(model)
        onnx.checker.check_model(model)
        onnx.save(model, str(out))
    except QuantizeError:
        raise
    except Exception as error:  # protobuf and onnx raise their own
        line = (str(error).splitlines() or [""])[0][:300]
        raise QuantizeError(f"{prepared}: cannot quantise to S8: {type(error).__name__}: {line}") from error
    return {"int8": len(layers), **_by_type(rest, others, kept)}


def _by_type(rest: Rest, others: list[str], kept: list[str]) -> dict[str, int]:
    if rest == "fp32":
        return {"fp32": len(others)}
    in_fp32 = len(set(others) & set(kept))
    return {"fp16": len(others) - in_fp32, "fp32": in_fp32}


def _with_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    current = next(one.version for one in model.opset_import if one.domain in {"", "ai.onnx"})
    return model if current >= opset else onnx.version_converter.convert_version(model, opset)


def _weighted(graph: onnx.GraphProto) -> Iterator[_Weighted]:
    """Yield the layers of a graph that have a constant weight."""
    known = constants(graph)
    for node in graph.node:
        if len(node.input) < 2 or node.input[1] not in known:
            continue
        weight = np.asarray(known[node.input[1]], np.float64)
        axis = {
            "Conv": 0,
            "ConvTranspose": 1,
            "Gemm": 0 if _attribute(node, "transB", 0) else 1,
            "MatMul": 1 if weight.ndim == 2 else None,
        }.get(node.op_type)
        if axis is not None:
            yield _Weighted(node, weight, axis)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _pays(layer: _Weighted) -> bool:
    """Return whether INT8 gains on a GPU: its kernels take channels in groups of eight or more."""
    shape: tuple[int, ...] = layer.weight.shape
    if layer.node.op_type in {"Gemm", "MatMul"}:
        return min(shape) >= _NARROW
    group = _attribute(layer.node, "group", 1)
    outputs = shape[0] if layer.node.op_type == "Conv" else shape[1] * group
    inputs = shape[1] * group if layer.node.op_type == "Conv" else shape[0]
    if group > 1:
        return layer.node.op_type == "Conv" and outputs % 8 == 0
    return outputs % 8 == 0 and (inputs % 8 == 0 or inputs <= _STEM_CHANNELS)


def _shared_ranges(graph: onnx.GraphProto, ranges: Mapping[str, Range], quantised: Collection[str]) -> dict[str, Range]:
    """Give a pooled or concatenated map the scale of what it is made of, so that TensorRT need not rescale it."""
    shared = dict(ranges)
    for node in graph.node:
        output = node.output[0] if node.output else ""
        inputs = [name for name in node.input if name in shared]
        if output not in quantised or not inputs:
            continue
        if node.op_type == "MaxPool":
            shared[output] = shared[inputs[0]]
        elif node.op_type == "Concat":
            together = Range(min(shared[n].low for n in inputs), max(shared[n].high for n in inputs))
            for name in inputs:
                if _peak(shared[name]) * _SAME_SCALE >= _peak(together):
                    shared[name] = together
            shared[output] = together
    return shared


def _peak(one: Range) -> float:
    return max(-one.low, one.high)


def _step(peak: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the quantisation step of a peak, rounded up to a float16 so that both types hold the same one."""
    step = np.maximum(peak / weights.PEAK, np.finfo(np.float16).smallest_subnormal * 16)
    rounded = step.astype(np.float16)
    return np.where(rounded < step, np.nextafter(rounded, np.float16(np.inf)), rounded).astype(np.float32)


def _quantise_weights(
    model: onnx.ModelProto, layers: list[_Weighted], means: Mapping[str, NDArray[np.float64]]
) -> None:
    graph = model.graph
    steps = {}
    for layer in layers:
        across = tuple(axis for axis in range(layer.weight.ndim) if axis != layer.axis)
        steps[layer.node.input[1]] = _step(np.abs(layer.weight).max(axis=across))
    weights.correct_bias(model, steps, means)
    position = {id(node): number for number, node in enumerate(graph.node)}
    done: set[str] = set()
    nodes = []
    for layer in sorted(layers, key=lambda one: position.get(id(one.node), 0)):
        name = layer.node.input[1]
        quantised = f"{name}_s8"
        layer.node.input[1] = f"{name}_dequantised"
        if name in done:
            continue
        done.add(name)
        step = steps[name]
        shape = [-1 if axis == layer.axis else 1 for axis in range(layer.weight.ndim)]
        values = weights.rounded_to_steps(layer.weight, step.astype(np.float64).reshape(shape))
        graph.initializer.extend(
            [
                numpy_helper.from_array(values.astype(np.int8), quantised),
                numpy_helper.from_array(step, f"{name}_scale"),
                numpy_helper.from_array(np.zeros(len(step), np.int8), f"{name}_zero"),
            ]
        )
        nodes.append(
            helper.make_node(
                "DequantizeLinear",
                [quantised, f"{name}_scale", f"{name}_zero"],
                [f"{name}_dequantised"],
                name=f"{layer.node.name}_weight",
                axis=layer.axis,
            )
        )
    for number, node in enumerate(nodes):
        graph.node.insert(number, node)


def _quantise_activations(graph: onnx.GraphProto, layers: list[_Weighted], ranges: Mapping[str, Range]) -> None:
    """Put one Q/DQ pair on each tensor that a quantised layer, or an addition beside one, reads."""
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for layer in layers:
        readers.setdefault(layer.node.input[0], []).append((layer.node, 0))
    convolved = {layer.node.output[0] for layer in layers if layer.node.op_type.startswith("Conv")}
    known = constants(graph)
    for node in graph.node:
        if (place := _skip_input(graph, node, convolved, known)) is not None:
            readers.setdefault(node.input[place], []).append((node, place))
        elif node.op_type == "MaxPool" and node.output[0] in readers:
            readers.setdefault(node.input[0], []).append((node, 0))
    producers = {name: node for node in graph.node for name in node.output}
    for name, places in readers.items():
        if name not in ranges:
            raise QuantizeError(f"tensor {name!r} was not calibrated; calibrate this network again")
        pair = _pair(graph, name, ranges[name])
        at = list(graph.node).index(producers[name]) + 1 if name in producers else 0
        for number, node in enumerate(pair):
            graph.node.insert(at + number, node)
        for node, place in places:
            node.input[place] = pair[1].output[0]


def _skip_input(
    graph: onnx.GraphProto, node: onnx.NodeProto, convolved: Collection[str], known: Collection[str]
) -> int | None:
    """Return which input of an addition is the skip connection; None if no convolution feeds the addition alone."""
    if node.op_type != "Add" or node.input[0] == node.input[1]:
        return None
    alone = [name in convolved and len(consumers(graph, name)) == 1 for name in node.input]
    if not any(alone) or any(name in known for name in node.input):
        return None
    return 1 if alone[0] else 0


def _pair(graph: onnx.GraphProto, name: str, of: Range) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    # Camera bytes less a whole centre are whole numbers, which a step of 1 holds. Less 127, white loses one level.
    whole = weights.PEAK / 2 < _peak(of) <= weights.PEAK + 1 and _is_whole(graph, name)
    step = np.float32(1.0) if whole else _step(np.asarray(_peak(of)))[()]
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.asarray(step, np.float32), f"{name}_scale"),
            numpy_helper.from_array(np.asarray(0, np.int8), f"{name}_zero"),
        ]
    )
    parameters = [f"{name}_scale", f"{name}_zero"]
    quantised, dequantised = f"{name}_q", f"{name}_dq"
    return (
        helper.make_node("QuantizeLinear", [name, *parameters], [quantised], name=f"{name}_quantise"),
        helper.make_node("DequantizeLinear", [quantised, *parameters], [dequantised], name=f"{name}_dequantise"),
    )


def _is_whole(graph: onnx.GraphProto, name: str) -> bool:
    """Return whether a tensor is the camera's bytes less a whole number, see quantize.forms.fold_normalisation."""
    sub = next((node for node in graph.node if name in node.output and node.op_type == "Sub"), None)
    centre = None if sub is None else constants(graph).get(sub.input[1])
    return centre is not None and centre.size == 1 and float(centre.reshape(-1)[0]).is_integer()
