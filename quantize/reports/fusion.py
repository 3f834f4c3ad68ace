"""The fusion audit: for each convolution of an ONNX file, the precision an engine runs it in, and why.

Each engine has its own module, because each reports it differently: ONNX Runtime in its optimised graph, OpenVINO in
its runtime model, TensorRT in its engine inspector. This module holds what they share: the convolutions of the file,
and what the file itself says about each.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import onnx

from edge.errors import QuantizeError
from quantize.forms.ort_u8 import unquantised_tail
from quantize.onnx_file import read_onnx

Precision = Literal["INT8", "FP16", "FP32"]
_CONVOLUTIONS = ("Conv", "ConvTranspose")
FOLDED = ("Relu", "Clip")  # activations that a quantised convolution takes into its own range
_BIAS = 2  # input of a convolution
ON_PURPOSE = "kept in floating point on purpose: last weighted layer of an output"


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution of the file, and how an engine runs it."""

    name: str  # of the node in the file
    shape: str  # for people: "3x3, 16 to 32 channels, stride 2"
    precision: Precision
    runs_as: str  # the engine's own word: operator, primitive or layer
    why: str = ""  # why it is not INT8; empty if it is
    ms: float | None = None  # median time of one run on one picture; None: the engine does not report it

    def row(self) -> dict[str, Any]:
        """Return the convolution as the report's JSON stores it."""
        return {
            "name": self.name,
            "shape": self.shape,
            "precision": self.precision,
            "runs_as": self.runs_as,
            "why": self.why,
            "ms": None if self.ms is None else round(self.ms, 4),
        }


@dataclass(frozen=True, slots=True)
class FusionAudit:
    """What one engine does with the convolutions of one file."""

    engine: str
    source: str  # where this comes from: what the engine itself says, or the rules applied to the graph
    convolutions: tuple[Convolution, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of convolutions in each precision."""
        return dict(sorted(Counter(one.precision for one in self.convolutions).items()))

    def row(self) -> dict[str, Any]:
        """Return the audit as the report's JSON stores it."""
        return {
            "engine": self.engine,
            "source": self.source,
            "counts": self.counts,
            "convolutions": [one.row() for one in self.convolutions],
        }


@dataclass(slots=True)
class Graph:
    """An ONNX graph with what reads and what writes each tensor."""

    model: onnx.ModelProto
    producer: dict[str, onnx.NodeProto] = field(default_factory=dict)
    readers: Mapping[str, list[onnx.NodeProto]] = field(default_factory=lambda: defaultdict(list))
    weights: dict[str, onnx.TensorProto] = field(default_factory=dict)
    tail: frozenset[str] = frozenset()  # nodes from the last weighted layer of each output on
    outputs: frozenset[str] = frozenset()

    @property
    def convolutions(self) -> list[onnx.NodeProto]:
        """The convolutions, in the order of the file."""
        return [node for node in self.model.graph.node if node.op_type in _CONVOLUTIONS]

    @property
    def is_quantised(self) -> bool:
        """Whether the file holds Q/DQ nodes."""
        return any(node.op_type == "DequantizeLinear" for node in self.model.graph.node)


def read_graph(path: Path) -> Graph:
    """Read the graph of an ONNX file.

    Raises:
        QuantizeError: the file is missing, damaged or no ONNX file.
    """
    model = read_onnx(path)
    graph = Graph(model)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
        graph.producer.update(dict.fromkeys(node.output, node))
        for name in node.input:
            graph.readers[name].append(node)
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            graph.weights[node.output[0]] = node.attribute[0].t
    graph.weights |= {tensor.name: tensor for tensor in model.graph.initializer}
    graph.tail = frozenset(unquantised_tail(model))
    graph.outputs = frozenset(output.name for output in model.graph.output)
    if not graph.convolutions:
        raise QuantizeError(f"{path}: has no convolution; there is nothing to audit")
    return graph


def shape_of(graph: Graph, conv: onnx.NodeProto) -> str:
    """Describe a convolution: kernel, channels, stride, groups."""
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in conv.attribute}
    weight = _behind(graph, conv.input[1])
    if weight is None:
        return "weights from another node"
    out, inner, *kernel = weight.dims
    group = int(attributes.get("group", 1))
    parts = ["x".join(map(str, kernel)), f"{inner * group} to {out} channels"]
    if (stride := max(attributes.get("strides", [1]))) > 1:
        parts.append(f"stride {stride}")
    if group > 1:
        parts.append("depthwise" if inner == 1 else f"{group} groups")
    return ", ".join(parts)


def _behind(graph: Graph, name: str) -> onnx.TensorProto | None:
    """Return the constant behind a tensor, through Q/DQ, Identity and Cast nodes."""
    while name not in graph.weights:
        node = graph.producer.get(name)
        if node is None or node.op_type not in {"DequantizeLinear", "QuantizeLinear", "Identity", "Cast"}:
            return None
        name = node.input[0]
    return graph.weights[name]


def graph_precision(graph: Graph, conv: onnx.NodeProto) -> Precision:
    """Return the precision that the file itself asks for, by Q/DQ nodes and types of weights."""
    if not why_not_int8(graph, conv):
        return "INT8"
    weight = graph.weights.get(conv.input[1]) or _behind(graph, conv.input[1])
    return "FP16" if weight is not None and weight.data_type == onnx.TensorProto.FLOAT16 else "FP32"


def why_not_int8(graph: Graph, conv: onnx.NodeProto) -> str:
    """Return what in the file keeps a convolution from INT8; empty if nothing does."""
    if not graph.is_quantised:
        return "the file is not quantised"
    why = ""
    source, weight = graph.producer.get(conv.input[0]), graph.producer.get(conv.input[1])
    if source is None or source.op_type != "DequantizeLinear":
        why = f"its input is not quantised: it comes from {'the input' if source is None else source.op_type}"
    elif weight is None or weight.op_type != "DequantizeLinear":
        why = "its weights are not quantised"
    return ON_PURPOSE if why and conv.name in graph.tail else why


def why_not_fused(graph: Graph, conv: onnx.NodeProto) -> str:
    """Return why ONNX Runtime cannot fuse a quantised convolution into one INT8 operator; empty if it can."""
    if why := why_not_int8(graph, conv):
        return why
    bias = _behind(graph, conv.input[_BIAS]) if len(conv.input) > _BIAS else None
    if bias is not None and bias.data_type != onnx.TensorProto.INT32:
        return "its bias is floating point; ONNX Runtime needs int32 with the scale of input times weights"
    name = conv.output[0]
    readers = graph.readers[name]
    if len(readers) == 1 and readers[0].op_type in FOLDED:
        name = readers[0].output[0]
        readers = graph.readers[name]
    if not readers or name in graph.outputs:
        return "its output is an output of the network"
    return _why_not_requantised(graph, conv, readers)


def _why_not_requantised(graph: Graph, conv: onnx.NodeProto, readers: Sequence[onnx.NodeProto]) -> str:
    if len(readers) > 1:
        return f"its output has {len(readers)} readers: {_listed(readers)}; ONNX Runtime fuses one QuantizeLinear only"
    if readers[0].op_type != "QuantizeLinear":
        return f"its output is not quantised: {readers[0].op_type} follows, which ONNX Runtime does not fold into it"
    if _is_signed(graph, readers[0]) or _is_signed(graph, graph.producer[conv.input[0]]):
        return "its activations are S8; ONNX Runtime on x86 needs U8, and turns only those with one reader into it"
    return "ONNX Runtime did not fuse it, although the file allows it"


def _is_signed(graph: Graph, node: onnx.NodeProto) -> bool:
    zero = graph.weights.get(node.input[2]) if len(node.input) > 2 else None
    return zero is not None and zero.data_type == onnx.TensorProto.INT8


def _listed(nodes: Sequence[onnx.NodeProto]) -> str:
    return ", ".join(
        f"{count} {name}" if count > 1 else name for name, count in Counter(n.op_type for n in nodes).items()
    )
