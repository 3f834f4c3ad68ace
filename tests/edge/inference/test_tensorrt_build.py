"""Building plans with TensorRT; against a fake, which needs no GPU here."""

import pytest

from edge.config.schema import TensorRtConfig
from edge.errors import EngineError
from tests.fakes_tensorrt import installed
from tests.sample_models import sums_model


@pytest.fixture
def trt():
    with installed("10.3.0") as fake:
        fake.builds_without_gpu, fake.cuda.capability = True, None
        yield fake


def build(onnx=None, **keys):
    from edge.inference.tensorrt_build import build_plan

    return build_plan(sums_model() if onnx is None else onnx, "model.onnx", 4, TensorRtConfig(**keys))


def test_plan_is_built_without_a_gpu(trt):
    built = build()
    assert built.plan.startswith(b"plan|10.3.0|4|")
    assert built.timing_cache == b"timings of 1"
    assert built.took_s >= 0


def test_settings_reach_the_builder(trt):
    build(optimisation_level=5, workspace_mib=64)
    assert trt.settings.builder_optimization_level == 5
    assert {pool.name: size for pool, size in trt.settings._limits.items()} == {"WORKSPACE": 64 << 20}
    build()
    assert trt.settings._limits == {}


def test_only_what_is_built_for_a_gpu_uses_cuda(trt):
    build()
    assert trt.cuda.calls == []


@pytest.mark.parametrize(
    ("version", "cores", "core", "found"), [("10.16.2.10", 0, 0, 0), ("10.3.0", 2, 2, 2), ("11.0.0", 2, 0, 0)]
)
def test_dla_core_that_is_not_there_is_refused_with_one_line(version, cores, core, found):
    with installed(version) as trt:
        trt.dla_cores = cores
        with pytest.raises(EngineError) as caught:
            build(dla_core=core)
        assert str(caught.value) == (
            f"model.onnx: engine.tensorrt.dla_core is {core}, but TensorRT {version} finds {found} DLA cores here; "
            "remove the key"
        )
        assert trt.builds == 0


def test_progress_of_nested_phases_only_rises(trt):
    from edge.inference.tensorrt_build import build_plan

    shares = []
    build_plan(sums_model(), "model.onnx", 4, TensorRtConfig(), b"", shares.append)
    assert shares == [0.5, 0.625, 0.75, 0.875, 1.0]


@pytest.mark.parametrize(
    "message", ["Cuda Runtime (out of memory)", "OutOfMemory (no more)", "cudaErrorMemoryAllocation"]
)
def test_lack_of_memory_says_what_to_do(trt, message):
    trt.refuses_to_build = message
    with pytest.raises(EngineError) as caught:
        build()
    assert str(caught.value) == (
        f"model.onnx: TensorRT cannot build it: {message}; free memory (other programs, fewer cameras) or set "
        "engine.tensorrt.workspace_mib"
    )


def test_error_of_an_earlier_build_is_not_reported_again(trt):
    trt.refuses_to_build = "no implementation for node 7"
    with pytest.raises(EngineError, match="node 7"):
        build()
    with pytest.raises(EngineError) as caught:
        build(b"no model")
    assert str(caught.value) == (
        "model.onnx: TensorRT cannot parse it: Shelf 'scores': No such operator; "
        "pack it again with edge-quantize, which checks its forms for TensorRT"
    )


def test_device_that_the_library_needs_is_named(trt):
    trt.builds_without_gpu = False
    with pytest.raises(EngineError, match=r"TensorRT cannot build it: pybind11::init\(\): factory function returned"):
        build()
