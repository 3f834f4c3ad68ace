"""TensorRT's rules over an ONNX graph: what its parser and builder refuse, and what would build but be wrong.

The graph must be valid ONNX: packing runs it first. Each finding is one line: where, what is wrong, what to do.
`refused` findings were compared with TensorRT-RTX 1.7, verdict by verdict (tests/tensorrt_cases.py). Others are ours:

1. Operators and opsets that JetPack 6 lacks (TensorRT 10: opset 9 to 20), although TensorRT 11 has them.
2. Weights that are not finite: TensorRT builds them, and the answers are rubbish.
3. U8 with zero point 0: the parser takes it and reads it as S8, so everything above 127 is clipped.
4. Scales per channel on activations, or along another axis than the output channels: built, never fused to INT8.
5. Sides of the input that are not fixed: an optimisation profile of ours has an open batch, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from edge.errors import QuantizeError, first_line
from quantize.forms.graph import constants

OPSETS = range(9, 21)  # of TensorRT 10
# That the parsers of TensorRT 10.1 (its docs/operators.md) and of TensorRT-RTX 1.7 both have.
_BOTH = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil
    Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div
    Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid
    HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less
    LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min
    Mish Mod Mul Neg Not OneHot Or PRelu Pad Pow QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round Scan Scatter
    ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample
    Where Xor
"""
# Newer ones that TensorRT 11 has.
_NEWER = """
    Attention BlackmanWindow CausalConvWithState HammingWindow HannWindow LinearAttention RMSNormalization
    RotaryEmbedding STFT Swish TensorScatter
"""
OPERATORS, NEWER = frozenset(_BOTH.split()), frozenset(_NEWER.split())
_T = TensorProto
TYPES = frozenset({
    _T.FLOAT, _T.FLOAT16, _T.BFLOAT16, _T.DOUBLE, _T.INT8, _T.UINT8, _T.INT32, _T.INT64, _T.BOOL, _T.FLOAT8E4M3FN,
    _T.INT4,
})  # fmt: skip
_SAME_TYPE = frozenset({  # operators whose inputs all have one type
    "Add", "Concat", "Conv", "ConvTranspose", "Div", "Equal", "Gemm", "Greater", "GreaterOrEqual",
    "InstanceNormalization", "LayerNormalization", "Less", "LessOrEqual", "MatMul", "Max", "Mean", "Min", "Mul",
    "PRelu", "Sub", "Sum",
})  # fmt: skip
# Operators without kernels for a type of their first input, as TensorRT-RTX showed case by case.
_NO_INTEGERS = frozenset({
    "AveragePool", "Erf", "Exp", "Floor", "HardSwish", "IsNaN", "LeakyRelu", "MatMul", "MaxPool", "ReduceL2", "Resize",
    "Sigmoid", "Softmax",
})  # fmt: skip
_NO_INT8 = frozenset({
    "Exp", "Floor", "GlobalAveragePool", "IsNaN", "MatMul", "Mod", "Pow", "ReduceL2", "ReduceMean", "Sigmoid",
    "Softmax",
})  # fmt: skip
_NO_BOOL = _NO_INTEGERS | frozenset({
    "Abs", "Add", "Div", "GlobalAveragePool", "Greater", "Less", "Max", "Min", "Mod", "Mul", "Neg", "Pow", "ReduceMean",
    "ReduceSum", "Relu", "Sub",
})  # fmt: skip
_ONLY_BOOL = frozenset({"And", "Not", "Or", "Xor"})
_QUANTISED_TYPES = {_T.INT8, _T.INT4, _T.FLOAT8E4M3FN}  # that DequantizeLinear takes
_COORDINATES = {"align_corners", "asymmetric", "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn"}
_MOST_TOP_K = 3840
_WEIGHTED = {"Conv": 0, "ConvTranspose": 1}  # axis of the output channels in the weight
_EXPORT_AGAIN = "export it again with opset 17"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about a graph that TensorRT does not take."""

    where: str  # node or tensor
    problem: str
    remedy: str
    refused: bool = True  # by the parser or the builder; False: it would build, and be wrong or not fit a device

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}; {self.remedy}"


def find_violations(model: onnx.ModelProto) -> list[Finding]:
    """Return everything in a graph that TensorRT does not take, in the order of the nodes; empty if it builds.

    Raises:
        QuantizeError: the graph is not valid ONNX, so that its types cannot be inferred.
    """
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception as error:  # onnx raises types of its C++ binding
        raise QuantizeError(f"not a valid ONNX graph: {first_line(error)}") from error
    facts = _Facts(graph)
    found = [*_of_model(model), *_of_tensors(facts)]
    for number, node in enumerate(graph.node):
        where = f"{node.op_type} {node.name or f'number {number}'!r}"
        for rule in (_operator, _bytes, _types, _quantisation, _attributes):
            found += rule(node, facts, where)
    return found


def require_legal(model: onnx.ModelProto, where: object) -> None:
    """Check that TensorRT takes a graph.

    Raises:
        QuantizeError: it does not; the message has the first finding and the number of others.
    """
    if found := find_violations(model):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise QuantizeError(f"{where}: TensorRT does not take it: {found[0]}{more}")


@dataclass(slots=True)
class _Facts:
    """What the rules read: types, constants and inputs."""

    graph: onnx.GraphProto
    types: dict[str, int] = field(init=False)
    known: dict[str, NDArray[np.generic]] = field(init=False)
    inputs: set[str] = field(init=False)
    constant: set[str] = field(init=False)  # tensors made of constants only

    def __post_init__(self) -> None:
        infos = (*self.graph.value_info, *self.graph.input, *self.graph.output)
        self.types = {one.name: one.type.tensor_type.elem_type for one in infos}
        self.types |= {tensor.name: tensor.data_type for tensor in self.graph.initializer}
        self.known = constants(self.graph)
        self.inputs = {one.name for one in self.graph.input} - {tensor.name for tensor in self.graph.initializer}
        self.constant = set(self.known)
        for node in self.graph.node:
            if node.input and all(name in self.constant for name in node.input if name):
                self.constant.update(node.output)

    def type_of(self, name: str) -> int:
        """Return the type of a tensor; 0 if it is not known. TensorRT makes float32 of float64."""
        found = self.types.get(name, 0)
        return _T.FLOAT if found == _T.DOUBLE else found


def _of_model(model: onnx.ModelProto) -> Iterator[Finding]:
    opset = next((one.version for one in model.opset_import if one.domain in {"", "ai.onnx"}), 0)
    if opset not in OPSETS:
        problem = f"opset {opset}; TensorRT 10 has {OPSETS[0]} to {OPSETS[-1]}"
        yield Finding("graph", problem, _EXPORT_AGAIN, refused=False)


def _of_tensors(facts: _Facts) -> Iterator[Finding]:
    for tensor in facts.graph.initializer:
        if tensor.data_type not in TYPES:
            yield Finding(f"tensor {tensor.name!r}", f"type {_name(tensor.data_type)}", "store it in float32 or int64")
    for name, value in facts.known.items():
        if np.issubdtype(value.dtype, np.floating) and (np.isnan(value).any() or (value.ndim > 1 and _infinite(value))):
            remedy = "train or export the model again"
            yield Finding(f"tensor {name!r}", "values that are not finite", remedy, refused=False)
    for one in facts.graph.input:
        dims = one.type.tensor_type.shape.dim
        if one.name in facts.inputs and any(not dim.dim_value for dim in dims[1:]):
            remedy = "export it with fixed sides; only the batch may be open"
            yield Finding(f"input {one.name!r}", "a side that is not fixed", remedy, refused=False)


def _infinite(value: NDArray[np.generic]) -> bool:
    return bool(np.isinf(np.asarray(value, np.float64)).any())


def _operator(node: onnx.NodeProto, _: _Facts, where: str) -> Iterator[Finding]:
    if node.op_type in OPERATORS and node.domain in {"", "ai.onnx"}:
        return
    custom = f" of {node.domain}" if node.domain not in {"", "ai.onnx"} else ""
    refused = node.op_type not in OPERATORS | NEWER
    yield Finding(where, f"an operator{custom} that TensorRT 10 lacks", "replace it in the model", refused=refused)


def _bytes(node: onnx.NodeProto, facts: _Facts, where: str) -> Iterator[Finding]:
    """Bytes may only be an input that a Cast reads, a constant, or an output that a Cast makes."""
    for name in node.input:
        variable = facts.type_of(name) == _T.UINT8 and name not in facts.constant
        if variable and node.op_type not in {"Cast", "DequantizeLinear"}:
            yield Finding(where, f"reads the bytes of {name!r}", "put a Cast to float in front of it")
        elif variable and name in facts.inputs and node.op_type == "DequantizeLinear":
            yield Finding(where, f"dequantises the bytes of {name!r}", "use a Cast to float instead")
    ends = {one.name for one in facts.graph.output}
    for name in node.output:
        made = facts.type_of(name) == _T.UINT8 and node.op_type == "Cast" and name not in facts.constant
        if made and name not in ends:
            yield Finding(where, "makes bytes inside the graph", "compute in float")


def _types(node: onnx.NodeProto, facts: _Facts, where: str) -> Iterator[Finding]:
    types = [facts.type_of(name) for name in node.input if name]
    compared = types[1:] if node.op_type == "Where" else types
    if node.op_type in _SAME_TYPE | {"Where"} and len({one for one in compared if one}) > 1:
        listed = " and ".join(dict.fromkeys(_name(one) for one in compared))
        yield Finding(where, f"mixes {listed}", "cast its inputs to one type")
        return
    first = types[0] if types else 0
    forbidden = {_T.INT32: _NO_INTEGERS | {"Relu"}, _T.INT64: _NO_INTEGERS, _T.INT8: _NO_INT8, _T.BOOL: _NO_BOOL}
    if node.op_type in forbidden.get(first, ()) or (node.op_type in _ONLY_BOOL and first not in {0, _T.BOOL}):
        yield Finding(where, f"has no kernel for {_name(first)}", "cast its input first")
    to = next((a.i for a in node.attribute if a.name == "to"), None) if node.op_type == "Cast" else None
    if to is not None and to not in TYPES:
        yield Finding(where, f"casts to {_name(to)}", "use float32, float16 or int64")


def _quantisation(node: onnx.NodeProto, facts: _Facts, where: str) -> Iterator[Finding]:
    if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
        return
    zero = facts.known.get(node.input[2]) if len(node.input) > 2 else None
    scale = facts.known.get(node.input[1])
    name = node.input[0] if node.op_type == "DequantizeLinear" else node.output[0]
    kind = facts.type_of(node.input[2]) if len(node.input) > 2 else facts.type_of(name)
    symmetric = "quantise symmetrically, to S8 with zero point 0"
    if zero is not None and np.any(np.asarray(zero, np.float64)):
        yield Finding(where, "a zero point that is not 0", symmetric)
    elif kind == _T.UINT8 and name in facts.known:
        yield Finding(where, "reads uint8 constants", symmetric)
    elif kind == _T.UINT8 and name not in facts.inputs:
        yield Finding(where, "U8, which TensorRT reads as S8", symmetric, refused=False)
    elif kind not in _QUANTISED_TYPES | {_T.UINT8, 0}:
        remedy = "keep biases in float" if kind == _T.INT32 else symmetric
        yield Finding(where, f"type {_name(kind)}", remedy)
    if scale is None:
        return
    if not (np.asarray(scale, np.float64) > 0).all():
        yield Finding(where, "a scale that is not above 0", "calibrate the model again")
    yield from _scale_axis(node, facts, where, scale)


def _scale_axis(node: onnx.NodeProto, facts: _Facts, where: str, scale: NDArray[np.generic]) -> Iterator[Finding]:
    if scale.size < 2:
        return
    if node.input[0] not in facts.constant:
        yield Finding(where, "a scale per channel on an activation", "use one scale for it", refused=False)
        return
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    for reader in facts.graph.node:
        wanted = _WEIGHTED.get(reader.op_type)
        if wanted is not None and list(reader.input[1:2]) == [node.output[0]] and axis != wanted:
            problem = f"scales along axis {axis} of the weight of {reader.op_type}"
            yield Finding(where, problem, f"use axis {wanted}, its output channels", refused=False)


def _attributes(node: onnx.NodeProto, facts: _Facts, where: str) -> Iterator[Finding]:
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    check = _CHECKS.get(node.op_type)
    if check is not None and (problem := check(node, values, facts)):
        yield Finding(where, problem, _EXPORT_AGAIN)


def _pool(node: onnx.NodeProto, values: dict[str, object], _: _Facts) -> str:
    dilations = values.get("dilations")
    if isinstance(dilations, list) and any(one != 1 for one in dilations):
        return "pools with dilations"
    return "gives the places of the maxima as well" if len(node.output) > 1 else ""


def _resize(_: onnx.NodeProto, values: dict[str, object], __: _Facts) -> str:
    mode = values.get("coordinate_transformation_mode", b"half_pixel")
    if isinstance(mode, bytes) and mode.decode() not in _COORDINATES:
        return f"coordinates {mode.decode()}"
    return "resizes with antialiasing" if values.get("antialias") else ""


def _batch_norm(node: onnx.NodeProto, values: dict[str, object], _: _Facts) -> str:
    return "is in training mode" if values.get("training_mode") or len(node.output) > 1 else ""


def _dropout(node: onnx.NodeProto, _: dict[str, object], facts: _Facts) -> str:
    training = facts.known.get(node.input[2]) if len(node.input) > 2 else None
    return "is in training mode" if training is not None and np.any(training) else ""


def _top_k(node: onnx.NodeProto, _: dict[str, object], facts: _Facts) -> str:
    wanted = facts.known.get(node.input[1]) if len(node.input) > 1 else None
    too_many = wanted is not None and int(np.max(np.asarray(wanted, np.int64))) > _MOST_TOP_K
    return f"more than {_MOST_TOP_K} of the largest" if too_many else ""


def _mod(node: onnx.NodeProto, values: dict[str, object], facts: _Facts) -> str:
    floats = facts.type_of(node.input[0]) in {_T.FLOAT, _T.FLOAT16, _T.BFLOAT16}
    return "takes the remainder of floats without fmod" if floats and not values.get("fmod") else ""


_CHECKS: dict[str, Callable[[onnx.NodeProto, dict[str, object], _Facts], str]] = {
    "AveragePool": _pool,
    "MaxPool": _pool,
    "Mod": _mod,
    "Resize": _resize,
    "BatchNormalization": _batch_norm,
    "Dropout": _dropout,
    "TopK": _top_k,
}


def _name(kind: int) -> str:
    known: dict[int, str] = {number: name.lower() for name, number in TensorProto.DataType.items()}
    return known.get(kind, f"type {kind}").replace("undefined", "an unknown type")
