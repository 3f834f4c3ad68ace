"""Run ONNX models with OpenVINO, on the CPU."""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.errors import EngineError

# On import, OpenVINO reports to Google Analytics from a forked process unless its telemetry package is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes the import fail
import openvino  # noqa: E402


class OpenVinoEngine:
    """A model compiled by OpenVINO."""

    def __init__(self, path: Path, threads: int) -> None:
        # f32: by default OpenVINO computes in bf16 on CPUs that can, but the bundle was measured in f32 when packed
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            self._model = openvino.Core().compile_model(str(path), "CPU", options)
        except Exception as error:
            raise EngineError(f"{path}: OpenVINO cannot load it: {str(error).splitlines()[0][:300]}") from error
        self.where = str(path)
        self.library = f"openvino {openvino.__version__}, {threads} threads"
        self.inputs: Sequence[Collection[str]] = [port.names for port in self._model.inputs]
        self.outputs: Sequence[Collection[str]] = [port.names for port in self._model.outputs]
        if not self.inputs:
            raise EngineError(f"{path}: the model has no input")
        self._dtype = self._model.input(0).get_element_type().to_dtype()
        self._shape = self._model.input(0).get_partial_shape()
        self._request = self._model.create_infer_request()
        self._lock = threading.Lock()  # a request can run in one thread at a time

    def run(self, batch: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """Run the model on one batch.

        Raises:
            EngineError: the shape or dtype is wrong, or OpenVINO failed.
        """
        # OpenVINO itself converts and reshapes silently
        fits = batch.dtype == self._dtype and self._shape.compatible(openvino.PartialShape(list(batch.shape)))
        if not fits:
            expected = f"{self._dtype} {self._shape}"
            raise EngineError(f"{self.where}: found a {batch.dtype} batch of shape {batch.shape}, expected {expected}")
        try:
            with self._lock:
                result = self._request.infer([batch])
                return [np.array(result[output]) for output in self._model.outputs]
        except Exception as error:
            raise EngineError(f"{self.where}: {str(error).splitlines()[0][:300]}") from error
