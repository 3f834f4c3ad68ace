"""Choose and open the engine that runs a model. A requested engine that is missing is an error, never a fallback."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

from edge.errors import EngineError
from edge.extras import install_command
from edge.inference.external_weights import has_external_weights
from edge.manifest import Target
from edge.types import Engine

Precision = Literal["shipped", "int8", "fp32"]
Backend = Literal["auto", "onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt"]

# The forms that each back end can run, best first. ONNX Runtime runs S8 activations at a fraction of U8's speed on x86,
# so it never gets the TensorRT form.
RUNS: dict[Backend, tuple[Target, ...]] = {
    "onnxruntime": ("ort-u8", "fp32"),
    "onnxruntime-cuda": ("fp16", "fp32"),
    "openvino": ("openvino", "ort-u8", "fp32"),
    "tensorrt": ("tensorrt-s8", "fp16", "fp32"),
}


def choose_backend(requested: Backend) -> Backend:
    """Resolve `auto` to ONNX Runtime on the CPU, which every install has.

    Raises:
        EngineError: the requested back end is not installed.
    """
    if requested == "auto":
        return "onnxruntime"
    module = {"onnxruntime-cuda": "onnxruntime"}.get(requested, requested)
    if importlib.util.find_spec(module) is None:
        raise EngineError(f"engine {requested}: package {module!r} is not installed; run: {install_command(requested)}")
    return requested


def gains_from_batches(backend: Backend, threads: int) -> bool:
    """Return whether a batch of frames takes less time than the frames one by one.

    On a CPU this is so with several threads (benchmarks/results/batches.json, ONNX Runtime). On a GPU it is known to be
    so, but not measured here.
    """
    return threads > 1 or backend in {"onnxruntime-cuda", "tensorrt"}


def choose_target(files: dict[Target, str], ship: Target, backend: Backend, precision: Precision = "shipped") -> Target:
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
    runs = RUNS[backend]
    if precision != "shipped":
        runs = tuple(target for target in runs if (target == "fp32") == (precision == "fp32"))
    elif ship in runs:
        return ship
    for target in runs:
        if target in files:
            return target
    raise EngineError(
        f"engine {backend}: the bundle holds the forms {sorted(files)} of a model; it needs one of {list(runs)}"
    )


def open_engine(
    path: Path, backend: Backend = "auto", threads: int = 1, *, max_batch: int = 1, cache: Path | None = None
) -> Engine:
    """Load a model file.

    Args:
        path: the ONNX file.
        backend: which library runs it.
        threads: inside one operator, on a CPU.
        max_batch: rows of the largest batch; TensorRT builds the engine for it.
        cache: folder of engines built on this machine; the model's folder when None.

    Raises:
        EngineError: the back end is not installed or rejects the file.
    """
    backend = choose_backend(backend)
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

            return TensorRtEngine(path, path.parent if cache is None else cache, max_batch)
        from edge.inference.onnxruntime_engine import open_session
    except ImportError as error:  # partly installed: a shared library or a dependency is missing
        raise EngineError(f"engine {backend}: installed but not usable: {error}") from error
    return open_session(path, threads, "cuda" if backend == "onnxruntime-cuda" else "cpu")
