"""CUDA: the GPU of this process, its one stream, and memory for engines. The only user of `cuda`.

Rules:
1. All engines share one stream and one block of scratch memory, so only the holder of `exclusive()` runs.
2. Scratch is as large as the engine that needs most. It grows into a new block, never shrinks, and is freed with the
   last engine.
3. Memory of an engine that is gone is freed when nothing runs: never while another thread records a graph.
4. After some errors every later call of the process fails too: they are a GpuError.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from cuda.bindings import runtime
from numpy.typing import NDArray

from edge.errors import EngineError, GpuError

Free = Callable[[], object]

# By name: versions of the bindings differ in what they know.
_LOST = frozenset(
    {
        "cudaErrorAssert",
        "cudaErrorCompatNotSupportedOnDevice",
        "cudaErrorContained",
        "cudaErrorContextIsDestroyed",
        "cudaErrorDevicesUnavailable",
        "cudaErrorECCUncorrectable",
        "cudaErrorExternalDevice",
        "cudaErrorHardwareStackError",
        "cudaErrorIllegalAddress",
        "cudaErrorIllegalInstruction",
        "cudaErrorInitializationError",
        "cudaErrorInsufficientDriver",
        "cudaErrorInvalidAddressSpace",
        "cudaErrorInvalidDevice",
        "cudaErrorInvalidPc",
        "cudaErrorLaunchFailure",
        "cudaErrorLaunchTimeout",
        "cudaErrorMisalignedAddress",
        "cudaErrorNoDevice",
        "cudaErrorNvlinkUncorrectable",
        "cudaErrorStartupFailure",
        "cudaErrorSystemDriverMismatch",
        "cudaErrorSystemNotReady",
        "cudaErrorTensorMemoryLeak",
        "cudaErrorUnknown",
    }
)
_SCRATCH_BYTES = 256  # the smallest block; TensorRT wants this alignment, which cudaMalloc gives


def _checked(result: tuple[Any, ...]) -> Any:
    """Return the values of a CUDA call without its status.

    Raises:
        GpuError: the GPU is missing or lost.
        EngineError: the call failed.
    """
    status, *values = result
    if status != runtime.cudaError_t.cudaSuccess:
        text = runtime.cudaGetErrorString(status)[1].decode()
        runtime.cudaGetLastError()  # else a later call of TensorRT reports this error
        if status.name in _LOST:
            raise GpuError(f"CUDA: {status.name}: {text}; look at `dmesg`, then restart the device")
        if status == runtime.cudaError_t.cudaErrorMemoryAllocation:
            raise EngineError(f"CUDA: {status.name}: {text}; free memory: other programs, fewer models or cameras")
        raise EngineError(f"CUDA: {status.name}: {text}")
    return values[0] if values else None


@dataclass(frozen=True, slots=True)
class Gpu:
    """What a built engine depends on."""

    compute_capability: tuple[int, int]  # (8, 7) on Orin
    name: str
    multiprocessors: int  # differs between modules of one name
    driver: int  # newest CUDA that the driver supports, 12060 is 12.6


def find_gpu() -> Gpu:
    """Return the GPU of this process.

    Raises:
        GpuError: there is none, or its driver is too old for the installed CUDA.
    """
    driver, needed = int(_checked(runtime.cudaDriverGetVersion())), int(_checked(runtime.cudaRuntimeGetVersion()))
    if driver // 1000 < needed // 1000:  # within one major version, newer runtimes work with older drivers
        found = f"supports CUDA {_version(driver)}" if driver else "is not installed"
        raise GpuError(f"the NVIDIA driver {found}; cuda-python here needs CUDA {needed // 1000}.0 or later")
    device = _checked(runtime.cudaGetDevice())
    names = runtime.cudaDeviceAttr

    def attribute(kind: Any) -> int:
        return int(_checked(runtime.cudaDeviceGetAttribute(kind, device)))

    return Gpu(
        (attribute(names.cudaDevAttrComputeCapabilityMajor), attribute(names.cudaDevAttrComputeCapabilityMinor)),
        _checked(runtime.cudaGetDeviceProperties(device)).name.decode("utf-8", "replace"),
        attribute(names.cudaDevAttrMultiProcessorCount),
        driver,
    )


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


class CudaStream:
    """The stream of this process, its lock, and the scratch memory that all engines share.

    Everything but `exclusive`, `release` and the properties is for the thread that holds `exclusive`.
    """

    def __init__(self) -> None:
        """Create the stream.

        Raises:
            EngineError: there is no GPU, or it cannot be used.
        """
        find_gpu()
        # non-blocking: work of other libraries on the default stream neither waits nor disturbs a recording
        self._stream = _checked(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
        self.handle = int(self._stream)
        self._lock = threading.Lock()
        self._unused: deque[Free] = deque()
        self._engines = 0  # that use the scratch
        self.scratch = (0, 0)  # its address and its bytes

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait for the stream, and keep other threads from it."""
        with self._lock:
            self._free_unused()
            yield

    def release(self, frees: list[Free]) -> None:
        """Free memory: now, or when the stream is next used. Any thread may call it, also in its own `exclusive`."""
        self._unused.extend(frees)
        if self._lock.acquire(blocking=False):
            try:
                self._free_unused()
            finally:
                self._lock.release()

    def _free_unused(self) -> None:
        if self._unused:
            runtime.cudaStreamSynchronize(self._stream)
        while self._unused:
            self._unused.popleft()()

    def use_scratch(self, size: int) -> Free:
        """Make the scratch at least so large; return what ends this use. A larger block has another address.

        Raises:
            EngineError: the GPU is out of memory; the scratch stays as it was.
        """
        pointer, found = self.scratch
        if size > found or not pointer:
            size = max(size, _SCRATCH_BYTES)
            larger = int(_checked(runtime.cudaMalloc(size)))  # before the old one is freed: other engines need one
            self._free_scratch()
            self.scratch = (larger, size)
        self._engines += 1
        return self._end_scratch

    def _end_scratch(self) -> None:
        self._engines -= 1
        if not self._engines:
            self._free_scratch()

    def _free_scratch(self) -> None:
        pointer, self.scratch = self.scratch[0], (0, 0)
        if pointer:
            runtime.cudaStreamSynchronize(self._stream)
            runtime.cudaFree(pointer)

    def copy_in(self, pointer: int, array: NDArray[np.generic]) -> None:
        """Start to copy a contiguous array to the GPU; the array must live until `wait` returns.

        Raises:
            EngineError: the driver rejects the copy.
        """
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(runtime.cudaMemcpyAsync(pointer, array.ctypes.data, array.nbytes, kind, self._stream))

    def copy_out(self, array: NDArray[np.generic], pointer: int) -> None:
        """Start to fill a contiguous array from the GPU; it is filled when `wait` returns.

        Raises:
            EngineError: the driver rejects the copy.
        """
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _checked(runtime.cudaMemcpyAsync(array.ctypes.data, pointer, array.nbytes, kind, self._stream))

    def wait(self) -> None:
        """Wait until all work on the stream is done.

        Raises:
            EngineError: some of the work failed.
        """
        _checked(runtime.cudaStreamSynchronize(self._stream))

    def record(self, work: Callable[[], None]) -> Any:
        """Record what `work` puts on the stream, without running it; return a graph to `launch` and `keep`.

        Raises:
            EngineError: the work cannot be recorded.
        """
        # thread-local: other threads may load engines meanwhile
        _checked(
            runtime.cudaStreamBeginCapture(self._stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        )
        try:
            work()
        except BaseException:
            _, unfinished = runtime.cudaStreamEndCapture(self._stream)
            if unfinished is not None and int(unfinished):
                runtime.cudaGraphDestroy(unfinished)
            runtime.cudaGetLastError()
            raise
        recorded = _checked(runtime.cudaStreamEndCapture(self._stream))
        try:
            return _checked(runtime.cudaGraphInstantiate(recorded, 0))
        finally:
            runtime.cudaGraphDestroy(recorded)

    def launch(self, graph: Any) -> None:
        """Start a recorded graph.

        Raises:
            EngineError: the driver rejects it.
        """
        _checked(runtime.cudaGraphLaunch(graph, self._stream))


class EngineMemory:
    """Memory of one engine; it is freed with this object."""

    def __init__(self, stream: CudaStream) -> None:
        self._stream = stream
        self._graphs: dict[int, Any] = {}
        self._frees: list[Free] = [functools.partial(_drop_graphs, self._graphs)]
        self.close = weakref.finalize(self, stream.release, self._frees)
        self.size = 0  # bytes, without the scratch

    def on_gpu(self, size: int) -> int:
        """Allocate bytes on the GPU; return their address.

        Raises:
            EngineError: the GPU is out of memory.
        """
        pointer = int(_checked(runtime.cudaMalloc(size)))
        self._frees.append(functools.partial(runtime.cudaFree, pointer))
        self.size += size
        return pointer

    def on_host(self, size: int) -> NDArray[np.uint8]:
        """Allocate bytes that the GPU copies without a detour (page-locked); use them only while this object lives.

        Raises:
            EngineError: the memory cannot be locked.
        """
        pointer = int(_checked(runtime.cudaMallocHost(size)))
        self._frees.append(functools.partial(runtime.cudaFreeHost, pointer))
        self.size += size
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))

    def use_scratch(self, size: int) -> None:
        """Use the shared scratch memory, at least so many bytes.

        Raises:
            EngineError: the GPU is out of memory.
        """
        with self._stream.exclusive():
            self._frees.append(self._stream.use_scratch(size))

    def keep(self, rows: int, graph: Any) -> None:
        """Keep the recorded graph of a batch size in place of an older one, which does not run."""
        if rows in self._graphs:
            runtime.cudaGraphExecDestroy(self._graphs[rows])
        self._graphs[rows] = graph


def _drop_graphs(graphs: dict[int, Any]) -> None:
    for graph in graphs.values():
        runtime.cudaGraphExecDestroy(graph)
    graphs.clear()


_creating = threading.Lock()
_streams: list[CudaStream] = []


def process_stream() -> CudaStream:
    """Return the one stream of this process, which every engine shares.

    Raises:
        EngineError: there is no GPU, or it cannot be used.
    """
    with _creating:
        if not _streams:
            _streams.append(CudaStream())
        return _streams[0]
