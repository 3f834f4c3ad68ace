"""INT8 that saturates on a CPU without an 8-bit dot product does not pass the probes there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.bundle.judge import Judge
from edge.errors import EngineError
from edge.imaging.image import encode_image
from edge.inference.engine import open_engine
from edge.manifest.manifest import Manifest
from quantize.forms.ort_u8 import lacks_dot_product
from quantize.latency import cpu_info
from tests.fakes_engine import embedder_model

SIZE = 64


def saturating_int8() -> bytes:
    """ORT-U8 of an embedder whose first two numbers sum bright pixels: such sums exceed 16 bits, the others do not."""
    weights = np.zeros((4, 3, 4, 4), np.int8)
    weights[:2] = 127
    weights[2:, 0, ::2, ::2] = 127  # no two neighbours
    scales = np.asarray([0.2, 1.0, 3.0, 3.0], np.float32) / 127
    constants = [
        numpy_helper.from_array(np.asarray(1.0, np.float32), "one"),
        numpy_helper.from_array(np.asarray(0, np.uint8), "zero"),
        numpy_helper.from_array(np.asarray(100.0, np.float32), "out_scale"),
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(scales, "w_scale"),
        numpy_helper.from_array(np.zeros(4, np.int8), "w_zero"),
    ]
    nodes = [
        helper.make_node("Transpose", ["image"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "QLinearConv",
            ["x", "one", "zero", "w", "w_scale", "w_zero", "out_scale", "zero"],
            ["y"],
            strides=[4, 4],
        ),
        helper.make_node("DequantizeLinear", ["y", "out_scale", "zero"], ["z"]),
        helper.make_node("ReduceMean", ["z"], ["vector"], axes=[2, 3], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "saturates",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 4])],
        constants,
    )
    return onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def test_saturating_int8_passes_only_with_an_8_bit_dot_product(tmp_path):
    (tmp_path / "model.onnx").write_bytes(saturating_int8())
    (tmp_path / "probe.png").write_bytes(encode_image(np.full((48, 48, 3), 250, np.uint8), ".png"))
    right = np.asarray([48 * 0.2, 48 * 1.0, 4 * 3.0, 4 * 3.0])
    vector = [round(127 * one / right.max()) for one in right]
    model = embedder_model()
    manifest = Manifest.model_validate(
        {
            "schema": 1, "bundle_id": "b", "sequence": 1, "created_at": "2026-01-01T00:00:00Z", "runtimes": ["fp32"],
            "files": [{"path": name, "size": 1, "sha256": "0" * 64} for name in ("model.onnx", "probe.png")],
            "embedders": [model.model_dump(mode="json")],
            "probes": [{"path": "probe.png", "category": "carton", "item_id": "i", "embedding_i8": vector}],
        }
    )  # fmt: skip
    judge = Judge(tmp_path, manifest)
    engine = open_engine(tmp_path / "model.onnx")
    if lacks_dot_product(cpu_info()):
        with pytest.raises(EngineError, match="1 of 1 probes failed"):
            judge.judge(model, engine)
    else:
        assert judge.judge(model, engine) == "1 probe passed"
