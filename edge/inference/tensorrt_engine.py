"""Run models with TensorRT: load the plan of an ONNX file, and run batches, as CUDA graphs where that works.

Building is proved with TensorRT's own builder. Running is not yet proved on hardware: it is tested against a fake that
has only names of the bindings of TensorRT 10.3, 10.16 and 11.4.

Rules:
1. All engines of a process share one stream and one block of scratch memory: they run one after the other.
2. A graph belongs to one batch size, one context and one scratch address; it is recorded again when that moves.
3. An engine whose graph cannot be recorded runs without, and says so once.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.config.schema import TensorRtConfig
from edge.errors import EngineError, GpuError
from edge.inference.cuda_memory import EngineMemory, find_gpu, process_stream
from edge.inference.tensorrt_library import (
    VERSION,
    failed,
    forget_errors,
    is_out_of_memory,
    library_log,
    trt,
    why,
)
from edge.inference.tensorrt_plans import GpuKind, obtain_plan
from edge.types import Counts

log = logging.getLogger(__name__)

_DTYPES = {"FLOAT": "f4", "HALF": "f2", "INT8": "i1", "UINT8": "u1", "INT32": "i4", "INT64": "i8", "BOOL": "?"}
_MOST_GRAPHS = 4  # batch sizes of one engine with a graph; each has a context, which takes some GPU memory


def gpu_kind() -> GpuKind:
    """Return what the plans of this machine depend on.

    Raises:
        GpuError: there is no GPU, or it cannot be used.
    """
    gpu = find_gpu()
    major, minor = gpu.compute_capability
    return GpuKind(f"sm{major}{minor}", f"{gpu.name}, {gpu.multiprocessors} multiprocessors", gpu.driver)


@dataclass(frozen=True, slots=True)
class _Tensor:
    """An input or output of the engine, with memory for the largest batch."""

    name: str
    dtype: np.dtype[Any]
    on_gpu: int  # address
    on_host: NDArray[np.uint8]


@dataclass(slots=True)
class _Context:
    """An execution context, and what it was last set to."""

    context: Any
    rows: int = 0
    scratch: tuple[int, int] = (0, 0)
    graph: Any = None
    is_warm: bool = False  # it has run with these settings, so TensorRT allocates no more


class TensorRtEngine:
    """A model in TensorRT."""

    def __init__(
        self,
        path: Path,
        cache: Path,
        max_batch: int = 1,
        config: TensorRtConfig | None = None,
        counts: Counts | None = None,
    ) -> None:
        """Load a model from its cached plan, or build the plan, which takes minutes.

        Args:
            path: the ONNX file, with one input of which only the batch may be dynamic.
            cache: folder of the plans.
            max_batch: rows of the largest batch if the batch is dynamic.
            config: how to build and run.
            counts: `cuda_graph_failures`: engines that run without CUDA graphs because one could not be recorded.

        Raises:
            EngineError: the file is missing, damaged or rejected by TensorRT, or there is no GPU.
        """
        self.where = str(path)
        config = config or TensorRtConfig()
        self._counts = counts
        try:
            gpu = gpu_kind()
            self._stream = process_stream()
            self._runtime = trt.Runtime(library_log())
            if config.dla_core is not None:
                self._runtime.DLA_core = config.dla_core
            self._engine, plan = self._load(partial(obtain_plan, path, max_batch, cache, config, gpu))
            # a plan that is built again may choose other kernels
            self._plan_bytes = len(plan)
            self.library = f"tensorrt {VERSION}, plan {hashlib.sha256(plan).hexdigest()}"
            self._bind()
        except EngineError:
            raise
        except Exception as error:  # the bindings raise many types
            raise failed(self.where, "TensorRT cannot load it", error) from error
        self._most_graphs = _MOST_GRAPHS if config.cuda_graphs else 0
        self._of_rows: dict[int, _Context] = {}

    def _load(self, obtain: Callable[..., bytes]) -> tuple[Any, bytes]:
        """Return the engine and its plan; a plan that TensorRT rejects is built again."""
        for rejected in (False, True):
            plan = obtain(rejected=rejected)
            forget_errors()
            engine = self._runtime.deserialize_cuda_engine(plan)
            if engine is not None:
                return engine, plan
            with self._stream.exclusive():
                self._stream.wait()  # raises if the GPU is lost: another plan would not help
            if is_out_of_memory():
                break
            if not rejected:
                log.warning("%s: TensorRT rejects the cached plan, building it again: %s", self.where, why())
        raise failed(self.where, "TensorRT cannot load the plan")

    def _bind(self) -> None:
        """Allocate memory for the largest batch."""
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        if len(inputs) != 1:
            raise EngineError(f"{self.where}: the model has {len(inputs)} inputs {inputs}; only one is supported")
        shape = tuple(self._engine.get_tensor_shape(inputs[0]))
        is_dynamic = shape[0] == -1
        largest = tuple(self._engine.get_tensor_profile_shape(inputs[0], 0)[2]) if is_dynamic else shape
        self._batches = range(1 if is_dynamic else shape[0], largest[0] + 1)
        self._row_shape = shape[1:]
        outputs = [name for name in names if name not in inputs]
        self.inputs: Sequence[Collection[str]] = [(inputs[0],)]
        self.outputs: Sequence[Collection[str]] = [(name,) for name in outputs]
        self._memory = EngineMemory(self._stream)
        self._any_rows = _Context(self._new_context())
        self._require(self._any_rows.context.set_input_shape(inputs[0], largest), f"input shape {largest}")
        self._input, *self._outputs = [self._allocate(name) for name in (inputs[0], *outputs)]
        self._address(self._any_rows)
        self._memory.use_scratch(self._engine.device_memory_size_v2)

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise failed(self.where, "TensorRT cannot prepare a run")
        return context

    def _allocate(self, name: str) -> _Tensor:
        """Allocate memory for one tensor at the context's current input shape."""
        kind = self._engine.get_tensor_dtype(name).name
        shape = tuple(self._any_rows.context.get_tensor_shape(name))
        if kind not in _DTYPES or -1 in shape:
            raise EngineError(f"{self.where}: {name}: type {kind} and shape {list(shape)} are not supported")
        dtype = np.dtype(_DTYPES[kind])
        size = int(np.prod(shape)) * dtype.itemsize
        return _Tensor(name, dtype, self._memory.on_gpu(size), self._memory.on_host(size))

    def _address(self, context: _Context) -> None:
        for tensor in (self._input, *self._outputs):
            self._require(
                context.context.set_tensor_address(tensor.name, tensor.on_gpu), f"the address of {tensor.name}"
            )

    def _require(self, accepted: bool, what: str) -> None:
        if not accepted:
            raise failed(self.where, f"TensorRT rejects {what}")

    @property
    def memory_bytes(self) -> int:
        """About how much memory the engine takes: its weights (as large as its plan), inputs and outputs."""
        return self._plan_bytes + self._memory.size

    def run(self, batch: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """Run the model on one batch.

        Raises:
            GpuError: the GPU is lost.
            EngineError: the shape or dtype is wrong, or TensorRT failed.
        """
        fits = batch.dtype == self._input.dtype and batch.shape[1:] == self._row_shape and len(batch) in self._batches
        if not fits:
            rows = f"{self._batches[0]} to {self._batches[-1]}"
            raise EngineError(
                f"{self.where}: found a {batch.dtype} batch of shape {batch.shape}, "
                f"expected {self._input.dtype} {list(self._row_shape)}, {rows} rows"
            )
        with self._stream.exclusive():
            forget_errors()
            try:
                return self._run(batch)
            except EngineError:
                self._stream.wait()  # raises if the GPU is lost, which says more
                raise

    def _run(self, batch: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        context = self._context_of(len(batch))
        self._prepare(context, len(batch))
        source = _view(self._input, batch.shape)
        shapes = [tuple(context.context.get_tensor_shape(tensor.name)) for tensor in self._outputs]
        results = [_view(tensor, shape) for tensor, shape in zip(self._outputs, shapes, strict=True)]
        np.copyto(source, batch)
        work = partial(self._enqueue, context, source, results)
        if context.graph is None and context.is_warm and context is not self._any_rows and self._most_graphs:
            self._record(context, work)
        if context.graph is not None:
            self._stream.launch(context.graph)
        else:
            work()
        self._stream.wait()
        context.is_warm = True
        return [result.copy() for result in results]

    def _context_of(self, rows: int) -> _Context:
        """Return the context of a batch size: the first few have their own, as a graph needs, the others share one."""
        if rows not in self._of_rows:
            if len(self._of_rows) >= self._most_graphs:
                return self._any_rows
            context = _Context(self._new_context())
            self._address(context)
            self._of_rows[rows] = context
        return self._of_rows[rows]

    def _prepare(self, context: _Context, rows: int) -> None:
        """Give a context the scratch memory and the shape, if either changed; its graph is then void."""
        if context.scratch != self._stream.scratch:
            context.context.set_device_memory(*self._stream.scratch)
            context.scratch, context.graph, context.is_warm = self._stream.scratch, None, False
        if context.rows != rows:
            shape = (rows, *self._row_shape)
            self._require(context.context.set_input_shape(self._input.name, shape), f"input shape {shape}")
            context.rows, context.graph, context.is_warm = rows, None, False

    def _enqueue(self, context: _Context, source: NDArray[np.generic], results: list[NDArray[np.generic]]) -> None:
        self._stream.copy_in(self._input.on_gpu, source)
        if not context.context.execute_async_v3(self._stream.handle):
            raise failed(self.where, "TensorRT rejects the run")
        for tensor, result in zip(self._outputs, results, strict=True):
            self._stream.copy_out(result, tensor.on_gpu)

    def _record(self, context: _Context, work: Callable[[], None]) -> None:
        try:
            context.graph = self._stream.record(work)
        except GpuError:
            raise
        except EngineError as error:
            self._most_graphs = 0
            if self._counts is not None:
                self._counts.add("cuda_graph_failures")
            log.warning("%s: runs without CUDA graphs, which takes longer: %s", self.where, error)
        else:
            self._memory.keep(context.rows, context.graph)


def _view(tensor: _Tensor, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the start of a tensor's host memory as an array of a shape."""
    size = int(np.prod(shape)) * tensor.dtype.itemsize
    return tensor.on_host[:size].view(tensor.dtype).reshape(shape)
