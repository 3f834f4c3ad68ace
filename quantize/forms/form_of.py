"""Which form of a network an ONNX file holds, by its graph."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from edge.manifest.model import Target
from quantize.forms.emulate import is_fp16
from quantize.forms.graph import constants

FOR_TENSORRT: tuple[Target, ...] = ("fp16", "tensorrt-s8")
_QUANTISED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger"}


def form_of(model: onnx.ModelProto) -> Target:
    """Return the form of a network: `tensorrt-s8` if its activations are S8, `ort-u8` if they are U8."""
    graph = model.graph
    if any(node.op_type in _QUANTISED for node in graph.node):
        known = constants(graph)
        zeros = [n.input[2] for n in graph.node if n.op_type == "QuantizeLinear" and len(n.input) > 2]
        signed = zeros and all(name in known and known[name].dtype == "int8" for name in zeros)
        return "tensorrt-s8" if signed else "ort-u8"
    return "fp16" if is_fp16(model) or _has_halves(graph) else "fp32"


def _has_halves(graph: onnx.GraphProto) -> bool:
    return any(one.type.tensor_type.elem_type == TensorProto.FLOAT16 for one in (*graph.input, *graph.output))
