"""Opening a detector from a run folder, a bundle or an ONNX file."""

from __future__ import annotations

import json
import shutil

import pytest

from edge.errors import QuantizeError, TrainError
from edge.imaging.image import read_image
from edge.shipped.examples import shipped
from learn.open_detector import open_detector
from quantize.network_spec import Spec, write_spec

BUNDLE = shipped("demo") / "bundle"
MANIFEST = json.loads((BUNDLE / "bundle.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def picture():
    return read_image(BUNDLE / MANIFEST["scene_probes"][0]["path"])


def test_the_detector_of_a_bundle_and_its_file_find_the_same(picture, tmp_path):
    entry = MANIFEST["detector"]
    shutil.copyfile(BUNDLE / entry["files"][entry["ship"]], tmp_path / "found.onnx")
    about = {
        key: entry[key] for key in ("output_names", "preprocess", "decoder", "strides", "labels", "score_threshold")
    }
    write_spec(tmp_path / "found.onnx", Spec(kind="detector", input_name=entry["input_name"], **about))
    of_bundle, of_file = open_detector(BUNDLE), open_detector(tmp_path / "found.onnx")
    found = of_bundle.detect(picture)
    assert len(found) >= len(MANIFEST["scene_probes"][0]["boxes_px"]) > 0
    assert found == of_file.detect(picture)
    assert of_bundle.score_threshold == of_file.score_threshold == entry["score_threshold"]


def test_a_threshold_replaces_that_of_the_bundle(picture):
    assert open_detector(BUNDLE, threshold=0.999).detect(picture) == []
    assert len(open_detector(BUNDLE, threshold=0.05).detect(picture)) >= len(open_detector(BUNDLE).detect(picture))


def test_a_run_finds_what_its_threshold_lets_through(picture, toy_detector):
    opened = open_detector(toy_detector, threshold=0.0)
    assert all(0 <= one.box_px[0] <= one.box_px[2] <= picture.shape[1] for one in opened.detect(picture))
    assert open_detector(toy_detector, threshold=1.1).detect(picture) == []


def test_what_is_no_detector_is_refused(tmp_path):
    with pytest.raises(TrainError, match="is no detector; give a run folder"):
        open_detector(tmp_path)
    with pytest.raises(QuantizeError, match="no such file"):
        open_detector(tmp_path / "a.onnx")
