"""The fusion audit of each engine."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.errors import QuantizeError
from edge.inference.preprocess import to_batch
from quantize.forms.write_forms import calibrate_network, write_fp16, write_ort_u8, write_tensorrt_s8
from quantize.network_spec import read_spec, spec_path
from quantize.reports.fusion import ON_PURPOSE, read_graph, why_not_fused
from quantize.reports.fusion_onnxruntime import audit_onnxruntime
from quantize.reports.fusion_openvino import audit_openvino
from quantize.reports.fusion_tensorrt import BY_INSPECTOR, BY_RULES, audit_tensorrt


def batch_for(path):
    spec = read_spec(spec_path(path)).preprocess
    return to_batch(spec, [np.full((spec.height, spec.width, 3), 114, np.uint8)])


@pytest.fixture(scope="module")
def detector(exported, data, tmp_path_factory):
    """A detector's forms: its last convolutions stay in FP32 on purpose."""
    folder, fp32 = tmp_path_factory.mktemp("fusion"), exported["detector"]
    spec = read_spec(spec_path(fp32))
    pictures = data.scenes_for("train")[:4]
    calibration = calibrate_network(spec, fp32, pictures, folder / "prepared.onnx", lambda steps, _: steps)
    forms = {"fp32": fp32} | {form: folder / f"{form}.onnx" for form in ("ort-u8", "tensorrt-s8", "fp16")}
    write_ort_u8(calibration, spec, forms["ort-u8"], saturates=True)
    write_tensorrt_s8(calibration, spec, forms["tensorrt-s8"], rest="fp16")
    write_fp16(calibration, spec, forms["fp16"])
    return forms


def test_onnxruntime_runs_every_quantised_convolution_as_int8(detector, exported):
    audit = audit_onnxruntime(detector["ort-u8"], batch_for(exported["detector"]), runs=3)
    inner = [one for one in audit.convolutions if one.precision == "INT8"]
    kept = [one for one in audit.convolutions if one.precision == "FP32"]
    assert [(len(inner), len(kept))] == [(4, 2)]
    assert {one.runs_as for one in inner} == {"QLinearConv"}
    assert {one.why for one in kept} == {ON_PURPOSE}
    assert all(one.ms is not None and one.ms >= 0 for one in audit.convolutions)


def test_onnxruntime_runs_the_fp32_form_in_fp32(detector, exported):
    audit = audit_onnxruntime(detector["fp32"], batch_for(exported["detector"]), runs=3)
    assert audit.counts == {"FP32": 6}
    assert {one.why for one in audit.convolutions} == {"the file is not quantised"}
    assert "?" not in {one.runs_as for one in audit.convolutions}


def test_openvino_names_a_primitive_for_every_convolution(detector, exported):
    pytest.importorskip("openvino", reason="openvino is not installed: pip install finesight[openvino]")
    audit = audit_openvino(detector["ort-u8"], batch_for(exported["detector"]), runs=2)
    assert len(audit.convolutions) == 6
    assert audit.counts["INT8"] >= 2
    assert all(one.runs_as.startswith("Convolution, ") for one in audit.convolutions)
    assert all(bool(one.why) == (one.precision != "INT8") for one in audit.convolutions)


def test_tensorrt_rules_tell_int8_fp16_and_fp32_by_the_graph(detector):
    int8 = audit_tensorrt(detector["tensorrt-s8"])
    assert int8.source == BY_RULES
    assert int8.counts["INT8"] >= 3
    assert all(one.ms is None for one in int8.convolutions)
    assert audit_tensorrt(detector["fp16"]).counts == {"FP16": 6}
    assert audit_tensorrt(detector["fp32"]).counts == {"FP32": 6}


def test_tensorrt_inspector_overrules_the_graph(detector, tmp_path):
    names = [one.name for one in audit_tensorrt(detector["fp32"]).convolutions]
    layers = [
        {
            "Name": f"{names[0]} + relu",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "x", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
        },
        {
            "Name": "fused",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "y", "Format/Datatype": "Row major linear FP16 format"}],
            "Metadata": f"[ONNX Layer: {names[1]}]\x1e[ONNX Layer: other]",
        },
    ]
    told = tmp_path / "layers.json"
    told.write_text(json.dumps({"Layers": layers}))
    audit = audit_tensorrt(detector["fp32"], told)
    assert audit.source == BY_INSPECTOR
    assert [one.precision for one in audit.convolutions[:2]] == ["INT8", "FP16"]
    assert audit.convolutions[2].why == "the inspector names no layer for it"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not the JSON"),
        ("[]", "not the JSON"),
        ('{"Layers": ["conv1"]}', "detailed profiling verbosity"),
        (None, "cannot read"),
    ],
)
def test_inspector_file_that_cannot_be_used_is_one_clear_line(detector, tmp_path, text, message):
    path = tmp_path / "layers.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(QuantizeError, match=message):
        audit_tensorrt(detector["fp32"], path)


def quantised(name, source, scale="scale", zero="zero"):
    q, dq = f"{name}_q", f"{name}_dq"
    return [
        helper.make_node("QuantizeLinear", [source, scale, zero], [q], name=f"{name}.q"),
        helper.make_node("DequantizeLinear", [q, scale, zero], [dq], name=f"{name}.dq"),
    ], dq


def small_graph(path, after, *, zero_type=np.uint8, float_bias=False):
    """Write a quantised convolution with other nodes after it, and one more convolution behind them."""
    nodes, inner = quantised("x", "x")
    bias = ["bias"] if float_bias else []
    weights = [helper.make_node("DequantizeLinear", ["w_q", "scale", "w_zero"], ["w"], name="w.dq")]
    nodes += [*weights, helper.make_node("Conv", [inner, "w", *bias], ["y"], name="first")]
    nodes += after
    nodes.append(helper.make_node("Conv", ["z", "w"], ["out"], name="last"))
    shape = [1, 4, 8, 8]
    values = {"scale": np.float32(0.1), "zero": zero_type(0), "w_zero": np.int8(0)}
    values |= {"w_q": np.ones((4, 4, 1, 1), np.int8), "bias": np.zeros(4, np.float32)}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("two readers", "2 readers: QuantizeLinear, Relu"),
        ("sigmoid", "Sigmoid follows"),
        ("signed", "activations are S8"),
        ("float bias", "bias is floating point"),
    ],
)
def test_reason_names_what_keeps_a_convolution_from_int8(tmp_path, kind, why):
    pair, quantised_y = quantised("y", "y")
    add = [*pair, helper.make_node("Relu", ["y"], ["r"]), helper.make_node("Add", [quantised_y, "r"], ["z"])]
    after = {
        "two readers": add,
        "sigmoid": [helper.make_node("Sigmoid", ["y"], ["z"])],
    }.get(kind, [*quantised("y", "y")[0], helper.make_node("Identity", [quantised_y], ["z"])])
    zero_type = np.int8 if kind == "signed" else np.uint8
    path = small_graph(tmp_path / "small.onnx", after, zero_type=zero_type, float_bias=kind == "float bias")
    graph = read_graph(path)
    assert why in why_not_fused(graph, graph.convolutions[0])


def test_two_readers_are_what_onnxruntime_really_stumbles_over(tmp_path):
    pair, quantised_y = quantised("y", "y")
    nodes = [*pair, helper.make_node("Relu", ["y"], ["r"]), helper.make_node("Add", [quantised_y, "r"], ["z"])]
    path = small_graph(tmp_path / "small.onnx", nodes)
    first, last = audit_onnxruntime(path, np.zeros((1, 4, 8, 8), np.float32), runs=2).convolutions
    assert (first.precision, last.why) == ("FP32", ON_PURPOSE)
    assert "2 readers" in first.why


def test_file_without_convolutions_is_one_clear_line(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "none",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    onnx.save(helper.make_model(graph), str(tmp_path / "none.onnx"))
    with pytest.raises(QuantizeError, match="has no convolution"):
        read_graph(tmp_path / "none.onnx")
