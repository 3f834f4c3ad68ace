"""Small ONNX models for tests of the engines."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper


def sums_model(batch="n", side=3, *, out=TensorProto.FLOAT, outputs=("total", "twice")) -> bytes:
    """A model of uint8 (batch, 2, side) to its sum over the last axis, `total`, and to that doubled, `twice`."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["x"], to=out),
            helper.make_node("ReduceSum", ["x", "axis"], ["total"], keepdims=0),
            helper.make_node("Add", ["total", "total"], ["twice"]),
        ],
        "sums",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, 2, side])],
        [helper.make_tensor_value_info(name, out, [batch, 2]) for name in outputs],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [2])],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(built)
    return built.SerializeToString()
