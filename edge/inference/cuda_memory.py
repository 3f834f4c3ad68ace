"""The CUDA runtime door: device memory, the copies to and from it, and one stream to order them."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from cuda.bindings import runtime
from numpy.typing import NDArray

from edge.errors import EngineError


def _checked(result: tuple[Any, ...]) -> Any:
    """What a CUDA call returned after its status.

    Raises:
        EngineError: the status is not success.
    """
    status, *values = result
    if status != runtime.cudaError_t.cudaSuccess:
        text = runtime.cudaGetErrorString(status)[1]
        raise EngineError(f"CUDA: found {status.name}, expected success: {text.decode()}")
    return values[0] if values else None


def compute_capability() -> tuple[int, int]:
    """The generation of the current device, (8, 7) on Orin.

    Raises:
        EngineError: no device or no driver.
    """
    device = _checked(runtime.cudaGetDevice())
    names = runtime.cudaDeviceAttr
    major = _checked(runtime.cudaDeviceGetAttribute(names.cudaDevAttrComputeCapabilityMajor, device))
    minor = _checked(runtime.cudaDeviceGetAttribute(names.cudaDevAttrComputeCapabilityMinor, device))
    return int(major), int(minor)


class CudaStream:
    """One stream and the memory used on it; both go when this object does."""

    def __init__(self) -> None:
        stream = _checked(runtime.cudaStreamCreate())
        self._pointers: list[int] = []
        self.close = weakref.finalize(self, _release, stream, self._pointers)
        self._stream = stream
        self.handle = int(stream)

    def allocate(self, size: int) -> int:
        """Reserve bytes on the device; return their address.

        Raises:
            EngineError: no memory.
        """
        pointer = int(_checked(runtime.cudaMalloc(size)))
        self._pointers.append(pointer)
        return pointer

    def copy_in(self, pointer: int, array: NDArray[np.generic]) -> None:
        """Begin to copy a contiguous array to the device; it must live until `wait` returns.

        Raises:
            EngineError: the driver refused.
        """
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(runtime.cudaMemcpyAsync(pointer, array.ctypes.data, array.nbytes, kind, self._stream))

    def copy_out(self, array: NDArray[np.generic], pointer: int) -> None:
        """Begin to fill a contiguous array from the device; it is filled when `wait` returns.

        Raises:
            EngineError: the driver refused.
        """
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _checked(runtime.cudaMemcpyAsync(array.ctypes.data, pointer, array.nbytes, kind, self._stream))

    def wait(self) -> None:
        """Block until everything begun on the stream is done.

        Raises:
            EngineError: something of it failed.
        """
        _checked(runtime.cudaStreamSynchronize(self._stream))


def _release(stream: Any, pointers: list[int]) -> None:
    runtime.cudaStreamSynchronize(stream)  # memory in use must not go
    for pointer in pointers:
        runtime.cudaFree(pointer)
    runtime.cudaStreamDestroy(stream)
