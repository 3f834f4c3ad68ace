"""The OpenVINO engine with the real library and the shipped models."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge.bundle.bundle import read_bundle
from edge.errors import EngineError
from edge.inference.engine import open_engine
from edge.inference.postprocess import unit_rows
from edge.inference.stages import load_stages
from tests.sample_models import sums_model

DEMO = Path(__file__).parents[2] / "demo/bundle"
BATCH = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(sums_model())
    return path


def test_outputs_are_in_model_order_at_any_batch_size(path):
    engine = open_engine(path, "openvino")
    total, twice = engine.run(BATCH)
    assert total.tolist() == [[3, 12], [21, 30]]
    assert twice.tolist() == [[6, 24], [42, 60]]
    assert engine.run(BATCH[:1])[0].tolist() == [[3, 12]]


def test_outputs_survive_the_next_run(path):
    engine = open_engine(path, "openvino")
    total = engine.run(BATCH)[0]
    engine.run(BATCH[::-1].copy())
    assert total.tolist() == [[3, 12], [21, 30]]


def test_engine_runs_from_several_threads():
    model = read_bundle(DEMO, verify=False).manifest.embedders[0]
    engine = open_engine(DEMO / model.files["fp32"], "openvino", max_batch=model.max_batch)
    spec = model.preprocess
    batches = [np.full((1, spec.height, spec.width, 3), 40 * n, np.uint8) for n in range(4)]
    alone = [engine.run(batch)[0] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        concurrent = [list(pool.map(lambda batch: engine.run(batch)[0], batches)) for _ in range(10)]
    for answers in concurrent:
        np.testing.assert_array_equal(answers, alone)


@pytest.mark.parametrize("batch", [BATCH.astype(np.float32), BATCH[:, :, :2], BATCH[0]])
def test_engine_runs_on_after_a_rejected_batch(path, batch):
    engine = open_engine(path, "openvino")
    with pytest.raises(EngineError, match=r"model\.onnx: found a .* batch of shape .*, expected uint8 \[\?,2,3\]"):
        engine.run(batch)
    assert len(engine.run(BATCH)) == 2


def test_error_names_a_truncated_file(path):
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(EngineError, match=r"model\.onnx: OpenVINO cannot load it: "):
        open_engine(path, "openvino")


@pytest.mark.parametrize(("form", "least"), [("fp32", 0.999999), ("ort-u8", 0.97)])
def test_shipped_models_agree_with_onnx_runtime(form, least):
    bundle = read_bundle(DEMO)
    for model in (bundle.manifest.classifier, *bundle.manifest.embedders):
        spec = model.preprocess
        batch = np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width, 3)).astype(np.uint8)
        want, got = (
            unit_rows(open_engine(bundle.folder / model.files[target], backend).run(batch)[0])
            for target, backend in (("fp32", "onnxruntime"), (form, "openvino"))
        )
        assert float((want * got).sum()) > least


def test_shipped_bundle_loads():
    bundle = read_bundle(DEMO)
    assert load_stages(bundle.folder, bundle.manifest, "openvino").detector is not None
