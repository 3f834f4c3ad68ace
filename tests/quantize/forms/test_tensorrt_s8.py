"""The S8 form for TensorRT."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge.errors import QuantizeError
from quantize.forms import tensorrt_s8
from quantize.forms.calibrate import Range
from quantize.forms.form_of import form_of
from quantize.forms.graph import constants
from quantize.forms.tensorrt_rules import find_violations
from quantize.forms.write_forms import write_tensorrt_s8
from quantize.run_forms import open_form
from tests.tensorrt_cases import F32, T, graph

EIGHT = ("x", T.FLOAT, ["n", 8, 16, 16])
PADS = {"pads": [1, 1, 1, 1]}


def weight(seed, outputs=8, inputs=8):
    return np.random.default_rng(seed).normal(size=(outputs, inputs, 3, 3)).astype(F32)


def ranges_of(model, low=-4.0, high=4.0):
    return {name: Range(low, high) for node in model.graph.node for name in (*node.input, *node.output)}


def write(model, folder, ranges=None, rest="fp32", **more):
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node {number}"
    onnx.save(onnx.shape_inference.infer_shapes(model), str(folder / "in.onnx"))
    out = folder / "out.onnx"
    layers = tensorrt_s8.write_s8(
        folder / "in.onnx", ranges_of(model) if ranges is None else ranges, {}, out, rest=rest, **more
    )
    return onnx.load(str(out)), layers


def reads_quantised(model, operator):
    """Return, for each node of an operator, which of its inputs a DequantizeLinear makes."""
    made = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return [[name in made for name in node.input] for node in model.graph.node if node.op_type == operator]


@pytest.mark.parametrize("rest", ["fp16", "fp32"])
@pytest.mark.parametrize("kind", ["classifier", "embedder", "detector"])
def test_s8_is_legal_symmetric_and_agrees_with_fp32(calibrations, exported, data, tmp_path, kind, rest):
    spec, calibration = calibrations[kind]
    record = write_tensorrt_s8(calibration, spec, tmp_path / "s8.onnx", rest=rest)
    model = onnx.load(str(tmp_path / "s8.onnx"))
    assert find_violations(model) == []
    assert form_of(model) == "tensorrt-s8"
    assert record["layers"]["int8"] == 4
    assert record["relative_error"] < 0.1
    known = constants(model.graph)
    zeros = [known[node.input[2]] for node in model.graph.node if node.op_type.endswith("QuantizeLinear")]
    assert {(zero.dtype.name, int(np.abs(zero).max())) for zero in zeros} == {("int8", 0)}
    steps = [known[node.input[1]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert float(steps[0]) == 1.0  # camera bytes less a whole centre are exact
    batch = np.stack([picture.crop(0.0)[:32, :32] for picture in data.samples[:8]])
    if kind == "classifier":
        want, got = (open_form(one).run(batch)[0] for one in (exported[kind], tmp_path / "s8.onnx"))
        np.testing.assert_array_equal(got.argmax(1), want.argmax(1))


def test_skip_input_of_an_addition_is_quantised_and_the_fused_one_is_not(tmp_path):
    nodes = [
        ("Conv", "x a", "first", PADS),
        ("Conv", "first b", "second", PADS),
        ("Add", "second first", "sum"),
        ("Relu", "sum", "r"),
        ("Conv", "r c", "y", PADS),
    ]
    model, layers = write(graph(nodes, {"a": weight(1), "b": weight(2), "c": weight(3)}, EIGHT), tmp_path)
    assert reads_quantised(model, "Add") == [[False, True]]
    assert reads_quantised(model, "Conv") == [[True, True], [True, True], [False, False]]  # the last is the tail
    pairs = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(pairs) == 2  # x; first, once for the convolution and the addition
    assert layers == {"int8": 2, "fp32": 1}


def test_concatenation_and_pool_share_one_scale_if_it_costs_no_bit(tmp_path):
    nodes = [
        ("Conv", "x a", "one", PADS),
        ("MaxPool", "x", "two", {"kernel_shape": [3, 3], **PADS}),
        ("Concat", "one two", "both", {"axis": 1}),
        ("Conv", "both b", "c", PADS),
        ("Conv", "c d", "y", PADS),
    ]
    known = {"a": weight(1), "b": weight(2, inputs=16), "d": weight(3)}
    model = graph(nodes, known, EIGHT)
    ranges = ranges_of(model) | {"one": Range(0.0, 3.0), "both": Range(0.0, 4.0)}
    shared = tensorrt_s8._shared_ranges(model.graph, ranges, {"both", "one", "two"})
    assert shared["one"] == shared["two"] == shared["both"]
    far = tensorrt_s8._shared_ranges(model.graph, ranges | {"one": Range(0.0, 0.5)}, {"both"})
    assert far["one"] == Range(0.0, 0.5)


def test_transposed_convolution_is_quantised_along_its_outputs(tmp_path):
    nodes = [("ConvTranspose", "x a", "t"), ("Conv", "t b", "y", PADS)]
    known = {"a": np.random.default_rng(0).normal(size=(8, 16, 2, 2)).astype(F32), "b": weight(1, inputs=16)}
    model, layers = write(graph(nodes, known, EIGHT), tmp_path)
    (node,) = [n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.attribute]
    assert [a.i for a in node.attribute] == [1]
    assert constants(model.graph)[node.input[1]].shape == (16,)
    assert layers["int8"] == 1


def test_layers_of_odd_width_and_kept_ones_stay_in_float(tmp_path):
    nodes = [("Conv", "x a", "odd", PADS), ("Conv", "odd b", "o", PADS), ("Conv", "o c", "y", PADS)]
    known = {"a": weight(1, outputs=7), "b": weight(2, inputs=7), "c": weight(3)}
    assert write(graph(nodes, known, EIGHT), tmp_path)[1] == {"int8": 0, "fp32": 3}
    known = {"a": weight(1), "b": weight(2), "c": weight(3)}
    model = graph(nodes, known, EIGHT)
    model.graph.node[0].name = "sensitive"
    assert write(model, tmp_path, keep=["sensitive"])[1] == {"int8": 1, "fp32": 2}


def test_steps_are_exact_in_float16(tmp_path):
    model, _ = write(
        graph([("Conv", "x a", "c", PADS), ("Conv", "c b", "y", PADS)], {"a": weight(1) * 1e-4, "b": weight(2)}, EIGHT),
        tmp_path,
        rest="fp16",
    )
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    steps = [known[n.input[1]] for n in model.graph.node if n.op_type == "DequantizeLinear"]
    assert {tensor.data_type for tensor in steps} == {T.FLOAT16}
    assert all((numpy_helper.to_array(tensor) > 0).all() for tensor in steps)
    assert model.opset_import[0].version == 19  # from which a scale may be float16


def test_tensor_without_calibration_is_named(tmp_path):
    model = graph([("Conv", "x a", "c", PADS), ("Conv", "c b", "y", PADS)], {"a": weight(1), "b": weight(2)}, EIGHT)
    with pytest.raises(QuantizeError, match="tensor 'x' was not calibrated"):
        write(model, tmp_path, ranges={})


def test_another_preprocessing_than_the_calibration_is_refused(calibrations, tmp_path):
    spec, calibration = calibrations["classifier"]
    other = spec.model_copy(update={"preprocess": spec.preprocess.model_copy(update={"colour": "bgr"})})
    with pytest.raises(QuantizeError, match="was calibrated with colour rgb, but its spec says bgr; quantise it again"):
        write_tensorrt_s8(calibration, other, tmp_path / "s8.onnx", rest="fp16")
    assert not (tmp_path / "s8.onnx").exists()
