"""Weights of float matrix products, stored as S8."""

import numpy as np
import onnx
import pytest

from edge.inference.onnxruntime_engine import open_session_from_bytes
from quantize.forms.graph import drop_unused
from quantize.forms.stored_weights import store_as_s8
from quantize.forms.tensorrt_rules import find_violations
from tests.tensorrt_cases import F32, ROWS, graph

MATRIX = np.random.default_rng(0).normal(size=(128, 32)).astype(F32)


def outputs(model):
    batch = np.random.default_rng(1).normal(size=(4, 32)).astype(F32)
    return open_session_from_bytes(model.SerializeToString()).run(batch)[0]


@pytest.mark.parametrize("restored_by", ["dequantize", "cast"])
@pytest.mark.parametrize("operator", ["Gemm", "Gemm transposed", "MatMul"])
def test_weight_takes_a_quarter_and_the_product_stays(operator, restored_by):
    transposed = {"transB": 1} if operator == "Gemm transposed" else {}
    known = {"w": MATRIX if transposed else np.ascontiguousarray(MATRIX.T)}
    model = onnx.shape_inference.infer_shapes(graph([(operator.split()[0], "x w", "y", transposed)], known, ROWS))
    before, size = outputs(model), model.ByteSize()
    assert store_as_s8(model, restored_by) == 1
    drop_unused(model)
    onnx.checker.check_model(model)
    assert find_violations(model) == []
    assert model.ByteSize() < size / 2.5
    after = outputs(model)
    cosine = (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    assert cosine.min() > 0.9999


def test_small_or_shared_weights_stay_as_they_are():
    small = graph([("MatMul", "x w", "y")], {"w": MATRIX[:32, :32].copy()}, ROWS)
    assert store_as_s8(small, "cast") == 0
    square = np.ascontiguousarray(np.tile(MATRIX, (2, 4))[:128, :128])
    both = graph([("MatMul", "x w", "m"), ("Add", "m w", "y")], {"w": square}, ("x", 1, ["n", 128]))
    assert store_as_s8(both, "cast") == 0
