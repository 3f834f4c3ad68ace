"""Unused parts of ONNX graphs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quantize.forms.graph import drop_unused


def model_of(nodes, *weights):
    row = (
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [2]),
    )
    tensors = [numpy_helper.from_array(np.ones(2, np.float32), name) for name in weights]
    graph = helper.make_graph(nodes, "graph", row[:1], row[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_nodes_that_only_unused_ones_read_go_too():
    nodes = [
        helper.make_node("Add", ["x", "used"], ["y"]),
        helper.make_node("Mul", ["x", "unused"], ["dead"]),
        helper.make_node("Relu", ["dead"], ["unread"]),
    ]
    model = model_of(nodes, "used", "unused")
    drop_unused(model)
    assert [node.op_type for node in model.graph.node] == ["Add"]
    assert [tensor.name for tensor in model.graph.initializer] == ["used"]


def test_what_a_graph_inside_reads_stays():
    inside = helper.make_graph(
        [helper.make_node("Add", ["dx", "weights"], ["sum"])],
        "inside",
        [],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [2])],
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    nodes = [
        helper.make_node("Relu", ["x"], ["dx"]),
        helper.make_node("Constant", [], ["condition"], value=yes),
        helper.make_node("If", ["condition"], ["y"], then_branch=inside, else_branch=inside),
    ]
    model = model_of(nodes, "weights")
    drop_unused(model)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Relu", "Constant", "If"]
    assert [tensor.name for tensor in model.graph.initializer] == ["weights"]
