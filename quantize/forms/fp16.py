"""FP32 ONNX to FP16 with explicit types: float16 weights, casts in the graph, float32 where FP16 would not hold.

TensorRT builds strongly typed networks: an operator runs in the type of its inputs, so the graph itself must say what
runs in FP16. Input and outputs keep their types. Bytes 0..255 are exact in FP16, so the graph starts in FP16.

These stay in float32:
1. Activations whose calibrated range exceeds half of FP16's.
2. Weights and constants that FP16 cannot hold: overflow, denormals, a small epsilon.
3. Sums of squares, exponentials, softmax and normalisations, and what follows them up to the next weighted layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge.errors import QuantizeError, first_line
from quantize.forms.calibrate import Range
from quantize.forms.graph import constants_to_initializers, drop_unused, require_plain

LARGEST = 65504.0 / 2  # of an activation: other pictures may give twice what the calibration saw
_ROUNDING = 2e-3  # relative error of a weight from which FP16 does not hold it; rounding alone gives 5e-4 at most
_FP32_OPERATORS = {
    "Exp", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "Log", "LogSoftmax", "LpNormalization",
    "LpPool", "MeanVarianceNormalization", "Pow", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Softmax", "Softplus", "Sqrt", "CumSum",
    "ConstantOfShape", "EyeLike", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range",
}  # fmt: skip
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "QuantizeLinear"}
_ALWAYS_FP32 = {("Resize", 1), ("Resize", 2), ("Upsample", 1)}  # inputs whose type ONNX fixes
_FP16, _FP32 = TensorProto.FLOAT16, TensorProto.FLOAT
_SUFFIX = {_FP16: "_fp16", _FP32: "_fp32"}


def convert(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> list[str]:
    """Convert a network to FP16, in place.

    Args:
        model: the FP32 network, or one with S8 Q/DQ nodes and opset 19 or newer.
        ranges: range of each float activation, by name.

    Returns:
        the names of the nodes that stay in float32.

    Raises:
        QuantizeError: the graph has control flow, or its types cannot be inferred.
    """
    require_plain(model.graph)
    constants_to_initializers(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise QuantizeError(f"cannot infer the types of the graph: {first_line(error)}") from error
    kept = _Conversion(model.graph, inferred.graph, ranges).run()
    drop_unused(model)
    return kept


@dataclass(slots=True)
class _Conversion:
    """One pass over the nodes, in order; it remembers the type in which each float tensor was produced."""

    graph: onnx.GraphProto
    inferred: onnx.GraphProto
    ranges: Mapping[str, Range]
    types: dict[str, int] = field(default_factory=dict)  # of each float activation that was produced
    weights: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    made: dict[tuple[str, int], str] = field(default_factory=dict)  # converted copies, by name and type

    def run(self) -> list[str]:
        """Rewrite the graph and return the names of the nodes in float32."""
        graph = self.graph
        self.weights = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.data_type == _FP32}
        infos = (*self.inferred.value_info, *self.inferred.output)
        floats = {info.name for info in infos if info.type.tensor_type.elem_type == _FP32}
        inputs = {one.name for one in graph.input if one.type.tensor_type.elem_type == _FP32}
        self.types = dict.fromkeys(inputs - set(self.weights), _FP32)
        outputs = {one.name for one in graph.output}
        kept = []
        for node in graph.node:
            produces = [name for name in node.output if name in floats]
            reads = [n for k, n in enumerate(node.input) if self._is_float(n) and (node.op_type, k) not in _ALWAYS_FP32]
            if not produces and not reads:
                self.nodes.append(node)
                continue
            wanted = _FP32 if self._stays_fp32(node, reads, inputs) else _FP16
            if wanted == _FP32:
                kept.append(node.name)
            self._rewrite(node, wanted, produces, outputs)
        del graph.node[:]
        graph.node.extend(self.nodes)
        return kept

    def _is_float(self, name: str) -> bool:
        return name in self.types or name in self.weights

    def _stays_fp32(self, node: onnx.NodeProto, reads: list[str], inputs: set[str]) -> bool:
        if node.op_type in _FP32_OPERATORS:
            return True
        known = [self.ranges[name] for name in (*node.input, *node.output) if name in self.ranges]
        if any(max(-one.low, one.high) > LARGEST for one in known):
            return True
        if any(not _holds(self.weights[name]) for name in reads if name in self.weights):
            return True
        read_as_fp32 = [name for name in reads if self.types.get(name) == _FP32 and name not in inputs]
        return bool(read_as_fp32) and node.op_type not in _WEIGHTED

    def _rewrite(self, node: onnx.NodeProto, wanted: int, produces: list[str], outputs: set[str]) -> None:
        for number, name in enumerate(node.input):
            if self._is_float(name) and (node.op_type, number) not in _ALWAYS_FP32:
                node.input[number] = self._as_type(name, wanted)
            elif name in self.types:  # an activation that ONNX wants in float32
                node.input[number] = self._as_type(name, _FP32)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _FP32:
                attribute.i = wanted
        self.nodes.append(node)
        for name in produces:
            self.types[name] = wanted
            if name in outputs and wanted == _FP16:
                place = list(node.output).index(name)
                self.made[name, _FP16] = node.output[place] = name + _SUFFIX[_FP16]
                self.nodes.append(_cast(node.output[place], name, _FP32))
                self.types[name] = _FP32

    def _as_type(self, name: str, wanted: int) -> str:
        """Return the name of a tensor in a type; converts it once if it is of the other type."""
        if (name, wanted) in self.made:
            return self.made[name, wanted]
        if self.types.get(name, _FP32) == wanted:
            return name
        copy = self.made[name, wanted] = name + _SUFFIX[wanted]
        if name in self.weights:
            self.graph.initializer.append(numpy_helper.from_array(self.weights[name].astype(np.float16), copy))
        else:
            self.nodes.append(_cast(name, copy, wanted))
        return copy


def _cast(name: str, copy: str, wanted: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [copy], name=f"{copy}_cast", to=wanted)


def _holds(weight: NDArray[np.generic]) -> bool:
    """Return whether FP16 holds a weight: overflow and denormals change it by more than rounding does."""
    exact = np.asarray(weight, np.float64)
    exact = exact[np.isfinite(exact)]  # an infinite constant is one in FP16, too
    with np.errstate(over="ignore"):
        error = exact.astype(np.float16).astype(np.float64) - exact
    return bool(np.sqrt((error**2).sum()) <= _ROUNDING * np.sqrt((exact**2).sum()))
