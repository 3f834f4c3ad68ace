"""Calibration and the INT8 graph."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from edge.errors import QuantizeError
from edge.imaging.image import encode_image, read_image
from edge.inference.engine import open_engine
from quantize.forms import calibrate, ort_u8
from quantize.forms.write_forms import quantize_network
from quantize.network_spec import read_spec, spec_path
from quantize.pictures import Sample
from tests.tensorrt_cases import ROWS, graph

VNNI = "flags\t\t: fpu sse2 avx2 avx512_vnni"
AVX2 = "model name : x\nflags\t\t: fpu sse2 avx2"
ARM = "Features\t: fp asimd asimddp"


def quiet(pictures, what):
    return pictures


@pytest.fixture
def int8(exported, data, tmp_path):
    spec = read_spec(spec_path(exported["classifier"]))
    pictures = data.calibration_crops(spec)
    record = quantize_network(
        spec, exported["classifier"], pictures, tmp_path / "int8.onnx", saturates=True, progress=quiet
    )
    return tmp_path / "int8.onnx", record


def test_int8_agrees_with_fp32_and_every_convolution_is_fused(exported, int8, data):
    path, record = int8
    assert ort_u8.measure_fusion(path).share == 1.0
    assert ort_u8.measure_fusion(path).int8 == 4
    assert record["relative_error"] < 0.1
    assert record["calibration_images"] == 24
    batch = np.stack([read_image(s.path) for s in data.samples[:20]])
    want, got = (open_engine(p).run(batch)[0] for p in (exported["classifier"], path))
    np.testing.assert_array_equal(got.argmax(1), want.argmax(1))


def test_camera_bytes_are_the_quantised_input(int8):
    graph = onnx.load(str(int8[0])).graph
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [node.op_type for node in graph.node if "image" in node.input] == ["Transpose"]
    assert not {"Cast", "Sub"} & {node.op_type for node in graph.node}


def test_last_weighted_layer_stays_in_fp32(int8):
    model = onnx.load(str(int8[0]))
    producer = {name: node for node in model.graph.node for name in node.output}
    last = producer["logits"]
    assert last.op_type == "Gemm"
    assert last.input[1] not in producer  # its weight is a float constant, not a DequantizeLinear


@pytest.mark.parametrize(("cpuinfo", "lacks"), [(VNNI, False), (AVX2, True), (ARM, False)])
def test_missing_dot_product_is_read_from_the_cpu_flags(cpuinfo, lacks):
    assert ort_u8.lacks_dot_product(cpuinfo) is lacks


def test_truncated_onnx_file_is_named(exported, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(exported["classifier"].read_bytes()[:500])
    with pytest.raises(QuantizeError, match=r"broken\.onnx: cannot read as ONNX"):
        ort_u8.prepare(broken, tmp_path / "prepared.onnx")


def test_digest_depends_on_pixels_and_preprocessing(exported, tmp_path):
    spec = read_spec(spec_path(exported["classifier"])).preprocess
    picture = np.full((8, 8, 3), 90, np.uint8)
    path = tmp_path / "picture.png"
    path.write_bytes(encode_image(picture, ".png"))
    sample = Sample(path, "picture.png", "train", "box", "red")
    before = calibrate.calibration_digest([sample], spec)
    assert before == calibrate.calibration_digest([sample], spec)
    assert before != calibrate.calibration_digest([sample], spec.model_copy(update={"fill": 0}))
    assert before != calibrate.calibration_digest([replace(sample, box_px=(0.0, 0.0, 4.0, 4.0))], spec)
    picture[3, 3, 0] = 91
    path.write_bytes(encode_image(picture, ".png"))
    assert before != calibrate.calibration_digest([sample], spec)


def test_missing_calibration_pictures_are_an_error(exported):
    with pytest.raises(QuantizeError, match="no calibration pictures"):
        calibrate.collect_histograms(exported["classifier"], [])


def test_tensor_that_is_not_finite_is_named(tmp_path):
    model = graph([("Log", "x", "logs"), ("Relu", "logs", "y")], {}, ROWS)
    onnx.save(onnx.shape_inference.infer_shapes(model), str(tmp_path / "model.onnx"))
    with pytest.raises(QuantizeError, match=r"model\.onnx: tensor '(logs|y)': activations range from .* finite values"):
        calibrate.collect_histograms(tmp_path / "model.onnx", [np.full((1, 32), -1.0, np.float32)])


def test_histogram_grows_without_losing_counts():
    histogram = calibrate.Histogram()
    small, large = np.linspace(-1, 1, 10_000, dtype=np.float32), np.array([9.0], np.float32)
    histogram.add(small)
    histogram.add(large)
    assert histogram.range(100.0) == calibrate.Range(-1.0, 9.0)
    clipped = histogram.range(99.9)
    assert clipped.low == pytest.approx(-1.0, abs=0.02)
    assert clipped.high == pytest.approx(1.0, abs=0.02)


def test_range_of_a_positive_activation_includes_zero():
    histogram = calibrate.Histogram()
    histogram.add(np.array([2.0, 3.0], np.float32))
    assert histogram.range(100.0) == calibrate.Range(0.0, 3.0)


def test_activation_that_is_not_finite_is_an_error():
    with pytest.raises(QuantizeError, match="finite"):
        calibrate.Histogram().add(np.array([1.0, np.nan], np.float32))
