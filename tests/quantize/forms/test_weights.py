"""Scales of INT8 weights and the correction of biases."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge.inference.onnxruntime_library import ort
from quantize.forms import calibrate, ort_u8, weights


def conv_model(weight, *, group=1, size=4):
    """Build a network with a convolution between two others, which stay in FP32."""
    out, per_group = weight.shape[:2]
    channels = per_group * group
    initialisers = {
        "first": np.eye(channels, dtype=np.float32)[:, :, None, None],
        "weight": weight.astype(np.float32),
        "bias": np.linspace(-1, 1, out, dtype=np.float32),
        "last": np.eye(out, dtype=np.float32)[:, :, None, None],
    }
    pads = [weight.shape[2] // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], name="first_conv"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "weight", "bias"], ["c"], name="conv", group=group, pads=pads),
        helper.make_node("Relu", ["c"], ["d"], name="relu_2"),
        helper.make_node("Conv", ["d", "last"], ["y"], name="last_conv"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, out, size, size])],
        [numpy_helper.from_array(value, name) for name, value in initialisers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def conv_of(weight, group=1):
    return next(c for c in weights.conv_weights(conv_model(weight, group=group).graph) if c.node.name == "conv")


def rounded(weight, steps):
    return np.round(weight / steps[:, None, None, None].astype(np.float64))


@given(st.integers(0, 10_000), st.sampled_from([1, 3]), st.integers(1, 9))
def test_added_pairs_of_weights_never_saturate_16_bits(seed, kernel, channels):
    weight = np.random.default_rng(seed).standard_t(2, (3, channels, kernel, kernel))
    whole = rounded(weight, weights.scales(conv_of(weight), saturates=True))
    assert np.abs(whole).max() <= 127
    for order in (whole, whole.transpose(0, 2, 3, 1)):
        rows = order.reshape(3, -1)
        rows = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).reshape(3, -1, 2)
        for sign in (1, -1):
            assert (255 * (sign * rows).clip(0).sum(axis=2)).max() <= 32767


def test_scales_use_all_eight_bits_if_nothing_saturates():
    weight = np.random.default_rng(0).normal(size=(6, 8, 1, 1))
    whole = rounded(weight, weights.scales(conv_of(weight), saturates=False))
    np.testing.assert_array_equal(np.abs(whole).max(axis=(1, 2, 3)), 127)


def test_depthwise_weights_keep_eight_bits():
    weight = np.random.default_rng(0).normal(size=(6, 1, 3, 3))
    whole = rounded(weight, weights.scales(conv_of(weight, group=6), saturates=True))
    np.testing.assert_array_equal(np.abs(whole).max(axis=(1, 2, 3)), 127)


@pytest.mark.parametrize(("shape", "group"), [((8, 64, 1, 1), 1), ((8, 8, 3, 3), 1), ((8, 1, 3, 3), 8)])
def test_fused_int8_kernel_is_exact_for_the_brightest_input(tmp_path, shape, group):
    rng = np.random.default_rng(0)
    weight = rng.uniform(0.5, 1.0, shape)  # all of one sign: with plain 8-bit scales every pair saturates
    model = conv_model(weight, group=group)
    onnx.save(model, tmp_path / "fp32.onnx")
    batch = np.ones((1, shape[1] * group, 4, 4), np.float32)
    ort_u8.prepare(tmp_path / "fp32.onnx", tmp_path / "prepared.onnx")
    histograms = calibrate.collect_histograms(tmp_path / "prepared.onnx", [batch])
    ranges = {name: histogram.range(100.0) for name, histogram in histograms.items()}
    ort_u8.write_int8(tmp_path / "prepared.onnx", ranges, {}, tmp_path / "int8.onnx", saturates=True)
    fused, literal = (run(tmp_path / "int8.onnx", batch, level) for level in ("ORT_ENABLE_ALL", "ORT_DISABLE_ALL"))
    assert ort_u8.measure_fusion(tmp_path / "int8.onnx").int8 >= 1
    np.testing.assert_allclose(fused, literal, atol=literal.max() / 255 * 1.01)


def run(path, batch, level):
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": batch})[0]


@pytest.mark.parametrize(("shape", "group"), [((6, 8, 1, 1), 1), ((6, 2, 1, 1), 3)])
def test_corrected_bias_restores_the_mean_of_every_channel(shape, group):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=shape)
    model = conv_model(weight, group=group)
    x = rng.uniform(0, 2, (50, shape[1] * group)) * np.arange(1, shape[1] * group + 1)
    step = np.full(6, 0.3, np.float32)  # coarse, so that the error is large
    weights.correct_bias(model, {"weight": step}, {"b": x.mean(axis=0)})
    node = next(n for n in model.graph.node if n.name == "conv")
    known = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}

    def means(matrix, bias):
        parts = matrix[:, :, 0, 0].reshape(group, -1, shape[1])
        return (np.einsum("goi,ngi->ngo", parts, x.reshape(50, group, -1)).reshape(50, -1) + bias).mean(axis=0)

    want = means(weight, known["bias"])
    np.testing.assert_allclose(means(rounded(weight, step) * step[0], known[node.input[2]]), want, atol=1e-4)
    assert np.abs(means(rounded(weight, step) * step[0], known["bias"]) - want).max() > 0.1


def test_convolution_without_bias_gets_one():
    model = conv_model(np.full((2, 4, 1, 1), 0.4))
    first = next(n for n in model.graph.node if n.name == "first_conv")
    weights.correct_bias(model, {"first": np.full(4, 0.7, np.float32)}, {"x": np.ones(4)})
    bias = next(t for t in model.graph.initializer if t.name == first.input[2])
    np.testing.assert_allclose(numpy_helper.to_array(bias), np.full(4, 1.0 - 0.7), atol=1e-6)
