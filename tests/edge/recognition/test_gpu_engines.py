"""The choice between GPU and CPU while the GPU's engines are built, fail, or the GPU is lost."""

import logging
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge.bundle.engine_builds import BuildOptions
from edge.config.schema import EngineConfig, TensorRtConfig
from edge.errors import EngineError, GpuError
from edge.recognition.gpu_engines import GpuEngines
from edge.telemetry.counters import Counters
from edge.types import BuildProgress
from tests.waiting import DEADLINE_S

MODELS = [(Path("detector.onnx"), 1), (Path("embedder.onnx"), 4)]
OPTIONS = BuildOptions(Path("cache"), TensorRtConfig())


def bundle(name="one"):
    return SimpleNamespace(manifest=SimpleNamespace(bundle_id=name))


class Builder:
    """Builds when it is let."""

    def __init__(self):
        self.built, self.asked = set(), []
        self.error = self.missing_error = None
        self.is_full = False  # the disk: what is built is not kept
        self.may_end = threading.Event()
        self.progress = BuildProgress(0, 2, "detector.onnx", 0.5, 540.0)

    def missing(self, models, options):
        if self.missing_error:
            raise self.missing_error
        return [one for one in models if one not in self.built]

    def build(self, models, options, progress):
        assert options is OPTIONS
        self.asked.append(models)
        progress(self.progress)
        assert self.may_end.wait(DEADLINE_S)
        if self.error:
            raise self.error
        self.built |= set() if self.is_full else set(models)


@pytest.fixture
def builder():
    return Builder()


@pytest.fixture
def counts():
    return Counters()


@pytest.fixture
def gpu(builder, counts):
    return GpuEngines(
        EngineConfig(backend="tensorrt"),
        OPTIONS,
        lambda one: MODELS if one.manifest.bundle_id == "one" else [*MODELS, (Path("other.onnx"), 4)],
        counts,
        every_form_of=lambda _: [*MODELS, (Path("embedder.fp16.onnx"), 4)],
        missing=builder.missing,
        build=builder.build,
    )


def backend_of(gpu, name="one"):
    return gpu.load(bundle(name), lambda config: config.backend)


def wait_for_build(gpu):
    for thread in threading.enumerate():
        if thread.name == "engine-builder":
            thread.join(DEADLINE_S)


def test_built_engines_are_used(gpu, builder):
    builder.built |= set(MODELS)
    assert backend_of(gpu) == "tensorrt"
    assert (gpu.fallback, gpu.progress, gpu.generation, builder.asked) == (None, None, 0, [])


def test_bundle_without_models_for_tensorrt_is_loaded_as_configured(counts):
    config = EngineConfig(backend="auto")
    gpu = GpuEngines(config, OPTIONS, lambda _: (), counts, missing=pytest.fail)
    assert gpu.load(bundle(), lambda found: found) is config


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "tensorrt-rtx"])
def test_cpu_takes_over_from_an_engine_without_builds(counts, backend):
    gpu = GpuEngines(EngineConfig(backend=backend), OPTIONS, lambda _: (), counts, missing=pytest.fail)
    assert backend_of(gpu) == backend
    gpu.lose(GpuError("detector.onnx: the GPU is lost"))
    assert (gpu.generation, backend_of(gpu)) == (1, "onnxruntime")
    assert gpu.fallback == "detector.onnx: the GPU is lost"


def test_cpu_serves_when_an_engine_without_builds_finds_no_gpu(counts):
    gpu = GpuEngines(EngineConfig(backend="onnxruntime-cuda"), OPTIONS, lambda _: (), counts, missing=pytest.fail)

    def load(config):
        if config.backend == "onnxruntime-cuda":
            raise GpuError("detector.onnx: the driver finds no NVIDIA GPU")
        return config.backend

    assert gpu.load(bundle(), load) == "onnxruntime"
    assert gpu.fallback == "detector.onnx: the driver finds no NVIDIA GPU"
    assert counts.snapshot() == {'gpu_failures{reason="lost"}': 1}


def test_broken_package_of_an_engine_without_builds_is_an_error(counts):
    gpu = GpuEngines(EngineConfig(backend="onnxruntime-cuda"), OPTIONS, lambda _: (), counts, missing=pytest.fail)

    def load(_):
        raise EngineError("libcudnn.so.9 is missing")

    with pytest.raises(EngineError, match=r"libcudnn\.so\.9 is missing"):
        gpu.load(bundle(), load)
    assert counts.snapshot() == {}


def test_cpu_serves_until_the_engines_are_built_and_says_so(gpu, builder, counts, caplog):
    caplog.set_level(logging.INFO, "edge")
    assert backend_of(gpu) == "onnxruntime"
    while gpu.progress != builder.progress:
        assert gpu.generation == 0
    assert gpu.fallback == "building engine 1 of 2 (detector.onnx, 50%), about 9 min left"
    assert backend_of(gpu) == "onnxruntime"  # a gallery that is activated meanwhile
    builder.may_end.set()
    wait_for_build(gpu)
    assert (gpu.generation, gpu.progress, builder.asked) == (1, None, [MODELS])
    assert backend_of(gpu) == "tensorrt"
    assert gpu.fallback is None
    assert counts.snapshot() == {'engine_builds{result="built"}': 1}
    assert "building engine 1 of 2 (detector.onnx, 50%), about 9 min left" in caplog.text


def test_failed_build_leaves_the_cpu_and_is_not_repeated(gpu, builder, counts, caplog):
    builder.error = EngineError("detector.onnx: TensorRT cannot build it: no implementation for node 7")
    builder.may_end.set()
    assert backend_of(gpu) == "onnxruntime"
    wait_for_build(gpu)
    assert gpu.fallback == str(builder.error)
    assert gpu.generation == 0
    assert backend_of(gpu) == "onnxruntime"
    assert (len(builder.asked), gpu.fallback) == (1, str(builder.error))
    assert counts.snapshot() == {'engine_builds{result="failed"}': 1}
    assert [bool(record.exc_info) for record in caplog.records if record.levelno == logging.ERROR] == [False]


def test_bug_in_a_build_is_logged_with_its_traceback(gpu, builder, caplog):
    builder.error = RuntimeError("who knows")
    builder.may_end.set()
    backend_of(gpu)
    wait_for_build(gpu)
    assert gpu.fallback == "building engines: RuntimeError: who knows"
    assert any(record.exc_info for record in caplog.records)


def test_bundle_activated_during_a_build_is_built_next(gpu, builder):
    assert backend_of(gpu) == "onnxruntime"
    assert backend_of(gpu, "two") == "onnxruntime"
    builder.may_end.set()
    wait_for_build(gpu)
    wait_for_build(gpu)
    assert gpu.generation == 2
    assert backend_of(gpu, "two") == "tensorrt"


def test_engines_that_could_not_be_saved_are_not_built_for_ever(gpu, builder):
    builder.is_full = True
    builder.may_end.set()
    assert backend_of(gpu) == "onnxruntime"
    wait_for_build(gpu)
    assert backend_of(gpu) == "tensorrt"  # which builds while it loads, and the CPU serves


def test_missing_gpu_at_the_start_leaves_the_cpu(gpu, builder, counts, caplog):
    builder.missing_error = GpuError("the NVIDIA driver is not installed; cuda-python here needs CUDA 12.0 or later")
    for _ in range(2):
        assert backend_of(gpu) == "onnxruntime"
    assert gpu.fallback == str(builder.missing_error)
    assert gpu.generation == 0  # what was just loaded need not be loaded again
    assert counts.snapshot() == {'gpu_failures{reason="lost"}': 1}
    assert caplog.text.count("the CPU runs the models until the next start") == 1


def test_gpu_that_is_lost_while_it_runs_makes_the_cpu_take_over_once(gpu, builder, counts):
    builder.built |= set(MODELS)
    assert backend_of(gpu) == "tensorrt"
    for _ in range(3):  # every frame fails until the CPU's models are loaded
        gpu.lose(GpuError("CUDA: cudaErrorIllegalAddress"))
    assert gpu.generation == 1
    assert backend_of(gpu) == "onnxruntime"
    assert gpu.fallback == "CUDA: cudaErrorIllegalAddress"
    assert counts.snapshot() == {'gpu_failures{reason="lost"}': 1}


def test_engines_that_cannot_be_loaded_leave_the_cpu(gpu, builder, counts):
    builder.built |= set(MODELS)

    def load_with(config):
        if config.backend == "tensorrt":
            raise EngineError("detector.onnx: CUDA: cudaErrorMemoryAllocation")
        return config.backend

    assert gpu.load(bundle(), load_with) == "onnxruntime"
    assert gpu.fallback == "detector.onnx: CUDA: cudaErrorMemoryAllocation"
    assert counts.snapshot() == {'gpu_failures{reason="load"}': 1}
    assert backend_of(gpu) == "tensorrt"  # with more memory
    assert gpu.fallback is None


def test_error_of_the_cpu_is_raised(gpu, builder):
    builder.built |= set(MODELS)

    def load_with(config):
        raise EngineError(config.backend)

    with pytest.raises(EngineError, match="onnxruntime"):
        gpu.load(bundle(), load_with)


def test_every_form_is_built_before_a_trial(gpu, builder):
    builder.may_end.set()
    gpu.prepare_trial(bundle())
    assert builder.asked == [[*MODELS, (Path("embedder.fp16.onnx"), 4)]]
    gpu.prepare_trial(bundle())
    assert len(builder.asked) == 1
    assert gpu.generation == 0


def test_build_that_fails_before_a_trial_is_a_warning(gpu, builder, caplog):
    builder.error = EngineError("embedder.onnx: TensorRT cannot build it")
    builder.may_end.set()
    gpu.prepare_trial(bundle())
    assert "embedder.onnx: TensorRT cannot build it" in caplog.text
    assert (gpu.progress, gpu.fallback) == (None, None)
