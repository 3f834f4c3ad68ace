"""The ranking of layers by what INT8 does to them, and which ones stay in FP32."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.errors import QuantizeError
from edge.manifest.model import Preprocess
from quantize.forms import ort_u8, sensitivity, weights
from quantize.forms.calibrate import collect_histograms
from quantize.forms.output_error import output_error
from quantize.network_spec import Spec

CHANNELS = 8
BAD = "conv_2"  # one of its channels is 10,000 times larger than the others; the next layer undoes that


def network(layers=5):
    """Build a chain of pointwise convolutions with ReLU; the output depends on every channel alike."""
    generator = np.random.default_rng(3)
    constants, nodes, last = {}, [], "x"
    for number in range(layers):
        weight = np.eye(CHANNELS) + 0.1 * generator.standard_normal((CHANNELS, CHANNELS))
        if f"conv_{number}" == BAD:
            weight[0] *= 1e4
        if f"conv_{number - 1}" == BAD:
            weight[:, 0] /= 1e4
        constants[f"w{number}"] = weight[:, :, None, None]
        output = "y" if number == layers - 1 else f"c{number}"
        nodes.append(helper.make_node("Conv", [last, f"w{number}"], [output], name=f"conv_{number}"))
        if number < layers - 1:
            nodes.append(helper.make_node("Relu", [output], [f"r{number}"], name=f"relu_{number}"))
            last = f"r{number}"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, CHANNELS, 8, 8])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


def classifier_spec():
    given = Preprocess(width=8, height=8, resize="stretch", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return Spec(kind="classifier", output_names=["y"], preprocess=given, labels=["a"])


@pytest.fixture
def batches():
    generator = np.random.default_rng(0)
    return [generator.uniform(0.2, 1, (1, CHANNELS, 8, 8)).astype(np.float32) for _ in range(3)]


@pytest.fixture
def measured(tmp_path, batches):
    """Return the network, its ranges by percentile, and its layers, worst first."""
    model = network()
    onnx.save(model, tmp_path / "fp32.onnx")
    histograms = collect_histograms(tmp_path / "fp32.onnx", batches)
    ranges = {p: {name: h.range(p) for name, h in histograms.items()} for p in (100.0, 99.0)}
    steps = {c.node.input[1]: weights.scales(c, saturates=False) for c in weights.conv_weights(model.graph)}
    layers = sensitivity.layers_of(model, ort_u8.unquantised(model))
    return (
        model,
        ranges,
        sensitivity.rank_layers(model, layers, ranges, steps, batches, output_error(classifier_spec())),
    )


def test_layer_with_one_huge_channel_leads(measured):
    ranked = measured[2]
    assert ranked[0].layer.nodes == [BAD, "relu_2"]
    assert ranked[1].layer.nodes == ["conv_3", "relu_3"]  # whose smallest weights undo it
    assert ranked[0].error > 3 * ranked[1].error > 9 * ranked[2].error
    assert [one.error for one in ranked] == sorted((one.error for one in ranked), reverse=True)


def test_tail_is_no_layer(measured):
    assert "conv_4" not in {name for one in measured[2] for name in one.layer.nodes}


def test_percentile_that_clips_the_huge_channel_is_not_chosen(measured):
    _, ranges, ranked = measured
    assert ranked[0].percentile == 100.0
    first = next(sensitivity.growing_choices(*measured[:1], ranked, ranges))
    assert first.ranges["r2"] == ranges[100.0]["r2"]


def test_worst_layer_is_kept_with_its_readers(measured):
    model, ranges, ranked = measured
    first, *more = sensitivity.growing_choices(model, ranked, ranges)
    assert first.nodes == {BAD, "relu_2", "conv_3"}
    assert list(first.layers) == [BAD]
    assert first.cost == pytest.approx(0.5)  # conv_2 and conv_3 of four of a size; the tail is not counted
    assert first.record()["kept_in_fp32"] == {BAD: f"alone it changes the output by {first.layers[BAD]:.1%}"}
    assert all(one.cost <= sensitivity.COST_LIMIT and first.nodes < one.nodes for one in more)


def test_int8_with_the_worst_layer_in_fp32_is_accurate(measured, batches, tmp_path):
    model, ranges, ranked = measured
    onnx.save(model, tmp_path / "fp32.onnx")
    ort_u8.prepare(tmp_path / "fp32.onnx", tmp_path / "prepared.onnx")
    kept = next(sensitivity.growing_choices(model, ranked, ranges))
    errors = []
    for name, keep in (("all", ()), ("kept", kept.nodes)):
        out = tmp_path / f"{name}.onnx"
        ort_u8.write_int8(tmp_path / "prepared.onnx", ranges[100.0], {}, out, saturates=False, keep=keep)
        runs = (sensitivity.run_plainly(onnx.load(path), batches) for path in (tmp_path / "fp32.onnx", out))
        errors.append(np.mean([output_error(classifier_spec())(*pair) for pair in zip(*runs, strict=True)]))
    assert errors[1] < errors[0] / 5
    fusion = ort_u8.measure_fusion(tmp_path / "kept.onnx")
    assert (fusion.share, fusion.excluded) == (1.0, 3)  # conv_2, conv_3 and the tail are in FP32 on purpose


def test_deep_network_is_cut_into_as_many_runs(monkeypatch):
    monkeypatch.setattr(sensitivity, "MOST_LAYERS", 3)
    model = network(layers=9)
    layers = sensitivity.layers_of(model, ort_u8.unquantised(model))
    assert [len(layer.nodes) for layer in layers] == [6, 6, 4]
    assert sum(layer.multiplications for layer in layers) == 8 * CHANNELS * CHANNELS * 64


def test_network_that_cannot_run_is_an_error(measured, batches):
    model, ranges, ranked = measured
    with pytest.raises(QuantizeError, match="cannot run the network to rank its layers"):
        sensitivity.rank_layers(
            model, [ranked[0].layer], ranges, {}, [batches[0][:, :3]], output_error(classifier_spec())
        )


def test_detector_error_counts_boxes_and_scores_alone():
    given = Preprocess(width=64, height=64, resize="stretch", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    spec = Spec(kind="detector", output_names=["m"], preprocess=given, labels=["a"], strides=[16], score_threshold=0.3)
    error = output_error(spec)
    maps = np.full((1, 5, 4, 4), -9.0, np.float32)
    maps[0, :4] = 1.0
    maps[0, 4, 1, 1] = 2.0
    assert error([maps], [maps]) == 0.0
    background = maps.copy()
    background[0, :, 3, 3] = (9.0, 9.0, 9.0, 9.0, -5.0)
    assert error([maps], [background]) == 0.0
    half = maps.copy()
    half[0, 2, 1, 1] = 0.0  # half as wide
    assert error([maps], [half]) == pytest.approx(0.5, abs=1e-3)
    false_alarm = maps.copy()
    false_alarm[0, 4, 3, 3] = 2.0
    assert error([maps], [false_alarm]) == pytest.approx(1.0, abs=1e-3)
