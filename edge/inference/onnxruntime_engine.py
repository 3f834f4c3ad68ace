"""Run models with ONNX Runtime, on the CPU or a GPU."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.errors import EngineError
from edge.extras import install_command
from edge.inference.onnxruntime_library import ort

log = logging.getLogger(__name__)

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_SEVERITY_ERROR = 3


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _SEVERITY_ERROR
    # The engine is idle between frames: at 10 frames a second spinning used 53 % of a core and blocking 14 %, and
    # spinning was slower.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class OnnxRuntimeEngine:
    """A model in ONNX Runtime."""

    def __init__(self, session: ort.InferenceSession, where: str, threads: int) -> None:
        self._session = session
        self.where = where
        self.library = f"onnxruntime {ort.__version__}, {session.get_providers()[0]}, {threads} threads"
        self.inputs: Sequence[Collection[str]] = [(one.name,) for one in session.get_inputs()]
        self.outputs: Sequence[Collection[str]] = [(one.name,) for one in session.get_outputs()]
        if not self.inputs or not self.outputs:
            raise EngineError(f"{where}: the model has {len(self.inputs)} inputs and {len(self.outputs)} outputs")
        self.input_name: str = session.get_inputs()[0].name
        self.input_shape: tuple[int | str, ...] = tuple(session.get_inputs()[0].shape)
        self.input_type: str = session.get_inputs()[0].type  # as ONNX Runtime writes it: "tensor(uint8)"

    def run(self, batch: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """Run the model on one batch.

        Raises:
            EngineError: the shape or dtype is wrong, or ONNX Runtime failed.
        """
        try:
            return list(self._session.run(None, {self.input_name: batch}))
        except Exception as error:  # ONNX Runtime raises exception types of its C++ binding
            raise EngineError(
                f"{self.where}: found a {batch.dtype} batch of shape {batch.shape}, "
                f"expected {self.input_type} {list(self.input_shape)}: {_first_line(error)}"
            ) from error

    def run_named(self, feeds: dict[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]:
        """Run a model with several inputs.

        Raises:
            EngineError: ONNX Runtime failed.
        """
        try:
            return list(self._session.run(None, feeds))
        except Exception as error:
            raise EngineError(f"{self.where}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _open(model: str | bytes, where: str, threads: int, device: str) -> OnnxRuntimeEngine:
    provider = PROVIDERS[device]
    if provider not in ort.get_available_providers():
        fix = f"; run: {install_command('onnxruntime-cuda')}" if device == "cuda" else ""
        raise EngineError(f"{where}: ONNX Runtime offers {ort.get_available_providers()}, not {provider}{fix}")
    try:
        session = ort.InferenceSession(model, _options(threads), providers=[provider])
    except Exception as error:
        raise EngineError(f"{where}: ONNX Runtime cannot load it: {_first_line(error)}") from error
    if session.get_providers()[0] != provider:  # ONNX Runtime falls back silently
        raise EngineError(f"{where}: ONNX Runtime uses {session.get_providers()[0]} instead of {provider}")
    return OnnxRuntimeEngine(session, where, threads)


def open_session(path: Path, threads: int = 1, device: str = "cpu") -> OnnxRuntimeEngine:
    """Load a model file.

    Args:
        path: an ONNX file.
        threads: inside one operator.
        device: "cpu" or "cuda".

    Raises:
        EngineError: the file is missing or damaged, or the device does not exist.
    """
    if not path.is_file():
        raise EngineError(f"{path}: no such model file")
    return _open(str(path), str(path), threads, device)


def open_session_from_bytes(model: bytes, where: str = "model in memory", threads: int = 1) -> OnnxRuntimeEngine:
    """Load a serialised model on the CPU.

    Raises:
        EngineError: ONNX Runtime cannot load it.
    """
    return _open(model, where, threads, "cpu")
