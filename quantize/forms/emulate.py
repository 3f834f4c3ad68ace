"""FP16 in ONNX Runtime on a CPU: the same graph in float32, with every float16 tensor rounded to float16.

ONNX Runtime has no float16 kernels for x86. It would compute in float32 and round nothing in between, so that an
overflow or a lost digit would not show. Sums inside one operator are in float32 here, as on a GPU's matrix units.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_FP16, _FP32 = TensorProto.FLOAT16, TensorProto.FLOAT


def is_fp16(model: onnx.ModelProto) -> bool:
    """Return whether a graph computes in float16."""
    return any(tensor.data_type == _FP16 for tensor in model.graph.initializer) or any(
        attribute.name == "to" and attribute.i == _FP16
        for node in model.graph.node
        if node.op_type == "Cast"
        for attribute in node.attribute
    )


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph that computes in float32 what this one computes in float16, rounding and overflow included."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    halves = {info.name for info in inferred.value_info if info.type.tensor_type.elem_type == _FP16}
    emulated = onnx.ModelProto()
    emulated.CopyFrom(model)
    graph = emulated.graph
    del graph.value_info[:]
    for tensor in graph.initializer:
        if tensor.data_type == _FP16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _FP16:
                attribute.i = _FP32
        nodes.append(node)
        for number, name in enumerate(node.output):
            if name in halves:
                node.output[number] = f"{name}_exact"
                nodes += [
                    helper.make_node("Cast", [f"{name}_exact"], [f"{name}_rounded"], to=_FP16),
                    helper.make_node("Cast", [f"{name}_rounded"], [name], to=_FP32),
                ]
    del graph.node[:]
    graph.node.extend(nodes)
    return emulated
