"""Choose the engine that runs a model: what was asked for, or an error; never a silent fallback."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

from edge.errors import EngineError
from edge.manifest import Target
from edge.process import INSTALL_COMMANDS
from edge.types import Engine

Precision = Literal["shipped", "int8", "fp32"]
Backend = Literal["auto", "onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt"]

# What each back end can run, best first. ONNX Runtime runs S8 activations at a fraction of U8's speed on x86, so the
# TensorRT form is not offered to it.
RUNS: dict[Backend, tuple[Target, ...]] = {
    "onnxruntime": ("ort-u8", "fp32"),
    "onnxruntime-cuda": ("fp32",),
    "openvino": ("openvino", "ort-u8", "fp32"),
    "tensorrt": ("tensorrt-s8", "fp32"),
}


def choose_backend(asked: Backend) -> Backend:
    """Resolve `auto`: ONNX Runtime on the CPU, the back end every install has.

    Raises:
        EngineError: the back end that was asked for is not installed.
    """
    if asked == "auto":
        return "onnxruntime"
    module = {"onnxruntime-cuda": "onnxruntime"}.get(asked, asked)
    if importlib.util.find_spec(module) is None:
        raise EngineError(f"engine {asked}: package {module!r} is not installed; run: {INSTALL_COMMANDS[asked]}")
    return asked


def gains_from_batches(backend: Backend, threads: int) -> bool:
    """Whether several frames in one run take less time than one by one.

    A CPU does where it spreads a batch over threads (benchmarks/results/batches.json, ONNX Runtime). A GPU is known to;
    that is not measured here.
    """
    return threads > 1 or backend in {"onnxruntime-cuda", "tensorrt"}


def choose_target(files: dict[Target, str], ship: Target, backend: Backend, precision: Precision = "shipped") -> Target:
    """Pick the form of a model that a back end runs: the shipped one where it can, else its best.

    Args:
        files: the forms that the bundle holds.
        ship: the one that won on the machine that packed.
        backend: what runs it.
        precision: `int8` and `fp32` insist; a device with an 8-bit dot product may gain where the packing one did not.

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
    raise EngineError(f"engine {backend}: found model forms {sorted(files)}, expected one of {list(runs)}")


def open_engine(
    path: Path, backend: Backend = "auto", threads: int = 1, *, max_batch: int = 1, cache: Path | None = None
) -> Engine:
    """Load a model file.

    Args:
        path: the ONNX file.
        backend: which library runs it.
        threads: inside one operator, on a CPU.
        max_batch: rows of the largest batch; TensorRT builds for it.
        cache: folder of engines built on this machine; beside the model when None.

    Raises:
        EngineError: the back end is missing, or refuses the file.
    """
    backend = choose_backend(backend)
    try:
        if backend == "openvino":
            from edge.inference.openvino_engine import OpenVinoEngine

            return OpenVinoEngine(path, threads)
        if backend == "tensorrt":
            from edge.inference.tensorrt_engine import TensorRtEngine

            return TensorRtEngine(path, path.parent if cache is None else cache, max_batch)
        from edge.inference.onnxruntime_engine import open_session
    except ImportError as error:  # installed in part: a shared library or a package it needs is not there
        raise EngineError(f"engine {backend}: found it installed but unusable: {error}") from error
    return open_session(path, threads, "cuda" if backend == "onnxruntime-cuda" else "cpu")
