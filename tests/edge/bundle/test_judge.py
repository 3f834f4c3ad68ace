"""Each model is judged alone: by its probes, or by agreement with its FP32 form."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge.bundle.judge import Judge
from edge.errors import EngineError
from edge.imaging.image import encode_image
from edge.inference.engine import open_engine
from edge.manifest.manifest import Manifest
from tests.fakes_engine import (
    ScriptedEngine,
    classifier_model,
    detector_model,
    embedder_model,
    localiser_model,
    no_box_map,
    one_box_map,
)
from tests.sample_models import shapes_model

SIZE = 64


def manifest(**parts) -> Manifest:
    base = {"schema": 1, "bundle_id": "b", "sequence": 1, "created_at": "2026-01-01T00:00:00Z", "runtimes": ["fp32"]}
    names = ["model.onnx", "probe.png"]
    files = [{"path": name, "size": 1, "sha256": "0" * 64} for name in names]
    dumped = {
        key: json.loads(json.dumps(value, default=lambda one: one.model_dump(mode="json")))
        for key, value in parts.items()
    }
    return Manifest.model_validate(base | {"files": files} | dumped)


@pytest.fixture
def folder(tmp_path):
    picture = np.full((48, 48, 3), 200, np.uint8)
    (tmp_path / "probe.png").write_bytes(encode_image(picture, ".png"))
    return tmp_path


PROBE = {"path": "probe.png", "category": "carton", "item_id": "i", "embedding_i8": [127, 0, 0, 0]}
BOX = [8.0, 8.0, 40.0, 40.0]
SCENE = {"path": "probe.png", "boxes_px": [[6.0, 6.0, 30.0, 30.0]], "labels": ["object"]}


def rows(*values):
    return ScriptedEngine(lambda batch: [np.tile(np.asarray(values, np.float32), (len(batch), 1))])


def engine_for(model, engine):
    engine.outputs = [(name,) for name in model.output_names]
    return engine


def test_detector_is_judged_by_the_scene_probes(folder):
    model = detector_model()
    judge = Judge(folder, manifest(detector=model, scene_probes=[SCENE]))
    finds = ScriptedEngine(lambda batch: [np.repeat(one, len(batch), axis=0) for one in one_box_map(BOX)])
    assert judge.judge(model, engine_for(model, finds)) == "1 scene probe passed"
    blind = ScriptedEngine(lambda batch: [np.repeat(one, len(batch), axis=0) for one in no_box_map()])
    with pytest.raises(EngineError, match=r"1 of 1 scene probes failed; probe\.png: FAILED, 0 of 1 objects found"):
        judge.judge(model, engine_for(model, blind))


def test_classifier_is_judged_by_the_category_alone(folder):
    model, embedder = classifier_model(), embedder_model()
    judge = Judge(folder, manifest(classifier=model, embedders=[embedder], probes=[PROBE]))
    assert judge.judge(model, engine_for(model, rows(3.0, 1.0))) == "1 probe passed"
    with pytest.raises(EngineError, match=r"1 of 1 probes failed; .* category tyre"):
        judge.judge(model, engine_for(model, rows(1.0, 3.0)))


def test_embedder_is_judged_by_its_own_probes(folder):
    model = embedder_model()
    judge = Judge(folder, manifest(embedders=[model], probes=[PROBE]))
    assert judge.judge(model, engine_for(model, rows(9.0, 0.1, 0, 0))) == "1 probe passed"
    with pytest.raises(EngineError, match=r"1 of 1 probes failed; .* cosine 0\.7071"):
        judge.judge(model, engine_for(model, rows(1.0, 1.0, 0, 0)))


def test_localiser_is_judged_by_agreement_and_the_evidence_says_so(folder):
    (folder / "model.onnx").write_bytes(shapes_model([1, 32, 32], factor=0.01))
    model = localiser_model(output_names=["output0"])
    judge = Judge(folder, manifest(localiser=model, embedders=[embedder_model()], probes=[PROBE]))
    same = open_engine(folder / "model.onnx")
    evidence = "agrees with the reference on probe pictures, cosine 1.0000; the bundle has no probes for it"
    assert judge.judge(model, same) == evidence
    other = ScriptedEngine(lambda batch: [np.random.default_rng(0).normal(size=(len(batch), 1, 32, 32))])
    with pytest.raises(EngineError, match="differs from the reference on probe pictures: cosine "):
        judge.judge(model, engine_for(model, other))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda batch: [np.full((len(batch), 4), np.nan)], "found an embedding|not numbers"),
        (lambda batch: [np.ones((len(batch), 5))], "found outputs of shapes"),
        (lambda batch: [np.zeros((len(batch), 4))], "found an embedding of zeros"),
        (lambda batch: [np.ones((len(batch), 4))] if len(batch) == 1 else [], "found outputs of shapes"),
    ],
)
def test_engine_with_unusable_outputs_is_out(folder, answer, why):
    model = embedder_model()
    judge = Judge(folder, manifest(embedders=[model], probes=[PROBE]))
    with pytest.raises(EngineError, match=why):
        judge.judge(model, engine_for(model, ScriptedEngine(answer)))
