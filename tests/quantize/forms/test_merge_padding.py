"""Zero padding before a convolution becomes the convolution's own; any other padding stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from quantize.forms.merge_padding import merge_padding

PADS = (0, 0, 1, 0, 0, 0, 2, 1)  # above 1, left 0, below 2, right 1


def padded(pads=PADS, value=0.0, mode="constant", outputs=("y",), conv=None):
    """A graph that pads, then convolves; it computes the padding, as an exported one does."""
    nodes = [
        helper.make_node("Add", ["half", "half"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["pads"], to=TensorProto.INT64),
        helper.make_node("Pad", ["x", "pads", "value"], ["padded"], mode=mode),
        helper.make_node("Conv", ["padded", "weights"], ["y"], **(conv or {})),
        helper.make_node("Relu", ["padded"], ["z"]),
    ]
    tensors = {
        "half": np.array(pads, np.float32) / 2,
        "value": np.array(value, np.float32),
        "weights": np.random.default_rng(0).normal(size=(2, 3, 3, 3)).astype(np.float32),
    }
    graph = helper.make_graph(
        nodes if "z" in outputs else nodes[:-1],
        "padded",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 7])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def run(model):
    picture = np.random.default_rng(1).normal(size=(1, 3, 6, 7)).astype(np.float32)
    return ReferenceEvaluator(model).run(None, {"x": picture})[0]


@pytest.mark.parametrize("conv", [{}, {"strides": [2, 2]}, {"pads": [0, 0, 0, 0]}, {"auto_pad": "NOTSET"}])
def test_zero_padding_becomes_that_of_the_convolution(conv):
    model = padded(conv=conv)
    expected = run(model)
    merge_padding(model)
    onnx.checker.check_model(model)
    assert "Pad" not in {node.op_type for node in model.graph.node}
    np.testing.assert_allclose(run(model), expected, atol=1e-5)


@pytest.mark.parametrize(
    "given",
    [
        {"value": 1.0},
        {"mode": "edge"},
        {"pads": (0, 1, 1, 0, 0, 0, 2, 1)},  # of the channels
        {"pads": (0, 0, -1, 0, 0, 0, 2, 1)},
        {"outputs": ("y", "z")},
        {"outputs": ("y", "padded")},
        {"conv": {"auto_pad": "SAME_UPPER"}},
        {"conv": {"pads": [1, 1, 1, 1]}},
    ],
)
def test_other_padding_stays(given):
    model = padded(**given)
    before = model.SerializeToString()
    merge_padding(model)
    assert model.SerializeToString() == before


def test_padding_that_depends_on_an_input_stays():
    model = padded()
    model.graph.input.append(helper.make_tensor_value_info("half", TensorProto.FLOAT, [8]))
    del model.graph.initializer[0]
    before = model.SerializeToString()
    merge_padding(model)
    assert model.SerializeToString() == before
