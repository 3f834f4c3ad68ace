"""Specs of published detectors, from the shapes of their files."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edge.errors import QuantizeError
from quantize.cli import main
from quantize.detector_specs import COCO, find_spec
from quantize.network_spec import write_spec
from tests.onnx_samples import detector_spec

CELLS = 12 * 8 + 6 * 4 + 3 * 2  # of 96x64 pixels, at strides 8, 16 and 32


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "yolox.onnx"


def write_yolox(path: Path, first: str = "Slice", shape=(1, CELLS, 85), last: str = "Concat") -> Path:
    """Write a graph with the input and output of YOLOX; only its shapes and operators are true."""
    nodes = [helper.make_node(first, ["images"], ["x"]), helper.make_node(last, ["x"], ["output"])]
    graph = helper.make_graph(
        nodes,
        "yolox",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 96])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, list(shape))],
    )
    onnx.save(helper.make_model(graph), str(path))
    return path


def test_spec_comes_from_the_shapes(path):
    spec = find_spec(write_yolox(path))
    assert (spec.kind, spec.decoder, spec.strides) == ("detector", "yolox", [8, 16, 32])
    assert (spec.input_name, spec.output_names) == ("images", ["output"])
    assert (spec.preprocess.width, spec.preprocess.height, spec.preprocess.resize) == (96, 64, "letterbox")
    assert (len(spec.labels), spec.labels[2], spec.labels[67], spec.labels[-1]) == (
        80,
        "car",
        "cell phone",
        "toothbrush",
    )


@pytest.mark.parametrize(
    ("first", "given", "colour"),
    [
        ("Slice", None, "bgr"),  # since release 0.1.1
        ("Sub", None, "rgb"),  # before, with the normalisation inside
        ("Slice", "yolox-coco-rgb", "rgb"),
        ("Sub", "yolox-coco", "bgr"),
    ],
)
def test_order_of_the_channels(path, first, given, colour):
    assert colour == find_spec(write_yolox(path, first), given).preprocess.colour


def test_spec_file_goes_before_the_shapes(path, tmp_path):
    write_spec(write_yolox(path), detector_spec(labels=["beside"]))
    assert find_spec(path).labels == ["beside"]
    other = tmp_path / "other.json"
    other.write_text(detector_spec(labels=["given"]).model_dump_json())
    assert find_spec(path, str(other)).labels == ["given"]
    assert find_spec(path, "yolox-coco").labels == COCO


def test_labels_to_keep_must_exist(path):
    assert find_spec(write_yolox(path), None, ["car", "bus"]).keep_labels == ["car", "bus"]
    with pytest.raises(QuantizeError, match="has no label 'lorry'; its labels are: person, bicycle, car"):
        find_spec(path, None, ["car", "lorry"])


def test_missing_file_says_where_the_models_are_published(path):
    with pytest.raises(QuantizeError, match=r"no such file; .*/releases/download/0\.1\.1rc0/yolox_nano\.onnx"):
        find_spec(path)


@pytest.mark.parametrize("shape", [(1, CELLS, 84), (1, CELLS - 1, 85), (CELLS, 85), (1, 85, CELLS)])
def test_other_shapes_need_a_spec(path, shape):
    with pytest.raises(QuantizeError, match="not YOLOX trained on COCO; give --detector-spec"):
        find_spec(write_yolox(path, shape=shape))


def test_model_that_decodes_its_boxes_is_refused(path):
    with pytest.raises(QuantizeError, match="decodes its boxes itself; export it without --decode_in_inference"):
        find_spec(write_yolox(path, last="Exp"))


def test_bad_spec_file_is_named(path, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({"kind": "dog"}))
    with pytest.raises(QuantizeError, match=r"bad\.json: kind"):
        find_spec(write_yolox(path), str(bad))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--keep-labels", "car"], "--detector-spec and --keep-labels belong to --detector-onnx; give that, too"),
        (["--detector-onnx", "missing.onnx"], "missing.onnx: no such file; YOLOX models (Apache-2.0) are published as"),
    ],
)
def test_pack_says_what_it_needs(arguments, problem, tmp_path, capsys):
    assert main(["pack", "--id", "road", "--sequence", "1", "--out", str(tmp_path / "out"), *arguments]) == 1
    assert capsys.readouterr().err.startswith(f"edge-quantize: {problem}")
