"""The FP16 form: what it converts, what it keeps in FP32, and that ONNX Runtime rounds as FP16 does."""

import numpy as np
import onnx
import pytest

from edge.errors import QuantizeError
from edge.inference.onnxruntime_engine import open_session_from_bytes
from quantize.forms import emulate, fp16
from quantize.forms.calibrate import Range
from quantize.forms.tensorrt_rules import find_violations
from quantize.forms.write_forms import write_fp16
from quantize.network_spec import read_spec, spec_path
from quantize.run_forms import open_form
from tests.tensorrt_cases import CONV, ROWS, WEIGHT, T, graph


def run(model, batch):
    return open_session_from_bytes(emulate.in_float32(model).SerializeToString(), optimise=False).run(batch)[0]


def types(model):
    """Return the type of every tensor that a node makes."""
    infos = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {one.name: one.type.tensor_type.elem_type for one in (*infos.value_info, *infos.output)}


@pytest.fixture(scope="module")
def written(calibrations, tmp_path_factory):
    """Return the FP16 form of each sample network, and its record."""
    folder, forms = tmp_path_factory.mktemp("fp16"), {}
    for kind, (spec, calibration) in calibrations.items():
        forms[kind] = (folder / f"{kind}.onnx", write_fp16(calibration, spec, folder / f"{kind}.onnx"))
    return forms


@pytest.mark.parametrize("kind", ["classifier", "embedder", "detector"])
def test_fp16_is_legal_smaller_and_agrees_with_fp32(written, exported, kind):
    path, _ = written[kind]
    assert find_violations(onnx.load(str(path))) == []
    assert path.stat().st_size < 0.75 * exported[kind].stat().st_size
    spec = read_spec(spec_path(exported[kind])).preprocess
    batch = np.random.default_rng(0).integers(0, 256, (3, spec.height, spec.width, 3)).astype(np.uint8)
    want, got = (open_form(one).run(batch)[0] for one in (exported[kind], path))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-2 * np.abs(want).max())
    assert not np.array_equal(got, want)  # it really rounds


def test_normalisation_stays_in_fp32_and_the_rest_does_not(written):
    path, record = written["embedder"]
    made = types(onnx.load(str(path)))
    operators = {node.name: node for node in onnx.load(str(path)).graph.node}
    assert any(operators[name].op_type == "ReduceL2" for name in record["in_fp32"])
    assert {made[n.output[0]] for n in operators.values() if n.op_type in {"Conv", "Gemm"}} == {T.FLOAT16}
    assert written["classifier"][1]["in_fp32"] == []


def test_activation_beyond_half_of_the_range_stays_in_fp32():
    model = graph([("Mul", "x k", "m", {"name": "big"}), ("Relu", "m", "y")], {"k": np.array([3.0], np.float32)}, ROWS)
    kept = fp16.convert(model, {"m": Range(0.0, 40000.0)})
    assert "big" in kept
    assert types(model)["m"] == T.FLOAT


@pytest.mark.parametrize("constant", [1e-12, 1e6, 3e-8], ids=["epsilon", "overflow", "denormal"])
def test_constant_that_fp16_cannot_hold_stays_in_fp32(constant):
    model = graph([("Add", "x k", "y", {"name": "sum"})], {"k": np.array([constant], np.float32)}, ROWS)
    assert fp16.convert(model, {}) == ["sum"]


def test_infinite_mask_is_one_in_fp16_too():
    model = graph([("Max", "x k", "y")], {"k": np.array([-np.inf], np.float32)}, ROWS)
    assert fp16.convert(model, {}) == []


def test_overflow_shows_in_the_emulation():
    model = graph([("Mul", "x k", "m"), ("Mul", "m j", "y")], {"k": np.float32(300), "j": np.float32(0.01)}, ROWS)
    fp16.convert(model, {})  # no range says that it overflows
    batch = np.full((1, 32), 300.0, np.float32)
    assert np.isinf(run(model, batch)).all()


def test_input_and_output_keep_name_and_type():
    model = graph([("Identity", "x", "c"), CONV], {"w": WEIGHT})
    fp16.convert(model, {})
    ends = [(one.name, one.type.tensor_type.elem_type) for one in (*model.graph.input, *model.graph.output)]
    assert ends == [("x", T.FLOAT), ("y", T.FLOAT)]
    assert find_violations(model) == []


def test_graph_inside_a_graph_is_an_error():
    inner = graph([("Relu", "x", "y")]).graph
    model = graph([("If", "k", "y", {"then_branch": inner, "else_branch": inner})], {"k": np.array(True)})
    with pytest.raises(QuantizeError, match="export it without control flow"):
        fp16.convert(model, {})
