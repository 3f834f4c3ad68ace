"""The TensorRT engine against a fake. This needs neither TensorRT nor a device, and tests neither."""

import gc
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edge.config.schema import TensorRtConfig
from edge.errors import EngineError, GpuError
from edge.inference.engine import open_engine
from edge.telemetry.counters import Counters
from tests.fakes_tensorrt import CudaStatus, KernelCrashError, installed, surface
from tests.sample_models import DOUBLE, sums_model


@pytest.fixture(params=["10.3.0", "10.16.2.10", "11.4.0.106"])
def trt(request):
    """An installed TensorRT, of each supported generation."""
    with installed(request.param) as fake:
        yield fake


def open_trt(path, max_batch=4, **changes):
    return open_engine(path, "tensorrt", max_batch=max_batch, **changes)


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


def test_memory_is_freed_with_the_engine(trt, path):
    before = trt.cuda.free_bytes
    engine = open_trt(path)
    tensors = 4 * (6 + 8 + 8)  # one row: 6 bytes in, 2 floats out, twice
    assert trt.cuda.free_bytes == before - tensors - 400
    assert sum(map(len, trt.cuda.pinned.values())) == tensors
    (plan,) = path.parent.glob("*.plan")
    assert engine.memory_bytes == 2 * tensors + plan.stat().st_size
    for _ in range(3):
        engine.run(rows(2))
    assert len(trt.cuda.graphs) == 1
    del engine
    gc.collect()
    assert trt.cuda.free_bytes == before
    assert trt.cuda.pinned == trt.cuda.graphs == {}


def test_engines_share_one_stream_and_the_largest_scratch(trt, path, tmp_path):
    small, large = open_trt(path, max_batch=2), open_trt(path, max_batch=8)
    assert len(trt.cuda.queues) == 1
    assert sizes_of_scratch(trt) == [800]
    assert len(small.run(rows(2))[0]) == 2
    assert len(large.run(rows(8))[0]) == 8
    open_trt(path, max_batch=3)
    assert sizes_of_scratch(trt) == [800]  # it never shrinks while it is used
    del small, large
    gc.collect()
    assert sizes_of_scratch(trt) == []


def sizes_of_scratch(trt):
    return [block.size for block in trt.cuda.memory.values() if block.size in (200, 256, 300, 400, 800)]


def test_engines_run_on_when_there_is_no_memory_for_a_larger_one(trt, path):
    engine = open_trt(path, max_batch=2)
    trt.cuda.free_bytes = 400
    with pytest.raises(EngineError, match=r"CUDA: cudaErrorMemoryAllocation: text of 2; free memory"):
        open_trt(path, max_batch=8)
    gc.collect()
    assert len(engine.run(rows(2))[0]) == 2


def test_second_run_of_a_batch_size_is_recorded_and_replayed(trt, path):
    engine = open_trt(path)
    for seed in range(4):
        for n in (1, 3):
            assert engine.run(rows(n, seed))[0].tolist() == rows(n, seed).sum(axis=2).tolist()
    assert trt.cuda.calls.count("cudaGraphInstantiate") == 2  # one for each batch size
    assert trt.cuda.calls.count("cudaGraphLaunch") == 6  # of 8 runs, the first of each size is for warming up


def test_graph_is_recorded_again_when_the_scratch_moves(trt, path):
    engine = open_trt(path, max_batch=2)
    for _ in range(2):
        engine.run(rows(1))
    larger = open_trt(path, max_batch=8)
    for seed in range(3):  # with the old address, the fake's GPU is lost
        assert engine.run(rows(1, seed))[0].tolist() == rows(1, seed).sum(axis=2).tolist()
    assert trt.cuda.calls.count("cudaGraphInstantiate") == 2
    assert len(trt.cuda.graphs) == 1
    assert len(larger.run(rows(8))[0]) == 8


def test_only_a_few_batch_sizes_have_a_graph(trt, path):
    engine = open_trt(path, max_batch=9)
    for seed in range(3):
        for n in range(1, 10):
            assert engine.run(rows(n, seed))[1].tolist() == (2 * rows(n, seed).sum(axis=2)).tolist()
    assert len(trt.cuda.graphs) == 4


def test_graphs_can_be_switched_off(trt, path):
    engine = open_trt(path, tensorrt=TensorRtConfig(cuda_graphs=False))
    for seed in range(3):
        assert engine.run(rows(2, seed))[0].tolist() == rows(2, seed).sum(axis=2).tolist()
    assert trt.cuda.graphs == {}


def test_engine_that_cannot_be_recorded_runs_without_graphs(trt, path, caplog):
    trt.cuda.cannot_record = True
    counts = Counters()
    engine = open_trt(path, counts=counts)
    for seed in range(4):
        assert engine.run(rows(2, seed))[0].tolist() == rows(2, seed).sum(axis=2).tolist()
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning == (
        f"{path}: runs without CUDA graphs, which takes longer: CUDA: cudaErrorStreamCaptureUnsupported: text of 900"
    )
    assert counts.snapshot() == {"cuda_graph_failures": 1}


def test_run_that_fails_while_it_is_recorded_ends_the_recording(trt, path):
    engine = open_trt(path)
    engine.run(rows(2))
    trt.refuses_to_run = True
    with pytest.raises(EngineError, match="TensorRT rejects the run"):
        engine.run(rows(2))
    trt.refuses_to_run = False
    assert engine.run(rows(2))[0].tolist() == rows(2).sum(axis=2).tolist()


def test_engines_run_from_many_threads_one_at_a_time(trt, path):
    engines = [open_trt(path), open_trt(path, max_batch=8)]

    def run(seed):
        return engines[seed % 2].run(rows(1 + seed % 4, seed))[0].tolist() == rows(1 + seed % 4, seed).sum(2).tolist()

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(40)))


def test_memory_that_is_dropped_during_a_recording_is_freed_later(trt, path):
    engine, others = open_trt(path), [open_trt(path)]
    engine.run(rows(2))
    trt.during_enqueue = others.clear  # as a garbage collection would; the fake refuses to free while it records
    before = trt.cuda.free_bytes
    engine.run(rows(2))
    trt.during_enqueue = lambda: None
    assert trt.cuda.free_bytes == before
    engine.run(rows(2))
    assert trt.cuda.free_bytes == before + 88


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
    with pytest.raises(EngineError, match=r"model\.onnx: TensorRT cannot parse it: Shelf 'scores': No such operator"):
        open_trt(path)


def test_missing_file_is_an_engine_error(trt, tmp_path):
    with pytest.raises(EngineError, match=r"none\.onnx: cannot read: No such file"):
        open_trt(tmp_path / "none.onnx")


def test_failed_build_reports_tensorrts_message(trt, path):
    trt.refuses_to_build = "no implementation for node 7\nmore of it"
    with pytest.raises(EngineError, match=r"TensorRT cannot build it: no implementation for node 7$"):
        open_trt(path)


def test_impossible_batch_is_an_engine_error(trt, path):
    with pytest.raises(EngineError, match="TensorRT rejects batches of 1 to 0"):
        open_engine(path, "tensorrt", max_batch=0)


def test_missing_gpu_is_a_gpu_error(trt, path):
    trt.cuda.capability = None
    with pytest.raises(GpuError, match=r"^CUDA: cudaErrorNoDevice: text of 100; look at `dmesg`, then restart"):
        open_trt(path)


@pytest.mark.parametrize(
    ("driver", "found"), [(0, "is not installed"), (11080, "supports CUDA 11.8"), (12020, None), (13010, None)]
)
def test_driver_that_is_too_old_is_named_with_what_is_needed(trt, path, driver, found):
    trt.cuda.driver = driver
    if found is None:  # within one major version, an older driver works
        assert len(open_trt(path).run(rows(1))) == 2
        return
    with pytest.raises(GpuError) as caught:
        open_trt(path)
    assert str(caught.value) == f"the NVIDIA driver {found}; cuda-python here needs CUDA 12.0 or later"


def test_too_little_memory_is_an_engine_error_that_says_what_to_do(trt, path):
    trt.cuda.free_bytes = 10
    with pytest.raises(EngineError, match=r"CUDA: cudaErrorMemoryAllocation: text of 2; free memory: other programs"):
        open_trt(path)


def test_lack_of_memory_in_a_load_does_not_build_again(trt, path):
    open_trt(path)
    trt.refuses_to_load = "Requested amount of GPU memory could not be allocated: OutOfMemory"
    with pytest.raises(EngineError, match=r"TensorRT cannot load the plan: .*OutOfMemory; free memory"):
        open_trt(path)
    assert trt.builds == 1


def test_engine_runs_on_after_a_failed_run(trt, path):
    engine = open_trt(path)
    trt.refuses_to_run = True
    with pytest.raises(EngineError, match="TensorRT rejects the run"):
        engine.run(rows(1))
    trt.refuses_to_run = False
    trt.kernel = lambda: 1 / 0
    with pytest.raises(EngineError, match="cudaErrorLaunchOutOfResources"):
        engine.run(rows(1))
    trt.kernel = lambda: None
    assert engine.run(rows(2))[0].tolist() == rows(2).sum(axis=2).tolist()


def test_gpu_that_is_lost_while_running_is_a_gpu_error_from_then_on(trt, path):
    engine = open_trt(path)
    engine.run(rows(1))

    def crash():
        raise KernelCrashError

    trt.kernel = crash
    for _ in range(2):
        with pytest.raises(
            GpuError, match=r"CUDA: cudaErrorIllegalAddress: text of 700; look at `dmesg`, then restart"
        ):
            engine.run(rows(1))
    with pytest.raises(GpuError):
        open_trt(path)


def test_gpu_lost_before_a_run_is_reported_not_tensorrts_refusal(trt, path):
    engine = open_trt(path)
    trt.refuses_to_run, trt.cuda.lost = True, CudaStatus.cudaErrorLaunchFailure
    with pytest.raises(GpuError, match="cudaErrorLaunchFailure"):
        engine.run(rows(1))


def test_dla_core_is_used_with_the_gpu_for_what_it_lacks(trt, path):
    trt.dla_cores = 2
    engine = open_trt(path, tensorrt=TensorRtConfig(dla_core=1))
    assert len(engine.run(rows(1))) == 2
    assert trt.settings.default_device_type.name == "DLA"
    assert [flag.name for flag in trt.settings._flags] == ["GPU_FALLBACK"]
    assert trt.settings.DLA_core == trt.runtime.DLA_core == 1


def test_outputs_are_unchanged_by_the_names_that_a_version_lacks(trt):
    """The fake has only names of `surface`, which test_tensorrt_surface compares with the real bindings."""
    module, names = trt.module(), surface()
    assert {name for name in vars(module) if not name.startswith("_")} <= names["(module)"]
