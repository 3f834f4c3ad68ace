"""The choice of the engine, and the ONNX Runtime engine."""

import importlib.util
import sys

import numpy as np
import pytest

from edge.errors import EngineError, first_line
from edge.inference.engine import RUNS, choose_backend, choose_target, gains_from_batches, open_engine
from edge.inference.onnxruntime_engine import open_session_from_bytes
from tests.sample_models import sums_model

BATCH = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def test_model_runs_and_outputs_are_in_model_order(path):
    total, twice = open_engine(path).run(BATCH)
    assert total.tolist() == [[3, 12], [21, 30]]
    assert twice.tolist() == [[6, 24], [42, 60]]


def test_model_in_memory_runs_with_named_inputs():
    engine = open_session_from_bytes(sums_model(outputs=("twice", "total")))
    assert engine.outputs == [("twice",), ("total",)]
    assert engine.run_named({"image": BATCH})[1].tolist() == [[3, 12], [21, 30]]
    with pytest.raises(EngineError, match="model in memory: "):
        engine.run_named({"picture": BATCH})


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        (BATCH.astype(np.float32), r"a float32 batch of shape \(2, 2, 3\)"),
        (BATCH[:, :, :2], r"a uint8 batch of shape \(2, 2, 2\)"),
        (BATCH[0], r"a uint8 batch of shape \(2, 3\)"),
    ],
)
def test_error_names_the_found_and_expected_batch(path, batch, found):
    with pytest.raises(EngineError, match=rf"model\.onnx: found {found}, expected tensor\(uint8\) \['n', 2, 3\]: "):
        open_engine(path).run(batch)


def test_error_without_a_text_is_named_by_its_type():
    assert first_line(RuntimeError()) == "RuntimeError"
    assert first_line(RuntimeError("no kernel\nin a.cc")) == "no kernel"


def test_lack_of_memory_is_not_reported_as_a_wrong_batch(path, monkeypatch):
    engine = open_engine(path)

    def run(*_):
        raise RuntimeError(
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"
        )

    monkeypatch.setattr(engine._session, "run", run)
    with pytest.raises(EngineError, match=r"model\.onnx: out of memory; free some"):
        engine.run(BATCH)


def test_engines_of_a_process_share_one_arena(path):
    options = open_engine(path)._session.get_session_options()
    assert options.get_session_config_entry("session.use_env_allocators") == "1"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert not options.enable_mem_pattern


def test_engine_runs_on_after_a_rejected_batch(path):
    engine = open_engine(path)
    with pytest.raises(EngineError):
        engine.run(BATCH[0])
    assert len(engine.run(BATCH)) == 2


@pytest.mark.parametrize("data", [b"", b"no model", sums_model()[:-30], sums_model()[:40]])
def test_truncated_or_foreign_file_is_an_engine_error(tmp_path, data):
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(EngineError, match=r"model\.onnx: ONNX Runtime cannot load it: "):
        open_engine(path)


def test_missing_file_is_an_engine_error(tmp_path):
    with pytest.raises(EngineError, match=r"none\.onnx: no such model file"):
        open_engine(tmp_path / "none.onnx")


def test_missing_backend_is_an_error_not_a_fallback(path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for backend in RUNS.keys() - {"onnxruntime"}:
        with pytest.raises(EngineError, match=f"engine {backend}: package .* is not installed; run: "):
            open_engine(path, backend)


@pytest.mark.parametrize("backend", ["openvino", "tensorrt"])
def test_partly_installed_backend_is_an_engine_error(path, monkeypatch, backend):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setitem(sys.modules, backend, None)  # makes the import fail
    monkeypatch.delitem(sys.modules, f"edge.inference.{backend}_engine", raising=False)
    with pytest.raises(EngineError, match=f"engine {backend}: installed but not usable: "):
        open_engine(path, backend)


def test_auto_is_onnx_runtime():
    assert choose_backend("auto") == "onnxruntime"


FORMS = {"fp32": "a.onnx", "ort-u8": "b.onnx", "tensorrt-s8": "c.onnx"}


@pytest.mark.parametrize(
    ("ship", "backend", "chosen"),
    [
        ("fp32", "onnxruntime", "fp32"),  # the fastest when packed, not the smallest
        ("ort-u8", "onnxruntime", "ort-u8"),
        ("tensorrt-s8", "onnxruntime", "ort-u8"),
        ("ort-u8", "tensorrt", "tensorrt-s8"),
        ("ort-u8", "openvino", "ort-u8"),
        ("ort-u8", "onnxruntime-cuda", "fp32"),
    ],
)
def test_shipped_form_is_preferred_to_the_backends_best(ship, backend, chosen):
    assert choose_target(FORMS, ship, backend) == chosen


@pytest.mark.parametrize(("precision", "chosen"), [("shipped", "fp32"), ("int8", "ort-u8"), ("fp32", "fp32")])
def test_precision_can_be_forced(precision, chosen):
    assert choose_target(FORMS, "fp32", "onnxruntime", precision) == chosen


def test_precision_missing_from_the_bundle_is_an_engine_error():
    with pytest.raises(EngineError, match=r"holds the forms \['fp32'\] of a model; it needs one of \['ort-u8'\]"):
        choose_target({"fp32": "a.onnx"}, "fp32", "onnxruntime", "int8")


def test_backend_without_a_form_is_an_engine_error():
    with pytest.raises(
        EngineError, match=r"holds the forms \['ort-u8'\] of a model; it needs one of \['tensorrt-s8', 'fp16', 'fp32'\]"
    ):
        choose_target({"ort-u8": "b.onnx"}, "ort-u8", "tensorrt")


@pytest.mark.parametrize(
    ("backend", "threads", "gains"),
    [("onnxruntime", 1, False), ("onnxruntime", 2, True), ("openvino", 1, False), ("tensorrt", 1, True)],
)
def test_batches_gain_on_gpus_and_with_several_cpu_threads(backend, threads, gains):
    assert gains_from_batches(backend, threads) == gains
