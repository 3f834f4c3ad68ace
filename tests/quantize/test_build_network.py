"""Reading a network as FP32 ONNX."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from edge.errors import QuantizeError
from edge.manifest import Preprocess
from quantize.build_network import export_or_copy
from quantize.network_spec import MAX_BATCH, Spec, write_spec

SPEC = Spec(
    kind="classifier", output_names=["logits"], preprocess=Preprocess(width=4, height=4, resize="stretch"), labels=["a"]
)


def exported(folder, rows):
    """Write an ONNX file with a fixed or dynamic batch size, and its spec."""
    path = folder / "model.onnx"
    shape = [rows, 4, 4, 3]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["logits"])],
        "identity",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.UINT8, shape)],
    )
    onnx.save(helper.make_model(graph), str(path))
    write_spec(path, SPEC)
    return path


@pytest.mark.parametrize(("rows", "most"), [(1, 1), ("n", MAX_BATCH)])
def test_max_batch_is_the_fixed_batch_size_of_the_graph(tmp_path, rows, most):
    assert export_or_copy(exported(tmp_path, rows), tmp_path / "fp32.onnx").max_batch == most


def test_damaged_onnx_file_is_named(tmp_path):
    path = exported(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(QuantizeError, match=r"model\.onnx: not an ONNX file with a graph input"):
        export_or_copy(path, tmp_path / "fp32.onnx")
