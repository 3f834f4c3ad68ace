"""Run models with ONNX Runtime, on the CPU or a GPU."""

from __future__ import annotations

import functools
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import EngineError, first_line
from edge.inference.onnxruntime_library import explain, ort

_CPU = "CPUExecutionProvider"
_SEVERITY_ERROR = 3
_SAME_AS_REQUESTED = 1
_TYPES = {"float32": "float", "float64": "double"}  # as ONNX Runtime calls them


@functools.cache
def _share_one_arena() -> None:
    """Let all sessions of the process take their memory from one arena, which grows by what is asked for.

    Each session's own arena keeps what its largest batch needed: ten MobileNetV2 took 991 MiB, with one arena for all
    263, in the same time. Without an arena a batch of 8 took 1.56 times as long (ONNX Runtime 1.31, 2 cores, AVX2).
    """
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    sizes = {"max_mem": 0, "initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg(sizes | {"arena_extend_strategy": _SAME_AS_REQUESTED}))


def session_options(threads: int, *, optimise: bool = True) -> ort.SessionOptions:
    """Return the options of a session.

    Args:
        threads: inside one operator, on the CPU.
        optimise: False runs every node as it stands in the graph: the arithmetic of another engine, not its speed.
    """
    _share_one_arena()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _SEVERITY_ERROR
    # The engine is idle between frames: at 10 frames a second spinning used 53 % of a core and blocking 14 %, and
    # spinning was slower.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.enable_mem_pattern = False  # it reserves memory for each batch size, and was no faster
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


class OnnxRuntimeEngine:
    """A model in ONNX Runtime."""

    def __init__(
        self,
        session: ort.InferenceSession,
        where: str,
        threads: int,
        backend: str = "onnxruntime",
        made_of: str = "",
    ) -> None:
        """Wrap a session.

        Args:
            session: that has loaded the model.
            where: the model file.
            threads: inside one operator, on the CPU.
            backend: what runs it.
            made_of: what its outputs depend on, besides the version, the provider and the threads.

        Raises:
            EngineError: the model has no input or no output.
        """
        session.disable_fallback()  # else a provider that fails in a run is replaced by the CPU
        self._session = session
        self._backend = backend
        self.where = where
        self.library = f"onnxruntime {ort.__version__}, {session.get_providers()[0]}, {threads} threads{made_of}"
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
            GpuError: the GPU is lost.
            EngineError: the shape or dtype is wrong, or ONNX Runtime failed.
        """
        try:
            return self._run(batch)
        except Exception as error:  # ONNX Runtime raises exception types of its C++ binding
            if not self._fits(batch):
                raise EngineError(
                    f"{self.where}: found a {batch.dtype} batch of shape {batch.shape}, "
                    f"expected {self.input_type} {list(self.input_shape)}: {first_line(error)}"
                ) from error
            raise explain(self.where, self._backend, error) from error

    def _fits(self, batch: NDArray[np.generic]) -> bool:
        """Return whether a batch has the type and shape of the model's input; a dynamic dimension is a name."""
        if self.input_type != f"tensor({_TYPES.get(batch.dtype.name, batch.dtype.name)})":
            return False
        sizes = zip(self.input_shape, batch.shape, strict=False)
        return len(self.input_shape) == batch.ndim and all(n == size for n, size in sizes if isinstance(n, int))

    def _run(self, batch: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        return list(self._session.run(None, {self.input_name: batch}))

    def run_named(self, feeds: dict[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]:
        """Run a model with several inputs.

        Raises:
            EngineError: ONNX Runtime failed.
        """
        try:
            return list(self._session.run(None, feeds))
        except Exception as error:
            raise EngineError(f"{self.where}: {first_line(error)}") from error


class BoundEngine(OnnxRuntimeEngine):
    """A model whose inputs and outputs have memory on the device: a run copies the batch in and the answers out, once.

    `device` is "cuda", or "cpu" in tests.
    """

    def __init__(
        self, session: ort.InferenceSession, where: str, backend: str, device: str = "cuda", made_of: str = ""
    ) -> None:
        """Wrap a session; the arguments are those of OnnxRuntimeEngine.

        Raises:
            EngineError: the model has no input or no output.
        """
        super().__init__(session, where, 1, backend, made_of)
        self._device = device
        self._lock = threading.Lock()  # a binding belongs to one run at a time
        self._inputs: dict[tuple[Any, ...], Any] = {}  # memory of a batch, by its dtype and shape, once it has run
        self._binding = session.io_binding()

    def _run(self, batch: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        with self._lock:
            source, key = np.ascontiguousarray(batch), (batch.dtype.str, *batch.shape)
            on_device = self._inputs.get(key)
            if on_device is None:
                on_device = ort.OrtValue.ortvalue_from_numpy(source, self._device, 0)
            else:
                on_device.update_inplace(source)
            self._binding.bind_ortvalue_input(self.input_name, on_device)
            for (name,) in self.outputs:
                self._binding.bind_output(name, self._device, 0)
            self._session.run_with_iobinding(self._binding)
            self._inputs[key] = on_device
            return list(self._binding.copy_outputs_to_cpu())


def _open(model: str | bytes, where: str, options: ort.SessionOptions, threads: int) -> OnnxRuntimeEngine:
    try:
        session = ort.InferenceSession(model, options, providers=[_CPU], enable_fallback=0)
    except Exception as error:
        raise EngineError(f"{where}: ONNX Runtime cannot load it: {first_line(error)}") from error
    return OnnxRuntimeEngine(session, where, threads)


def open_session(path: Path, threads: int = 1, *, optimise: bool = True) -> OnnxRuntimeEngine:
    """Load a model file on the CPU.

    Args:
        path: an ONNX file.
        threads: inside one operator.
        optimise: as in `session_options`.

    Raises:
        EngineError: the file is missing or damaged.
    """
    if not path.is_file():
        raise EngineError(f"{path}: no such model file")
    return _open(str(path), str(path), session_options(threads, optimise=optimise), threads)


def open_session_from_bytes(
    model: bytes, where: str = "model in memory", threads: int = 1, *, optimise: bool = True
) -> OnnxRuntimeEngine:
    """Load a serialised model on the CPU.

    Args:
        model: the model.
        where: names it in messages.
        threads: inside one operator.
        optimise: as in `session_options`.

    Raises:
        EngineError: ONNX Runtime cannot load it.
    """
    return _open(model, where, session_options(threads, optimise=optimise), threads)
