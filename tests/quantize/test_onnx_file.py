"""ONNX files from anywhere: external weights are put inside, and a spec that does not fit is refused."""

from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edge.errors import EngineError, QuantizeError
from edge.inference.engine import open_engine
from edge.manifest.embedder import Head
from quantize import onnx_file
from quantize.fp32_model import export_or_copy
from quantize.network_spec import MAX_BATCH, spec_path, write_spec
from tests import onnx_samples as samples
from tests.sample_models import shapes_model


def copied(path, tmp_path):
    return export_or_copy(path, tmp_path / "copy" / "model.fp32.onnx")


@pytest.fixture
def model(tmp_path):
    (tmp_path / "copy").mkdir()
    return samples.detector(tmp_path / "given" / "model.onnx")


def test_model_without_external_weights_is_copied_byte_for_byte(model, tmp_path):
    copied(model, tmp_path)
    assert (tmp_path / "copy/model.fp32.onnx").read_bytes() == model.read_bytes()


def test_external_weights_are_put_inside(model, tmp_path):
    grey = np.full((1, 64, 64, 3), 90, np.uint8)
    expected = open_engine(model).run(grey)[0]
    weights = samples.move_weights(model)
    assert copied(model, tmp_path).kind == "detector"
    weights.unlink()
    np.testing.assert_array_equal(open_engine(tmp_path / "copy/model.fp32.onnx").run(grey)[0], expected)


def test_missing_external_weights_are_named(model, tmp_path):
    samples.move_weights(model).unlink()
    with pytest.raises(QuantizeError, match=r"its weights are in .*weights\.data, which is missing"):
        copied(model, tmp_path)


def test_truncated_external_weights_are_named(model, tmp_path):
    weights = samples.move_weights(model)
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(QuantizeError, match=r"weights\.data, which has \d+; it is truncated"):
        copied(model, tmp_path)


@pytest.mark.parametrize("location", ["../weights.data", "/etc/passwd", "a/../../weights.data", "C:\\w.data", ""])
def test_external_weights_outside_the_folder_are_refused(model, tmp_path, location):
    samples.move_weights(model, location)
    (tmp_path / "weights.data").write_bytes(b"\0" * 1000)
    with pytest.raises(QuantizeError, match="outside the model's folder"):
        copied(model, tmp_path)


def test_link_to_external_weights_outside_the_folder_is_refused(model, tmp_path):
    weights = samples.move_weights(model)
    weights.rename(tmp_path / "elsewhere.data")
    weights.symlink_to(tmp_path / "elsewhere.data")
    with pytest.raises(QuantizeError, match="outside the model's folder"):
        copied(model, tmp_path)


def test_external_weights_of_a_node_inside_a_branch_are_found(model, tmp_path):
    inner = numpy_helper.from_array(np.ones(2, np.float32), "inner")
    inner.ClearField("raw_data")
    inner.data_location = onnx.TensorProto.EXTERNAL
    inner.external_data.add(key="location", value="gone.data")
    constant = onnx.helper.make_node("Constant", [], ["c"], value=inner)
    branch = onnx.helper.make_graph([constant], "branch", [], [])
    outer = onnx.load(str(model))
    outer.graph.node.append(onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
    model.write_bytes(outer.SerializeToString())
    with pytest.raises(QuantizeError, match=r"gone\.data, which is missing"):
        onnx_file.read_onnx(model)


def test_model_of_more_than_two_gigabytes_is_refused(model, tmp_path, monkeypatch):
    samples.move_weights(model)
    monkeypatch.setattr(onnx_file, "MAX_BYTES", model.stat().st_size + 10)
    with pytest.raises(QuantizeError, match="a model in a bundle has at most"):
        copied(model, tmp_path)


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"", "is empty"), (b"\x89PNG\r\n\x1a\n", "not an ONNX file"), (b"version https://git-lfs", "not an ONNX file")],
)
def test_file_that_is_no_model_is_named(model, tmp_path, data, why):
    model.write_bytes(data)
    with pytest.raises(QuantizeError, match=rf"model\.onnx: {why}"):
        copied(model, tmp_path)


def test_every_truncated_model_is_our_error(model, tmp_path):
    whole = model.read_bytes()
    for length in range(0, len(whole), 7):
        model.write_bytes(whole[:length])
        with pytest.raises((QuantizeError, EngineError), match=r"model"):
            copied(model, tmp_path)


@settings(
    derandomize=True, max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damaged_model_is_read_or_our_error(model, changes):
    samples.move_weights(samples.detector(model))
    damaged = bytearray(model.read_bytes())
    for where, value in changes:
        damaged[int(where * len(damaged))] = value
    model.write_bytes(damaged)
    with suppress(QuantizeError):
        onnx_file.read_onnx(model)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(QuantizeError, match=r"gone\.onnx is not a training run or an ONNX file"):
        copied(tmp_path / "gone.onnx", tmp_path)


def test_missing_spec_is_named(model, tmp_path):
    spec_path(model).unlink()
    with pytest.raises(QuantizeError, match=r"model\.json: cannot read the spec of the ONNX file"):
        copied(model, tmp_path)


WRONG = {
    "input_name": ({"input_name": "data"}, r"has the inputs \['image'\], but its spec says input_name 'data'"),
    "output_names": (
        {"output_names": ["boxes"]},
        r"has the outputs \['cells'\], in this order, but its spec says output_names \['boxes'\]",
    ),
    "dtype": ({"preprocess": samples.preprocess(dtype="float32")}, r"is uint8 .* but its spec says float32"),
    "size": (
        {"preprocess": samples.preprocess(width=96)},
        r"\['n', 64, 64, 3\], but its spec says uint8 \['n', 64, 96",
    ),
    "layout": ({"preprocess": samples.preprocess(layout="nchw")}, r"spec says uint8 \['n', 3, 64, 64\]"),
    "labels": ({"labels": ["thing"]}, r"2 class channels for 1 labels"),
    "strides": ({"strides": [8]}, r"decoder ltrb, strides \[8\]"),
    "decoder": ({"decoder": "yolox"}, r"outputs of shapes .*decoder yolox"),
    "keep_labels": ({"keep_labels": ["car"]}, r"keep_labels has \['car'\]"),
    "score_threshold": ({"score_threshold": 1.5}, r"score_threshold"),
}


@pytest.mark.parametrize(("changes", "why"), WRONG.values(), ids=WRONG)
def test_detector_that_differs_from_its_spec_is_refused(model, tmp_path, changes, why):
    write_spec(model, samples.detector_spec(**changes))
    with pytest.raises(QuantizeError, match=why):
        copied(model, tmp_path)


def test_embedder_that_differs_from_its_spec_is_refused(tmp_path):
    (tmp_path / "copy").mkdir()
    wide = samples.embedder_spec(heads=[Head(name="class", dim=4)])
    with pytest.raises(QuantizeError, match=r"outputs of shapes \[\(1, 3\)\], but its spec means \[\(1, 4\)\]"):
        copied(samples.embedder(tmp_path / "model.onnx", wide), tmp_path)


def test_classifier_with_another_number_of_labels_is_refused(tmp_path):
    (tmp_path / "copy").mkdir()
    path = tmp_path / "model.onnx"
    path.write_bytes(shapes_model((3,)))
    write_spec(path, samples.detector_spec(kind="classifier", output_names=["output0"], labels=["a", "b"]))
    with pytest.raises(QuantizeError, match="3 outputs for 2 labels"):
        copied(path, tmp_path)


def test_spec_without_input_name_means_the_models_own(model, tmp_path):
    graph = onnx.load(str(model))
    graph.graph.input[0].name = graph.graph.node[0].input[0] = "pictures"
    onnx.save(graph, str(model))
    spec_path(model).write_text(samples.detector_spec().model_dump_json(exclude={"input_name"}))
    assert copied(model, tmp_path).input_name == "pictures"


def test_spec_with_a_byte_order_mark_is_read(model, tmp_path):
    spec_path(model).write_bytes(b"\xef\xbb\xbf" + spec_path(model).read_bytes())
    assert copied(model, tmp_path).labels == ["thing", "other"]


@pytest.mark.parametrize(("rows", "most"), [(1, 1), ("n", MAX_BATCH)])
def test_max_batch_is_the_fixed_batch_size_of_the_graph(tmp_path, rows, most):
    (tmp_path / "copy").mkdir()
    assert copied(samples.detector(tmp_path / "model.onnx", rows=rows), tmp_path).max_batch == most


def test_model_that_takes_batches_of_four_only_is_refused(tmp_path):
    with pytest.raises(QuantizeError, match="batches of 4 only"):
        copied(samples.detector(tmp_path / "copy" / "m.onnx", rows=4), tmp_path)


def test_model_that_states_any_batch_but_runs_one_is_packed_for_one(tmp_path, caplog):
    path = samples.embedder(tmp_path / "copy" / "m.onnx")
    model = onnx.load(str(path))
    model.graph.node[-1].output[0] = "rows"
    model.graph.node.append(onnx.helper.make_node("Reshape", ["rows", "one"], ["vector"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 3], np.int64), "one"))
    onnx.save(model, str(path))
    assert copied(path, tmp_path).max_batch == 1
    assert "packed for one picture at a time" in caplog.text


def test_yolox_without_a_sigmoid_is_noticed(tmp_path, caplog):
    spec = samples.detector_spec(decoder="yolox")
    model = samples.detector(tmp_path / "m.onnx", spec, classes=3)
    graph = onnx.load(str(model))
    graph.graph.node[-1].output[0] = "maps"
    graph.graph.node.append(onnx.helper.make_node("Reshape", ["maps", "shape"], ["planes_last"]))
    graph.graph.node.append(onnx.helper.make_node("Transpose", ["planes_last"], ["cells"], perm=[0, 2, 1]))
    graph.graph.initializer.append(numpy_helper.from_array(np.array([-1, 7, 16], np.int64), "shape"))
    del graph.graph.output[0].type.tensor_type.shape.dim[:]
    onnx.save(graph, str(model))
    export_or_copy(model, tmp_path / "fp32.onnx")
    assert "decoder yolox needs probabilities, and the model gives" in caplog.text
