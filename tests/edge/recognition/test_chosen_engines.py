"""Which engines a bundle should run with, and when that changes."""

from __future__ import annotations

import json

import pytest

from edge.bundle.bundle import read_bundle
from edge.config.schema import DeviceConfig, EngineConfig
from edge.inference.engine_choice import EngineChoice, ModelChoice, Tried, choice_path, write_choice
from edge.recognition.chosen_engines import WantedEngines
from tests.edge.finder.finder_samples import finder_model
from tests.store_samples import make_bundle


@pytest.fixture
def bundle(tmp_path):
    """A bundle of INT8 models and a finder, which exists in FP32 only."""
    folder = make_bundle(tmp_path / "bundle", "one")
    manifest = json.loads((folder / "bundle.json").read_text())
    files = {"files": {"fp32": "detector.onnx"}, "ship": "fp32", "conversion": "detector.onnx"}
    manifest["finder"] = finder_model().model_dump(mode="json") | files
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("precision", ["shipped", "int8"])
def test_new_choice_changes_the_wanted_engines(tmp_path, bundle, precision):
    wanted = WantedEngines(DeviceConfig(state_dir=tmp_path, engine=EngineConfig(precision=precision)))
    before = wanted(bundle)
    assert before["embedder tyre"] == ("onnxruntime", "ort-u8")
    assert before["finder"] == ("onnxruntime", "fp32")
    chosen = {"backend": "openvino", "form": "ort-u8"}
    tried = [Tried(**chosen, ms=1.0, score_ms=1.0)]
    model = ModelChoice(**chosen, since="2026-01-01T00:00:00Z", reason="fastest", tried=tried)
    fields = {"bundle_id": "one", "made_at": "2026-01-01T00:00:00Z", "backend": "auto", "machine": {}}
    choice = EngineChoice(schema=1, models={"embedder tyre": model}, **fields)
    write_choice(choice_path(tmp_path, read_bundle(bundle, verify=False).manifest), choice)
    assert wanted(bundle) == before | {"embedder tyre": ("openvino", "ort-u8")}


@pytest.mark.parametrize(("precision", "form"), [("shipped", "ort-u8"), ("int8", "ort-u8"), ("fp32", "fp32")])
def test_finder_with_an_int8_form_follows_the_precision(tmp_path, bundle, precision, form):
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["finder"] |= {"files": {"fp32": "detector.onnx", "ort-u8": "detector.onnx"}, "ship": "ort-u8"}
    for embedder in manifest["embedders"]:
        embedder["files"]["fp32"] = "detector.onnx"
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    wanted = WantedEngines(DeviceConfig(state_dir=tmp_path, engine=EngineConfig(precision=precision)))
    assert wanted(bundle)["finder"] == ("onnxruntime", form)


def test_damaged_bundle_wants_nothing(tmp_path, bundle):
    (bundle / "bundle.json").write_text("{")
    assert WantedEngines(DeviceConfig(state_dir=tmp_path))(bundle) is None
