"""Four pixels side by side as twelve channels: the same numbers, bit for bit, and what is left alone."""

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge.inference.onnxruntime_library import ort
from quantize.forms import calibrate, group_pixels, ort_u8
from quantize.forms.fold_normalisation import fold_normalisation


def stem_node(kernel, stride, pads, **more):
    return helper.make_node(
        "Conv", ["x", "w"], ["y"], name="stem", kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, **more
    )


def convolve(picture, weight, stride, pads):
    """Convolve (h, w, c) whole numbers with (out, c, kh, kw): (h / stride, w / stride, out)."""
    top, left, bottom, right = pads
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(picture, ((top, bottom), (left, right), (0, 0))), weight.shape[2:], axis=(0, 1)
    )[:: stride[0], :: stride[1]]
    return np.einsum("hwcij,ocij->hwo", windows, weight)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kernel=st.integers(1, 8),
    stride=st.sampled_from([2, 4]),
    left=st.integers(0, 7),
    beyond=st.integers(0, 3),
    groups=st.integers(2, 5),
)
@example(seed=0, kernel=3, stride=2, left=1, beyond=1, groups=3)
@example(seed=0, kernel=7, stride=2, left=3, beyond=1, groups=3)
@example(seed=0, kernel=4, stride=4, left=0, beyond=0, groups=3)
def test_grouped_convolution_gives_the_same_sums(seed, kernel, stride, left, beyond, groups):
    generator = np.random.default_rng(seed)
    width = groups * group_pixels.GROUP
    right = max(0, kernel - stride - left + beyond % stride)  # as many columns as the stride says
    weight = generator.integers(-127, 128, (3, 3, kernel, kernel))
    found = group_pixels.grouping_of(stem_node(kernel, stride, [0, left, 0, right]), weight, width)
    if found is None:
        assert (width + left + right - kernel) // stride + 1 != width // stride
        return
    picture = generator.integers(-128, 128, (kernel + 3, width, 3))
    expected = convolve(picture, weight, (stride, stride), (0, left, 0, right))
    grouped = convolve(
        picture.reshape(len(picture), -1, 12), found.weight(weight), (stride, 1), (0, found.before, 0, found.after)
    )
    np.testing.assert_array_equal(grouped.reshape(expected.shape), expected)


def test_large_kernel_with_many_outputs_is_left_alone():
    node = stem_node(7, 2, [3] * 4)
    assert group_pixels.grouping_of(node, np.zeros((64, 3, 7, 7)), 32) is None
    assert group_pixels.grouping_of(node, np.zeros((32, 3, 7, 7)), 32) is not None


@pytest.mark.parametrize(
    ("node", "channels", "width"),
    [
        (stem_node(3, 1, [1] * 4), 3, 32),  # three times the multiplications
        (stem_node(3, 2, [1] * 4), 4, 32),  # a multiple of 4 already
        (stem_node(3, 2, [1] * 4), 3, 30),  # not a multiple of 4 pixels
        (stem_node(3, 2, [0] * 4), 3, 32),  # fewer columns than half the pixels
        (stem_node(3, 2, [2] * 4, dilations=[2, 2]), 3, 32),
        (stem_node(3, 2, [1] * 4, group=2), 3, 32),
        (stem_node(3, 2, [0] * 4, auto_pad="SAME_UPPER"), 3, 32),
    ],
)
def test_other_convolutions_are_left_alone(node, channels, width):
    assert group_pixels.grouping_of(node, np.zeros((8, channels, 3, 3)), width) is None


def network(kernel, stride, size, *, relu=True):
    """Build bytes, normalisation, a stem, a pointwise convolution, and a last one that stays in FP32."""
    generator = np.random.default_rng(kernel)
    out = 16
    constants = {
        "scale": np.full((1, 3, 1, 1), 1 / 64),
        "bias": np.array([-2.0, -1.9, -1.8]).reshape(1, 3, 1, 1),
        "w0": generator.standard_normal((out, 3, kernel, kernel)) / kernel,
        "b0": generator.standard_normal(out),
        "w1": generator.standard_normal((out, out, 1, 1)) / 4,
        "b1": generator.standard_normal(out),
        "w2": generator.standard_normal((4, out, 1, 1)) / 4,
    }
    pad = (kernel - stride + 1) // 2
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], name="transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], ["scaled"], name="mul"),
        helper.make_node("Add", ["scaled", "bias"], ["normal"], name="add"),
        helper.make_node(
            "Conv", ["normal", "w0", "b0"], ["s"], name="stem", kernel_shape=[kernel] * 2, strides=[stride] * 2,
            pads=[pad] * 4,
        ),
        helper.make_node("Relu" if relu else "Sigmoid", ["s"], ["r"], name="activation"),
        helper.make_node("Conv", ["r", "w1", "b1"], ["t"], name="pointwise"),
        helper.make_node("Relu", ["t"], ["u"], name="relu_1"),
        helper.make_node("Conv", ["u", "w2"], ["y"], name="last"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", *size, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, None, None])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def int8_of(model, folder, pictures):
    onnx.save(model, folder / "fp32.onnx")
    ort_u8.prepare(folder / "fp32.onnx", folder / "prepared.onnx")
    histograms = calibrate.collect_histograms(folder / "prepared.onnx", pictures)
    ranges = {name: histogram.range(100.0) for name, histogram in histograms.items()}
    means = {name: h.channel_means for name, h in histograms.items() if h.channel_means is not None}
    ort_u8.write_int8(folder / "prepared.onnx", ranges, means, folder / "int8.onnx", saturates=True)
    return onnx.load(folder / "int8.onnx")


def run(model, batch):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": batch})[0]


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (7, 2), (4, 4)])
@pytest.mark.parametrize("relu", [True, False])
def test_int8_form_is_bit_identical_with_and_without_groups(kernel, stride, folded, relu, tmp_path, monkeypatch):
    size = (20, 32)
    generator = np.random.default_rng(1)
    pictures = [generator.integers(0, 256, (1, *size, 3)).astype(np.uint8) for _ in range(4)]
    model = network(kernel, stride, size, relu=relu)
    assert fold_normalisation(model) if folded else True
    grouped = int8_of(model, tmp_path, pictures)
    stem = next(node for node in grouped.graph.node if node.name == "stem")
    assert next(a.ints[1] for a in stem.attribute if a.name == "strides") == 1
    monkeypatch.setattr(ort_u8, "group_pixels", lambda *_: False)
    plain = int8_of(model, tmp_path, pictures)
    extreme = (np.indices((2, *size, 3)).sum(axis=0) % 2 * 255).astype(np.uint8)  # 0 beside 255: the largest sums
    for batch in (pictures[0], np.concatenate(pictures), extreme):
        np.testing.assert_array_equal(run(grouped, batch), run(plain, batch))


def test_grouped_network_has_no_transposition_at_its_input(tmp_path):
    size = (20, 32)
    picture = np.random.default_rng(1).integers(0, 256, (1, *size, 3)).astype(np.uint8)
    model = network(3, 2, size)
    assert fold_normalisation(model)
    grouped = int8_of(model, tmp_path, [picture])
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(grouped.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx").graph
    assert [node.op_type for node in optimised.node if "image" in node.input] == ["Reshape"]


def test_stem_kept_in_fp32_is_not_grouped(tmp_path):
    size = (20, 32)
    picture = np.random.default_rng(1).integers(0, 256, (1, *size, 3)).astype(np.uint8)
    onnx.save(network(3, 2, size), tmp_path / "fp32.onnx")
    ort_u8.prepare(tmp_path / "fp32.onnx", tmp_path / "prepared.onnx")
    histograms = calibrate.collect_histograms(tmp_path / "prepared.onnx", [picture])
    ranges = {name: histogram.range(100.0) for name, histogram in histograms.items()}
    ort_u8.write_int8(tmp_path / "prepared.onnx", ranges, {}, tmp_path / "o.onnx", saturates=True, keep={"stem"})
    stem = next(node for node in onnx.load(tmp_path / "o.onnx").graph.node if node.name == "stem")
    assert list(next(a.ints for a in stem.attribute if a.name == "strides")) == [2, 2]
