"""The TensorRT engine against a fake. This needs neither TensorRT nor a device, and tests neither."""

import enum
import gc
import importlib
import json
import logging
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import edge.inference
from edge.durable import sha256_of
from edge.errors import EngineError
from edge.inference.engine import open_engine
from tests import fakes_tensorrt
from tests.fakes_tensorrt import FakeTensorRt
from tests.sample_models import DOUBLE, sums_model

SURFACE = json.loads((Path(__file__).parents[2] / "golden" / "tensorrt_surface.json").read_text())["names"]


@pytest.fixture(params=["10.3.0", "11.4.0.106"])
def trt(request, monkeypatch):
    """An installed TensorRT, of either end of the supported range."""
    fake = FakeTensorRt(request.param)
    bindings = types.ModuleType("cuda.bindings")
    bindings.runtime = fake.cuda.module()
    modules = {
        "tensorrt": fake.module(),
        "cuda": types.ModuleType("cuda"),
        "cuda.bindings": bindings,
        "cuda.bindings.runtime": bindings.runtime,
    }
    modules["tensorrt"].__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield fake
    for name in ("tensorrt_engine", "cuda_memory"):  # they hold the fakes
        sys.modules.pop(f"edge.inference.{name}", None)
        if hasattr(edge.inference, name):
            delattr(edge.inference, name)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(sums_model())
    return path


def open_trt(path, **changes):
    return open_engine(path, "tensorrt", max_batch=4, **changes)


def rows(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 2, 3), np.uint8)


def test_outputs_are_in_model_order_for_every_batch_size(trt, path):
    engine = open_trt(path)
    for n in (4, 1, 3):
        total, twice = engine.run(rows(n))
        assert total.tolist() == rows(n).sum(axis=2).tolist()
        assert twice.tolist() == (2 * rows(n).sum(axis=2)).tolist()
        assert total.dtype == np.float32


def test_non_contiguous_batch_is_read_correctly(trt, path):
    batch = rows(3)[:, :, ::-1][::2]
    assert open_trt(path).run(batch)[0].tolist() == batch.sum(axis=2).tolist()


def test_outputs_are_not_changed_by_the_next_run(trt, path):
    engine = open_trt(path)
    first = engine.run(rows(2))[0]
    engine.run(rows(2, seed=1))
    assert first.tolist() == rows(2).sum(axis=2).tolist()


def test_plan_is_built_once_per_model_version_device_and_batch(trt, path, tmp_path):
    cache = tmp_path / "cache"
    engines = [open_trt(path, cache=cache) for _ in range(2)]
    assert trt.builds == 1
    (plan,) = cache.iterdir()
    assert plan.name.endswith(f"-trt{trt.version}-sm87-b4.plan")
    assert {engine.library for engine in engines} == {f"tensorrt {trt.version}, plan {sha256_of(plan)}"}
    trt.cuda.capability = (11, 0)
    open_trt(path, cache=cache)
    path.write_bytes(sums_model(side=5))
    open_trt(path, cache=cache)
    open_engine(path, "tensorrt", max_batch=2, cache=cache)
    assert trt.builds == 4
    assert len(list(cache.iterdir())) == 4


def test_rejected_plan_is_built_again_with_a_warning(trt, path, tmp_path, caplog):
    cache = tmp_path / "cache"
    open_trt(path, cache=cache)
    (plan,) = cache.iterdir()
    plan.write_bytes(b"half a pl")
    engine = open_trt(path, cache=cache)
    assert engine.run(rows(1))[0].tolist() == rows(1).sum(axis=2).tolist()
    assert trt.builds == 2
    assert "rejects the cached plan, building it again: magic tag does not match" in caplog.text


def test_unwritable_cache_is_a_warning(trt, path, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    engine = open_trt(path, cache=tmp_path / "file" / "cache")
    assert len(engine.run(rows(1))) == 2
    assert "cannot save the plan, the next start builds it again" in caplog.text


def test_start_and_end_of_a_build_are_logged(trt, path, caplog):
    caplog.set_level(logging.INFO, "edge")
    open_trt(path)
    assert [record.getMessage().split(": ")[1].split()[0] for record in caplog.records] == ["building", "built"]


def test_memory_is_freed_with_the_engine(trt, path):
    before = trt.cuda.free_bytes
    engine = open_trt(path)
    assert trt.cuda.free_bytes == before - 4 * (6 + 8 + 8)  # one row: 6 bytes in, 2 floats out, twice
    del engine
    gc.collect()
    assert trt.cuda.free_bytes == before
    assert trt.cuda.queues == {}


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        (np.zeros((1, 2, 3), np.float32), "a float32 batch of shape (1, 2, 3)"),
        (np.zeros((1, 2, 4), np.uint8), "a uint8 batch of shape (1, 2, 4)"),
        (np.zeros((5, 2, 3), np.uint8), "a uint8 batch of shape (5, 2, 3)"),
        (np.zeros((0, 2, 3), np.uint8), "a uint8 batch of shape (0, 2, 3)"),
    ],
)
def test_error_names_the_found_and_expected_batch(trt, path, batch, found):
    with pytest.raises(EngineError) as caught:
        open_trt(path).run(batch)
    assert str(caught.value) == f"{path}: found {found}, expected uint8 [2, 3], 1 to 4 rows"


def test_model_with_a_fixed_batch_takes_only_that_batch(trt, path):
    path.write_bytes(sums_model(batch=2))
    engine = open_trt(path)
    assert len(engine.run(rows(2))[0]) == 2
    with pytest.raises(EngineError, match=r"expected uint8 \[2, 3\], 2 to 2 rows"):
        engine.run(rows(1))


def test_model_with_another_dynamic_dimension_is_rejected(trt, path):
    path.write_bytes(sums_model(side="w"))
    with pytest.raises(EngineError, match=r"image: only the batch may be dynamic, but the shape is \[-1, 2, -1\]"):
        open_trt(path)


def test_output_type_that_numpy_lacks_is_rejected(trt, path):
    path.write_bytes(sums_model(out=DOUBLE))  # the fake calls it FP8
    with pytest.raises(EngineError, match=r"total: type FP8 and shape \[4, 2\] are not supported"):
        open_trt(path)


def test_truncated_file_is_an_engine_error_with_the_parsers_reason(trt, path):
    path.write_bytes(sums_model()[:40])
    with pytest.raises(EngineError, match=r"model\.onnx: TensorRT cannot parse it: node 3: no such operator"):
        open_trt(path)


def test_missing_file_is_an_engine_error(trt, tmp_path):
    with pytest.raises(EngineError, match=r"none\.onnx: cannot read: No such file"):
        open_trt(tmp_path / "none.onnx")


def test_failed_build_reports_tensorrts_message(trt, path):
    trt.refuses_to_build = True
    with pytest.raises(EngineError, match=r"TensorRT cannot build it: no implementation for node 7$"):
        open_trt(path)


def test_impossible_batch_is_an_engine_error(trt, path):
    with pytest.raises(EngineError, match="TensorRT rejects batches of 1 to 0"):
        open_engine(path, "tensorrt", max_batch=0)


def test_no_device_and_too_little_memory_are_engine_errors(trt, path):
    trt.cuda.free_bytes = 10
    with pytest.raises(EngineError, match=r"CUDA: cudaErrorMemoryAllocation: text of 2"):
        open_trt(path)
    trt.cuda.capability = None
    with pytest.raises(EngineError, match="CUDA: cudaErrorNoDevice"):
        open_trt(path)


def test_engine_runs_on_after_a_failed_run(trt, path):
    engine = open_trt(path)
    trt.refuses_to_run = True
    with pytest.raises(EngineError, match="TensorRT rejects the run"):
        engine.run(rows(1))
    trt.refuses_to_run = False
    trt.kernel = lambda: 1 / 0
    with pytest.raises(EngineError, match="cudaErrorLaunchFailure"):
        engine.run(rows(1))
    trt.kernel = lambda: None
    assert engine.run(rows(2))[0].tolist() == rows(2).sum(axis=2).tolist()


def names_of(kind):
    if issubclass(kind, enum.Enum):
        return set(kind.__members__)
    return {name for name in dir(kind) if not name.startswith("_")} | set(getattr(kind, "__dataclass_fields__", ()))


def test_fake_has_no_name_that_either_version_lacks(trt):
    module = trt.module()
    assert {name for name in vars(module) if not name.startswith("_")} <= set(SURFACE["(module)"])
    for name in SURFACE.keys() - {"(module)"}:
        kind = getattr(module, name, None) or getattr(fakes_tensorrt, name)
        assert names_of(kind) <= set(SURFACE[name]), name


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH"),
        ("Builder", "platform_has_fast_int8"),
        ("IBuilderConfig", "int8_calibrator"),
        ("ICudaEngine", "device_memory_size"),
        ("ITensor", "set_dynamic_range"),
        ("OnnxParser", "supports_model"),
    ],
)
def test_names_that_tensorrt_11_removed_are_not_in_the_surface(kind, name):
    assert name not in SURFACE[kind]
