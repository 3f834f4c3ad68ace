"""Stores the weights of float matrix products as S8 per channel: a quarter of the size, computed in float as before.

Projections are half of the FP32 file of the demo's embedders. Rounding them leaves a cosine above .9999 with FP32's
vectors of each of the 32 probe pictures.

    weight -> DequantizeLinear(S8)      TensorRT folds it when it builds the network
    weight -> Mul(Cast(S8), step)       ONNX Runtime folds it when it loads the network; it never folds the other
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quantize.forms.graph import constants, consumers
from quantize.forms.weights import PEAK, rounded_to_steps

_SMALLEST = 4096  # numbers from which storing them smaller is worth two nodes
_PRODUCTS = {"Gemm", "MatMul"}
_LEAST_STEP = 1e-6  # a float16 holds it


def store_as_s8(model: onnx.ModelProto, restored_by: Literal["dequantize", "cast"]) -> int:
    """Store the weights of Gemm and MatMul nodes in S8, in place.

    Args:
        model: the network; weights that are already quantised stay as they are.
        restored_by: what makes floats of them: `dequantize` for TensorRT, `cast` for ONNX Runtime.

    Returns:
        number of weights that were stored so.
    """
    graph = model.graph
    known = constants(graph)
    stored = 0
    for name in dict.fromkeys(node.input[1] for node in graph.node if node.op_type in _PRODUCTS):
        found, readers = known.get(name), consumers(graph, name)
        if found is None or found.dtype != np.float32 or found.ndim != 2 or found.size < _SMALLEST:
            continue
        weight = np.asarray(found, np.float32)
        axes = {_output_axis(node) for node in readers}
        alone = all(node.op_type in _PRODUCTS for node in readers)
        if (
            len(axes) != 1
            or not alone
            or any([*node.input].index(name) != 1 or [*node.input].count(name) > 1 for node in readers)
        ):
            continue
        axis = axes.pop()
        step = np.asarray(np.maximum(np.abs(weight).max(axis=1 - axis, keepdims=True) / PEAK, _LEAST_STEP), np.float32)
        values = rounded_to_steps(weight, step).astype(np.int8)
        restored = f"{name}_restored"
        graph.initializer.append(numpy_helper.from_array(values, f"{name}_s8"))
        if restored_by == "cast":
            graph.initializer.append(numpy_helper.from_array(step, f"{name}_step"))
            nodes = [
                helper.make_node("Cast", [f"{name}_s8"], [f"{name}_float"], name=f"{name}_cast", to=TensorProto.FLOAT),
                helper.make_node("Mul", [f"{name}_float", f"{name}_step"], [restored], name=f"{name}_mul"),
            ]
        else:
            graph.initializer.append(numpy_helper.from_array(step.reshape(-1), f"{name}_step"))
            graph.initializer.append(numpy_helper.from_array(np.zeros(step.size, np.int8), f"{name}_zero"))
            inputs = [f"{name}_s8", f"{name}_step", f"{name}_zero"]
            nodes = [helper.make_node("DequantizeLinear", inputs, [restored], name=f"{name}_dequantise", axis=axis)]
        for number, node in enumerate(nodes):
            graph.node.insert(number, node)
        for node in readers:
            node.input[1] = restored
        stored += 1
    return stored


def _output_axis(node: onnx.NodeProto) -> int:
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if node.op_type == "Gemm" and transposed else 1
