"""Small ONNX models for tests of the engines."""

from __future__ import annotations

import math

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


def shapes_model(*row_shapes, batch="n", size=64) -> bytes:
    """A model of uint8 (batch, size, size, 3) to zeros: per output (batch, *row_shape)."""
    nodes, constants, outputs = [helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT)], [], []
    nodes.append(helper.make_node("ReduceMax", ["x"], ["brightest"], axes=[1, 2, 3], keepdims=0))
    for i, shape in enumerate(row_shapes):
        constants += [
            helper.make_tensor(f"column{i}", TensorProto.INT64, [1 + len(shape)], [-1, *[1] * len(shape)]),
            helper.make_tensor(f"zeros{i}", TensorProto.FLOAT, [1, *shape], [0.0] * math.prod(shape)),
        ]
        nodes.append(helper.make_node("Reshape", ["brightest", f"column{i}"], [f"rows{i}"]))
        nodes.append(helper.make_node("Mul", [f"rows{i}", f"zeros{i}"], [f"output{i}"]))
        outputs.append(helper.make_tensor_value_info(f"output{i}", TensorProto.FLOAT, [batch, *shape]))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, size, size, 3])
    graph = helper.make_graph(nodes, "shapes", [image], outputs, constants)
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(built)
    return built.SerializeToString()
