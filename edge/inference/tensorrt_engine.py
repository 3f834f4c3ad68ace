"""Run models with TensorRT: build an engine from an ONNX file once, cache its plan, run it.

Not yet run on hardware: tested against a fake with the names that the bindings of TensorRT 10.3 and 11.4 share.

Rules:
1. The network is strongly typed: the Q/DQ and Cast nodes of the ONNX file set the precision.
2. A plan fits only the file, TensorRT version, device generation and batch it was built for; its name holds all four.
3. A cached plan is not trusted: one that TensorRT rejects is built again.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt as trt
from numpy.typing import NDArray

from edge.durable import write_durably
from edge.errors import EngineError
from edge.inference.cuda_memory import CudaStream, compute_capability

log = logging.getLogger(__name__)

_LEVELS = {"INTERNAL_ERROR": logging.ERROR, "ERROR": logging.ERROR, "WARNING": logging.WARNING}
_DTYPES = {"FLOAT": "f4", "HALF": "f2", "INT8": "i1", "UINT8": "u1", "INT32": "i4", "INT64": "i8", "BOOL": "?"}


class _Logger(trt.ILogger):  # type: ignore[misc]  # TensorRT has no types
    """Forwards TensorRT's messages to the log and keeps the newest error for EngineError."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.last_error = "no reason given"

    def log(self, severity: Any, msg: str) -> None:
        level = _LEVELS.get(severity.name, logging.DEBUG)
        if level == logging.ERROR:
            self.last_error = msg.splitlines()[0][:300] if msg else self.last_error
        log.log(level, "TensorRT: %s", msg)


@functools.cache  # TensorRT keeps its first logger for the whole process: it must never be freed
def _logger() -> _Logger:
    return _Logger()


@dataclass(frozen=True, slots=True)
class _Tensor:
    """An input or output of the engine and its device memory."""

    name: str
    dtype: np.dtype[Any]
    pointer: int


class TensorRtEngine:
    """A model in TensorRT."""

    def __init__(self, path: Path, cache: Path, max_batch: int = 1) -> None:
        """Load a model from its cached plan, or build the plan, which takes minutes.

        Args:
            path: the ONNX file, with one input of which only the batch may be dynamic.
            cache: folder of the plans.
            max_batch: rows of the largest batch if the batch is dynamic.

        Raises:
            EngineError: the file is missing, damaged or rejected by TensorRT, or there is no CUDA device.
        """
        self.where = str(path)
        self._lock = threading.Lock()  # a context can run in one thread at a time
        try:
            onnx = path.read_bytes()
        except OSError as error:
            raise EngineError(f"{path}: cannot read: {error.strerror}") from error
        try:
            self._runtime = trt.Runtime(_logger())
            self._engine, plan = _load(self._runtime, onnx, cache, max_batch, self.where)
            # a plan that is built again may choose other kernels
            self.library = f"tensorrt {trt.__version__}, plan {hashlib.sha256(plan).hexdigest()}"
            self._context = self._engine.create_execution_context()
            self._stream = CudaStream()
            self._bind()
        except EngineError:
            raise
        except Exception as error:  # the bindings raise many types: TypeError without a device
            raise EngineError(f"{path}: TensorRT cannot load it: {error}: {_logger().last_error}") from error

    def _bind(self) -> None:
        """Allocate memory for the largest batch and give the context its addresses."""
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        if len(inputs) != 1:
            raise EngineError(f"{self.where}: the model has {len(inputs)} inputs {inputs}; only one is supported")
        shape = tuple(self._engine.get_tensor_shape(inputs[0]))
        is_dynamic = shape[0] == -1
        largest = tuple(self._engine.get_tensor_profile_shape(inputs[0], 0)[2]) if is_dynamic else shape
        self._batches = range(1 if is_dynamic else shape[0], largest[0] + 1)
        self._row_shape = shape[1:]
        self._require(self._context.set_input_shape(inputs[0], largest), f"input shape {largest}")
        self.inputs: Sequence[Collection[str]] = [(inputs[0],)]
        self.outputs: Sequence[Collection[str]] = [(name,) for name in names if name not in inputs]
        self._input, *self._outputs = [self._allocate(name) for name in inputs + [n for n in names if n not in inputs]]

    def _allocate(self, name: str) -> _Tensor:
        """Allocate memory for one tensor at the context's current input shape."""
        kind = self._engine.get_tensor_dtype(name).name
        shape = tuple(self._context.get_tensor_shape(name))
        if kind not in _DTYPES or -1 in shape:
            raise EngineError(f"{self.where}: {name}: type {kind} and shape {list(shape)} are not supported")
        dtype = np.dtype(_DTYPES[kind])
        tensor = _Tensor(name, dtype, self._stream.allocate(int(np.prod(shape)) * dtype.itemsize))
        self._require(self._context.set_tensor_address(name, tensor.pointer), f"the address of {name}")
        return tensor

    def _require(self, accepted: bool, what: str) -> None:
        if not accepted:
            raise EngineError(f"{self.where}: TensorRT rejects {what}: {_logger().last_error}")

    def run(self, batch: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """Run the model on one batch.

        Raises:
            EngineError: the shape or dtype is wrong, or TensorRT failed.
        """
        fits = batch.dtype == self._input.dtype and batch.shape[1:] == self._row_shape and len(batch) in self._batches
        if not fits:
            rows = f"{self._batches[0]} to {self._batches[-1]}"
            raise EngineError(
                f"{self.where}: found a {batch.dtype} batch of shape {batch.shape}, "
                f"expected {self._input.dtype} {list(self._row_shape)}, {rows} rows"
            )
        with self._lock:
            return self._run(np.ascontiguousarray(batch))

    def _run(self, batch: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        self._require(self._context.set_input_shape(self._input.name, batch.shape), f"input shape {batch.shape}")
        self._stream.copy_in(self._input.pointer, batch)
        self._require(self._context.execute_async_v3(self._stream.handle), "the run")
        outputs: list[NDArray[np.generic]] = []
        for tensor in self._outputs:
            outputs.append(np.empty(tuple(self._context.get_tensor_shape(tensor.name)), tensor.dtype))
            self._stream.copy_out(outputs[-1], tensor.pointer)
        self._stream.wait()
        return outputs


def plan_name(onnx: bytes, max_batch: int) -> str:
    """Return the file name of a plan, from the model, TensorRT version, device generation and batch.

    Raises:
        EngineError: there is no CUDA device.
    """
    major, minor = compute_capability()
    return f"{hashlib.sha256(onnx).hexdigest()}-trt{trt.__version__}-sm{major}{minor}-b{max_batch}.plan"


def _load(runtime: Any, onnx: bytes, cache: Path, max_batch: int, where: str) -> tuple[Any, bytes]:
    """Return the engine of a model and its plan, from the cache if it holds a plan that TensorRT accepts."""
    plan_path = cache / plan_name(onnx, max_batch)
    if plan_path.is_file():
        plan = plan_path.read_bytes()
        if (engine := runtime.deserialize_cuda_engine(plan)) is not None:
            return engine, plan
        log.warning("%s: TensorRT rejects the cached plan, building it again: %s", plan_path, _logger().last_error)
    log.info("%s: building for TensorRT %s, which takes minutes: %s", where, trt.__version__, plan_path.name)
    started_s = time.monotonic()
    plan = _build(onnx, max_batch, where)
    log.info("%s: built in %.1f s, %d bytes", where, time.monotonic() - started_s, len(plan))
    try:
        cache.mkdir(parents=True, exist_ok=True)
        write_durably(plan_path, plan)
    except OSError as error:
        log.warning("%s: cannot save the plan, the next start builds it again: %s", plan_path, error.strerror)
    if (engine := runtime.deserialize_cuda_engine(plan)) is None:
        raise EngineError(f"{where}: TensorRT rejects the plan it built: {_logger().last_error}")
    return engine, plan


def _build(onnx: bytes, max_batch: int, where: str) -> bytes:
    builder = trt.Builder(_logger())
    # required by 10, without effect in 11; its bit differs between the two
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, _logger())
    if not parser.parse(onnx):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise EngineError(f"{where}: TensorRT cannot parse it: {'; '.join(reasons)[:300]}")
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    dynamic = [tensor for tensor in tensors if -1 in tuple(tensor.shape)]
    for tensor in dynamic:
        batch, *row = tensor.shape
        if -1 in row:
            raise EngineError(
                f"{where}: {tensor.name}: only the batch may be dynamic, but the shape is {[batch, *row]}"
            )
        profile.set_shape(tensor.name, (1, *row), (1, *row), (max_batch, *row))
    if dynamic and config.add_optimization_profile(profile) < 0:
        raise EngineError(f"{where}: TensorRT rejects batches of 1 to {max_batch}: {_logger().last_error}")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{where}: TensorRT cannot build it: {_logger().last_error}")
    return bytes(plan)
