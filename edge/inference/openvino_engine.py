"""Run ONNX models with OpenVINO, on the CPU."""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import EngineError, first_line

# On import, OpenVINO reports to Google Analytics from a forked process unless its telemetry package is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes the import fail
import openvino  # noqa: E402


def _compile(path: Path, threads: int, **more: str) -> Any:
    # f32: by default OpenVINO computes in bf16 on CPUs that can, but the bundle was measured in f32 when packed
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": "f32",
        **more,
    }
    try:
        return openvino.Core().compile_model(str(path), "CPU", options)
    except Exception as error:
        raise EngineError(f"{path}: OpenVINO cannot load it: {first_line(error)}") from error


@dataclass(frozen=True, slots=True)
class Layer:
    """One node of a compiled model, as it runs."""

    original_names: tuple[str, ...]  # the nodes of the ONNX file that it runs
    kind: str  # OpenVINO's layer type, "Convolution"
    primitive: str  # "brgconv_avx2_I8"
    precision: str  # in which it computes, "u8"
    ms: float | None  # median time of one run; None if it did not run


def profile_layers(path: Path, batch: NDArray[np.generic], runs: int) -> tuple[str, list[Layer]]:
    """Run a model on one thread, and return the library's name and each node of the compiled model.

    Raises:
        EngineError: OpenVINO cannot load or run the model.
    """
    model = _compile(path, 1, PERF_COUNT="YES")
    taken_s: dict[str, list[float]] = {}
    try:
        request = model.create_infer_request()
        for run in range(runs + 1):
            request.infer([batch])
            for count in request.get_profiling_info() if run else ():  # the first run warms up
                taken_s.setdefault(count.node_name, []).append(count.real_time.total_seconds())
        nodes = model.get_runtime_model().get_ordered_ops()
    except Exception as error:
        raise EngineError(f"{path}: {first_line(error)}") from error
    return f"openvino {openvino.__version__}", [_layer(node, taken_s) for node in nodes]


def _layer(node: Any, taken_s: dict[str, list[float]]) -> Layer:
    info = node.get_rt_info()
    names, kind, primitive, precision = (
        str(info[key].astype(str) if key in info else "")
        for key in ("originalLayersNames", "layerType", "primitiveType", "runtimePrecision")
    )
    times = taken_s.get(node.get_friendly_name())
    ms = float(np.median(times)) * 1000 if times else None
    return Layer(tuple(names.split(",")), kind, primitive, precision, ms)


class OpenVinoEngine:
    """A model compiled by OpenVINO."""

    def __init__(self, path: Path, threads: int) -> None:
        self._model = _compile(path, threads)
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
            raise EngineError(f"{self.where}: {first_line(error)}") from error
