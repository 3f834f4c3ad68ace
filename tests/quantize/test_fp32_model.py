"""Models that packing refuses or rewrites before it makes any form of them."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edge.durable import sha256_of
from edge.errors import QuantizeError
from edge.inference.engine import open_engine
from quantize.forms.tensorrt_rules import find_violations
from quantize.fp32_model import export_or_copy, legalise_file
from quantize.network_spec import read_spec, spec_path, write_spec
from tests.onnx_samples import detector, move_weights


def changed(source, folder, change):
    """Write a copy of a model with a change, and its spec."""
    model = onnx.load(str(source))
    change(model.graph)
    path = folder / "model.onnx"
    onnx.save(model, str(path))
    write_spec(path, read_spec(spec_path(source)))
    return path


def spoil(value):
    def change(graph):
        tensor = next(t for t in graph.initializer if len(t.dims) == 4)
        weight = numpy_helper.to_array(tensor).copy()
        weight.reshape(-1)[0] = value
        tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))

    return change


def transpose_first(graph):
    cast, transpose = graph.node[0], graph.node[1]
    assert (cast.op_type, transpose.op_type) == ("Cast", "Transpose")
    nodes = [
        helper.make_node("Transpose", [cast.input[0]], ["moved"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["moved"], [transpose.output[0]], to=onnx.TensorProto.FLOAT),
    ]
    del graph.node[:2]
    for number, node in enumerate(nodes):
        graph.node.insert(number, node)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weight_that_is_not_finite_is_named(exported, tmp_path, value):
    source = changed(exported["classifier"], tmp_path, spoil(value))
    with pytest.raises(QuantizeError, match=r"model\.onnx: '.*' holds values that are not finite; train or export"):
        export_or_copy(source, tmp_path / "out.fp32.onnx")


def test_model_that_is_already_quantised_is_refused(exported, data, tmp_path):
    from quantize.forms.write_forms import quantize_network

    spec = read_spec(spec_path(exported["classifier"]))
    pictures = data.calibration_crops(spec)[:4]
    int8 = tmp_path / "int8.onnx"
    quantize_network(spec, exported["classifier"], pictures, int8, saturates=True, progress=lambda p, _: p)
    with pytest.raises(QuantizeError, match=r"int8\.onnx: is already quantised; give the FP32 model"):
        export_or_copy(int8, tmp_path / "out.fp32.onnx")


def test_model_in_fp16_is_refused(exported, tmp_path):
    def halve(graph):
        for tensor in graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype == np.float32:
                tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))

    source = changed(exported["classifier"], tmp_path, halve)
    with pytest.raises(QuantizeError, match="is in FP16; give the FP32 model"):
        export_or_copy(source, tmp_path / "out.fp32.onnx")


def test_older_export_is_rewritten_without_changing_a_bit(exported, tmp_path):
    source = changed(exported["embedder"], tmp_path, transpose_first)
    out = tmp_path / "out.fp32.onnx"
    spec = export_or_copy(source, out)
    assert sha256_of(out) == sha256_of(source)  # it names the embedding space
    assert any(one.refused for one in find_violations(onnx.load(str(out))))
    assert legalise_file(out, spec) == ["cast the bytes of 'image' before Transpose"]
    assert find_violations(onnx.load(str(out))) == []
    batch = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    want, got = (open_engine(path).run(batch)[0] for path in (source, out))
    np.testing.assert_array_equal(got, want)
    assert legalise_file(out, spec) == []


@pytest.mark.parametrize("rows", ["n", 1])
def test_fixed_batch_and_external_weights_are_legal(tmp_path, rows):
    source = detector(tmp_path / "source" / "model.onnx", rows=rows)
    move_weights(source)
    out = tmp_path / "out.fp32.onnx"
    spec = export_or_copy(source, out)
    assert spec.max_batch == (1 if rows == 1 else 8)
    assert find_violations(onnx.load(str(out))) == []
