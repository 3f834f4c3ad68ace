"""Choose and open the engine that runs a model. A requested engine that is missing is an error, never a fallback."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from edge.config.schema import TensorRtConfig
from edge.errors import EngineError
from edge.extras import engine_problem
from edge.inference.engine_plugins import load_plugin, plugin_names
from edge.inference.external_weights import has_external_weights
from edge.types import Counts, Engine

Precision = Literal["shipped", "int8", "fp32"]
Backend = str  # auto, a key of RUNS, or the name of a plug-in

# The forms that each back end can run, best first. ONNX Runtime runs S8 activations at a fraction of U8's speed on x86,
# so it never gets the TensorRT form.
RUNS: dict[Backend, tuple[str, ...]] = {
    "onnxruntime": ("ort-u8", "fp32"),
    # no INT8: ONNX Runtime has no such convolution for CUDA (issues 12229, 24807), so Q and DQ only add work
    "onnxruntime-cuda": ("fp16", "fp32"),
    "onnxruntime-tensorrt": ("tensorrt-s8", "fp16", "fp32"),
    "openvino": ("openvino", "ort-u8", "fp32"),
    "tensorrt": ("tensorrt-s8", "fp16", "fp32"),
    "tensorrt-rtx": ("tensorrt-s8", "fp16", "fp32"),
}
FLOAT_FORMS = frozenset({"fp32", "fp16"})  # every other form is INT8
GPU_BACKENDS = frozenset({"onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt", "tensorrt-rtx"})
BUILDING_BACKENDS = frozenset({"onnxruntime-tensorrt", "tensorrt"})  # the first load of a model takes minutes

_GPU_NODES = ("dev/nvidiactl", "dev/nvhost-gpu", "dev/nvgpu", "dev/dxg")  # PC, Jetson, newer Jetson, WSL


def choose_backend(requested: Backend) -> Backend:
    """Resolve `auto` to ONNX Runtime on the CPU, which every install has.

    Raises:
        EngineError: the requested back end is not installed.
    """
    if requested == "auto":
        return "onnxruntime"
    if requested not in RUNS:
        if requested not in (offered := plugin_names()):
            known = ", ".join(["auto", *RUNS, *offered])
            raise EngineError(f"engine {requested}: no installed package offers it; choose one of {known}")
    elif problem := engine_problem(requested):
        raise EngineError(f"engine {requested}: {problem}")
    return requested


def unusable(backend: Backend) -> str | None:
    """Return why a back end cannot run here; None if it may. No library is loaded, so only a trial proves that it can.

    Args:
        backend: a key of RUNS.
    """
    if engine_problem(backend):
        return "not installed"
    return "no NVIDIA GPU" if backend in GPU_BACKENDS and not has_gpu_driver() else None


def has_gpu_driver(root: Path = Path("/")) -> bool:
    """Return whether NVIDIA's driver runs on this machine, and has a GPU."""
    return any((root / node).exists() for node in _GPU_NODES)


def forms_of(backend: Backend) -> tuple[str, ...]:
    """Return the forms that a back end runs, best first; this loads a plug-in.

    Raises:
        EngineError: the plug-in is not installed or cannot be loaded.
    """
    return RUNS[backend] if backend in RUNS else tuple(load_plugin(backend).forms)


def gains_from_batches(backend: Backend, threads: int) -> bool:
    """Return whether a batch of frames takes less time than the frames one by one.

    On a CPU this is so with several threads (benchmarks/results/batches.json, ONNX Runtime). On a GPU it is known to be
    so, but not measured here.
    """
    return threads > 1 or backend in GPU_BACKENDS


def has_precision(form: str, precision: Precision) -> bool:
    """Return whether a form is one that a precision allows."""
    return precision == "shipped" or (form == "fp32" if precision == "fp32" else form not in FLOAT_FORMS)


def choose_target(files: Mapping[str, str], ship: str, backend: Backend, precision: Precision = "shipped") -> str:
    """Choose the form of a model for a back end: the shipped one if it can run that, else its best.

    Args:
        files: the forms in the bundle.
        ship: the fastest form on the machine that packed the bundle.
        backend: what runs the model.
        precision: `int8` and `fp32` force a precision; a device with an 8-bit dot product may gain from INT8 where the
            packing machine did not.

    Raises:
        EngineError: the bundle holds no such form for this back end.
    """
    runs = forms_of(backend)
    if precision != "shipped":
        runs = tuple(form for form in runs if has_precision(form, precision))
    elif ship in runs:
        return ship
    for target in runs:
        if target in files:
            return target
    raise EngineError(
        f"engine {backend}: the bundle holds the forms {sorted(files)} of a model; it needs one of {list(runs)}"
    )


def open_engine(
    path: Path,
    backend: Backend = "auto",
    threads: int = 1,
    *,
    max_batch: int = 1,
    cache: Path | None = None,
    tensorrt: TensorRtConfig | None = None,
    counts: Counts | None = None,
) -> Engine:
    """Load a model file.

    Args:
        path: the model file.
        backend: which library runs it.
        threads: inside one operator, on a CPU.
        max_batch: rows of the largest batch; TensorRT builds the engine for it.
        cache: folder of engines built on this machine; the model's folder when None.
        tensorrt: how TensorRT builds and runs; the defaults when None.
        counts: `cuda_graph_failures`; None: they are not counted.

    Raises:
        EngineError: the back end is not installed or rejects the file.
    """
    backend = choose_backend(backend)
    if backend not in RUNS:
        return load_plugin(backend).open(path, threads, max_batch, path.parent if cache is None else cache)
    try:
        if path.is_file() and has_external_weights(path):
            raise EngineError(f"{path}: keeps its weights in another file; edge-quantize pack puts them into it")
    except OSError as error:
        raise EngineError(f"{path}: cannot read: {error.strerror}") from error
    try:
        if backend == "openvino":
            from edge.inference.openvino_engine import OpenVinoEngine

            return OpenVinoEngine(path, threads)
        if backend == "tensorrt":
            from edge.inference.tensorrt_engine import TensorRtEngine

            return TensorRtEngine(path, path.parent if cache is None else cache, max_batch, tensorrt, counts)
        if backend in GPU_BACKENDS:
            from edge.inference.onnxruntime_gpu import open_gpu_session

            return open_gpu_session(path, backend, max_batch, cache, tensorrt)
        from edge.inference.onnxruntime_engine import open_session
    except ImportError as error:  # partly installed: a shared library or a dependency is missing
        raise EngineError(f"engine {backend}: installed but not usable: {error}") from error
    return open_session(path, threads)
