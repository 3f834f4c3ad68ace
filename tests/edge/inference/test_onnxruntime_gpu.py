"""ONNX Runtime on a GPU: the options that it gets, and that nothing falls back to the CPU. Its messages are real."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from edge.config.schema import TensorRtConfig
from edge.errors import EngineError, GpuError
from edge.extras import RTX_MODULE
from edge.inference import onnxruntime_engine, onnxruntime_gpu, onnxruntime_library
from edge.inference.onnxruntime_gpu import batch_profile, misplaced, open_gpu_session
from edge.inference.onnxruntime_library import explain
from tests.fakes_onnxruntime import (
    CPU,
    CUDA,
    LOST,
    NO_DEVICE,
    NO_LIBRARY,
    NO_MEMORY,
    NO_TENSORRT,
    OLD_DRIVER,
    RTX,
    TENSORRT,
    FakeOrt,
)

BATCH = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
BACKENDS = ("onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt-rtx")


@pytest.fixture
def ort(monkeypatch):
    """Let the doors use a fake with a GPU, and the plug-in a driver that is new enough."""
    fake = FakeOrt(devices=(RTX,))
    for module in (onnxruntime_engine, onnxruntime_gpu, onnxruntime_library):
        monkeypatch.setattr(module, "ort", fake)
    plugin = SimpleNamespace(get_ep_name=lambda: RTX, get_library_path=lambda: "/opt/plugin/library.so")
    monkeypatch.setitem(sys.modules, RTX_MODULE, plugin)
    return fake


@pytest.mark.parametrize("backend", BACKENDS)
def test_model_runs_and_repeats_with_other_batches(path, ort, backend, tmp_path):
    engine = open_gpu_session(path, backend, 4, tmp_path / "cache")
    for batch in (BATCH, BATCH[:1], BATCH + 1, BATCH):
        total, twice = engine.run(batch)
        assert total.tolist() == batch.sum(axis=2).tolist()
        assert twice.tolist() == (2 * batch.sum(axis=2)).tolist()


def test_answers_stay_when_the_next_batch_runs(path, ort):
    engine = open_gpu_session(path, "onnxruntime-cuda")
    first = engine.run(BATCH)[0]
    engine.run(BATCH + 1)
    assert first.tolist() == BATCH.sum(axis=2).tolist()


def test_library_output_is_not_shown(path, ort, capfd):
    open_gpu_session(path, "onnxruntime-cuda")
    assert capfd.readouterr().out == ""


def test_rejected_batch_is_named_and_the_next_one_runs(path, ort):
    engine = open_gpu_session(path, "onnxruntime-cuda")
    for wrong in (BATCH.astype(np.float32), BATCH[0]):
        with pytest.raises(EngineError, match=rf"found a {wrong.dtype} batch of shape .*, expected tensor\(uint8\)"):
            engine.run(wrong)
    assert len(engine.run(BATCH)) == 2


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_provider_that_does_not_load_is_an_error(path, ort, backend, tmp_path):
    ort.loads = False
    with pytest.raises(EngineError, match=r"model\.onnx: libonnxruntime_providers_\w+\.so is missing; run: .*pip inst"):
        open_gpu_session(path, backend, 1, tmp_path / "cache")


def test_provider_that_is_not_offered_is_an_error(path, ort):
    ort.offers = (CPU,)
    with pytest.raises(EngineError, match="not CUDAExecutionProvider"):
        open_gpu_session(path, "onnxruntime-cuda")


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (OLD_DRIVER, GpuError, r"needs an NVIDIA driver for CUDA 13\.0, found an older one; install a newer driver"),
        (NO_DEVICE, GpuError, "the driver finds no NVIDIA GPU"),
        (NO_MEMORY, EngineError, "out of GPU memory; free some"),
        (LOST, GpuError, "the GPU is lost: CUDA error 719: unspecified launch failure; look at `dmesg`"),
        (NO_LIBRARY, GpuError, r"there is no NVIDIA driver \(libcuda\.so\.1\)"),
        (
            "libcudnn.so.9: cannot open shared object file: No such file or directory",
            EngineError,
            r"libcudnn\.so\.9 is missing; run: .*finesight\[gpu\]",
        ),
        ("CUDA failure 1: invalid argument ; GPU=0", EngineError, "CUDA error 1: invalid argument"),
        ("", EngineError, "RuntimeError"),
    ],
)
def test_error_of_the_library_becomes_one_clear_line(text, kind, words, ort):
    error = explain("model.onnx", "onnxruntime-cuda", RuntimeError(text))
    assert type(error) is kind
    assert str(error).startswith("model.onnx: ")
    assert len(str(error).splitlines()) == 1
    with pytest.raises(kind, match=words):
        raise error


def test_missing_tensorrt_names_the_version_that_is_needed():
    text = "libnvinfer.so.10: cannot open shared object file: No such file or directory"
    error = str(explain("model.onnx", "onnxruntime-tensorrt", OSError(text)))
    assert "is built for TensorRT 10, and another version does not replace it" in error
    assert "finesight[gpu,tensorrt]" in error


def test_other_error_is_reported_without_places_in_the_source():
    assert str(explain("model.onnx", "onnxruntime-cuda", RuntimeError(NO_TENSORRT))) == (
        "model.onnx: onnxruntime-cuda: Please install TensorRT libraries as mentioned in the GPU requirements page, "
        "make sure they're in the PATH or LD_LIBRARY_PATH, and that your GPU is supported."
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_errors_of_opening_and_running_are_explained(path, ort, backend, tmp_path):
    ort.raises = [NO_DEVICE]
    with pytest.raises(GpuError, match="finds no NVIDIA GPU"):
        open_gpu_session(path, backend, 1, tmp_path / "cache")
    ort.fails = [NO_MEMORY, LOST]
    engine = open_gpu_session(path, backend, 1, tmp_path / "cache")
    with pytest.raises(EngineError, match="out of GPU memory"):
        engine.run(BATCH)
    with pytest.raises(GpuError, match="the GPU is lost"):
        engine.run(BATCH)
    assert len(engine.run(BATCH)) == 2


def test_operator_that_the_provider_lacks_is_an_error(path, ort):
    ort.on_cpu = ("ReduceSum",)
    with pytest.raises(
        EngineError, match=r"cannot run the whole model: 1 of its 3 nodes would run on the CPU: 1 Reduc"
    ):
        open_gpu_session(path, "onnxruntime-cuda")


@pytest.mark.parametrize(
    ("assigned", "problem"),
    [
        ([(CUDA, "Conv")] * 9 + [(CPU, "Shape")], None),
        ([(TENSORRT, "Conv")] * 9 + [(CUDA, "TopK")], None),
        ([(CUDA, "Conv")] * 99 + [(CPU, "TopK")], "1 of its 100 nodes would run on the CPU: 1 TopK"),
        ([(CUDA, "Conv")] * 2 + [(CPU, "Shape")], "1 of its 3 nodes would run on the CPU: 1 Shape"),
        ([(CPU, "Conv")], "1 of its 1 nodes would run on the CPU: 1 Conv"),
        ([], "0 of its 0 nodes would run on the CPU: the model is empty"),
    ],
)
def test_only_shapes_may_be_computed_on_the_cpu(assigned, problem):
    assert misplaced(assigned, frozenset({CUDA, TENSORRT})) == problem


def test_older_library_forbids_the_cpu_as_fallback(path, ort, monkeypatch):
    class Old:
        def __init__(self, model, options, providers, **_):
            if providers == [CPU]:
                self.get_inputs = ort.InferenceSession(model, options, providers, enable_fallback=0).get_inputs
                self.get_outputs, self.get_providers = self.get_inputs, lambda: [CPU]
                return
            assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
            raise RuntimeError(
                "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the default "
                "CPU EP, but fallback to CPU EP has been explicitly disabled by the user."
            )

        def disable_fallback(self):
            """Do nothing."""

    monkeypatch.setattr(onnxruntime_gpu, "ort", SimpleNamespace(**vars(ort)))
    for name in ("get_available_providers", "set_default_logger_severity"):
        setattr(onnxruntime_gpu.ort, name, getattr(ort, name))
    onnxruntime_gpu.ort.InferenceSession = Old
    with pytest.raises(EngineError, match="cannot run the whole model: some nodes would run on the CPU"):
        open_gpu_session(path, "onnxruntime-cuda")


def test_tensorrt_keeps_to_the_types_of_the_graph_and_its_cache(path, ort, tmp_path):
    config = TensorRtConfig(optimisation_level=5, workspace_mib=64)
    open_gpu_session(path, "onnxruntime-tensorrt", 4, tmp_path / "cache", config)
    ((provider, options),) = ort.opened
    assert provider == TENSORRT
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == ("0", "0")
    assert options["trt_profile_min_shapes"] == "image:1x2x3"
    assert options["trt_profile_opt_shapes"] == options["trt_profile_max_shapes"] == "image:4x2x3"
    assert (options["trt_builder_optimization_level"], options["trt_max_workspace_size"]) == ("5", str(64 << 20))
    (folder,) = (one for one in (tmp_path / "cache").iterdir())
    assert options["trt_engine_cache_path"] == str(folder)
    assert options["trt_timing_cache_path"] == str(tmp_path / "cache")


def test_fixed_batch_needs_no_profile():
    assert batch_profile("image", (2, 8, 8, 3), 4) == {}


@pytest.mark.parametrize("backend", ["onnxruntime-tensorrt", "tensorrt-rtx"])
def test_cache_is_another_when_the_machine_changes(path, ort, backend, tmp_path, monkeypatch):
    monkeypatch.setattr(onnxruntime_gpu, "machine", lambda: "driver 580.1, onnxruntime 1.31.1")
    open_gpu_session(path, backend, 4, tmp_path / "cache")
    (first,) = (tmp_path / "cache").iterdir()
    (first / "of-old-driver.engine").touch()
    open_gpu_session(path, backend, 4, tmp_path / "cache")
    assert [one.name for one in first.iterdir()] == ["of-old-driver.engine"]
    monkeypatch.setattr(onnxruntime_gpu, "machine", lambda: "driver 590.0, onnxruntime 1.31.1")
    open_gpu_session(path, backend, 4, tmp_path / "cache")
    (second,) = (tmp_path / "cache").iterdir()
    assert second != first
    assert list(second.iterdir()) == []


def test_damaged_engine_is_built_again_once(path, ort, tmp_path):
    damaged = "[ONNXRuntimeError] : 11 : EP_FAIL : TensorRT EP could not deserialize engine from cache: /c/a.engine"
    ort.raises = [damaged]
    with pytest.raises(EngineError, match="could not deserialize engine"):  # nothing was there: not the cache's fault
        open_gpu_session(path, "onnxruntime-tensorrt", 4, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    (folder / "a.engine").write_bytes(b"cut off")
    ort.raises = [damaged]
    assert len(open_gpu_session(path, "onnxruntime-tensorrt", 4, tmp_path / "cache").run(BATCH)) == 2
    assert list(folder.iterdir()) == []


def test_lost_gpu_does_not_cost_the_engines(path, ort, tmp_path):
    open_gpu_session(path, "onnxruntime-tensorrt", 4, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    (folder / "a.engine").write_bytes(b"plan")
    ort.raises = [LOST]
    with pytest.raises(GpuError):
        open_gpu_session(path, "onnxruntime-tensorrt", 4, tmp_path / "cache")
    assert (folder / "a.engine").read_bytes() == b"plan"


def test_outputs_of_another_engine_have_another_fingerprint(path, ort, tmp_path):
    before = open_gpu_session(path, "onnxruntime-tensorrt", 4, tmp_path / "cache").library
    (folder,) = (tmp_path / "cache").iterdir()
    (folder / "a.engine").write_bytes(b"other kernels")
    assert open_gpu_session(path, "onnxruntime-tensorrt", 4, tmp_path / "cache").library != before


def test_cache_that_cannot_be_written_is_an_error(path, ort, tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(EngineError, match="cannot write"):
        open_gpu_session(path, "tensorrt-rtx", 4, tmp_path / "cache")


def test_plugin_without_a_gpu_is_an_error(path, ort, monkeypatch, tmp_path):
    monkeypatch.setattr(onnxruntime_library, "_require_driver", lambda *_: None)
    ort.devices = ()
    with pytest.raises(GpuError, match=r"finds no GPU that it runs on \(GeForce RTX 30 or later\)"):
        open_gpu_session(path, "tensorrt-rtx", 1, tmp_path / "cache")
    ort.registers = NO_LIBRARY
    with pytest.raises(GpuError, match="there is no NVIDIA driver"):
        open_gpu_session(path, "tensorrt-rtx", 1, tmp_path / "cache")


def test_plugin_needs_a_newer_library(path, ort, monkeypatch, tmp_path):
    monkeypatch.setattr(onnxruntime_library, "_require_driver", lambda *_: None)
    older = SimpleNamespace(__version__="1.23.2", set_default_logger_severity=ort.set_default_logger_severity)
    monkeypatch.setattr(onnxruntime_library, "ort", older)
    with pytest.raises(EngineError, match=r"needs ONNX Runtime 1\.24 or later, found 1\.23\.2; run: .*tensorrt-rtx"):
        open_gpu_session(path, "tensorrt-rtx", 1, tmp_path / "cache")


@pytest.mark.parametrize(("version", "is_new"), [(12080, False), (13000, True), (13020, True)])
def test_driver_is_checked_before_the_plugin_is_loaded(tmp_path, monkeypatch, version, is_new):
    (tmp_path / "libcudart.so.13.4.36").touch()
    (tmp_path / "libcudart.so").touch()

    def tell(found):
        found._obj.value = version

    monkeypatch.setattr(onnxruntime_library.ctypes, "CDLL", lambda _: SimpleNamespace(cuDriverGetVersion=tell))
    if is_new:
        onnxruntime_library._require_driver("engine tensorrt-rtx", tmp_path)
        return
    with pytest.raises(GpuError, match=r"needs an NVIDIA driver for CUDA 13\.0, found 12\.8; install a newer driver"):
        onnxruntime_library._require_driver("engine tensorrt-rtx", tmp_path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_damaged_model_is_found_before_anything_is_built(tmp_path, ort, backend):
    path = tmp_path / "model.onnx"
    with pytest.raises(EngineError, match="no such model file"):
        open_gpu_session(path, backend, 1, tmp_path / "cache")
    path.write_bytes(b"no model")
    with pytest.raises(EngineError, match="ONNX Runtime cannot load it"):
        open_gpu_session(path, backend, 1, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
