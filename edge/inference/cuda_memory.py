"""CUDA device memory, the copies to and from it, and the stream that orders them. The only user of `cuda`."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from cuda.bindings import runtime
from numpy.typing import NDArray

from edge.errors import EngineError


def _checked(result: tuple[Any, ...]) -> Any:
    """Return the values of a CUDA call without its status.

    Raises:
        EngineError: the call failed.
    """
    status, *values = result
    if status != runtime.cudaError_t.cudaSuccess:
        text = runtime.cudaGetErrorString(status)[1]
        raise EngineError(f"CUDA: {status.name}: {text.decode()}")
    return values[0] if values else None


def compute_capability() -> tuple[int, int]:
    """Return the compute capability of the current device, (8, 7) on Orin.

    Raises:
        EngineError: there is no device or no driver.
    """
    device = _checked(runtime.cudaGetDevice())
    names = runtime.cudaDeviceAttr
    major = _checked(runtime.cudaDeviceGetAttribute(names.cudaDevAttrComputeCapabilityMajor, device))
    minor = _checked(runtime.cudaDeviceGetAttribute(names.cudaDevAttrComputeCapabilityMinor, device))
    return int(major), int(minor)


class CudaStream:
    """One stream and the memory used on it; both are freed with this object."""

    def __init__(self) -> None:
        stream = _checked(runtime.cudaStreamCreate())
        self._pointers: list[int] = []
        self.close = weakref.finalize(self, _release, stream, self._pointers)
        self._stream = stream
        self.handle = int(stream)

    def allocate(self, size: int) -> int:
        """Allocate bytes on the device; return their address.

        Raises:
            EngineError: the device is out of memory.
        """
        pointer = int(_checked(runtime.cudaMalloc(size)))
        self._pointers.append(pointer)
        return pointer

    def copy_in(self, pointer: int, array: NDArray[np.generic]) -> None:
        """Start to copy a contiguous array to the device; the array must live until `wait` returns.

        Raises:
            EngineError: the driver rejects the copy.
        """
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(runtime.cudaMemcpyAsync(pointer, array.ctypes.data, array.nbytes, kind, self._stream))

    def copy_out(self, array: NDArray[np.generic], pointer: int) -> None:
        """Start to fill a contiguous array from the device; it is filled when `wait` returns.

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


def _release(stream: Any, pointers: list[int]) -> None:
    runtime.cudaStreamSynchronize(stream)  # memory in use must not be freed
    for pointer in pointers:
        runtime.cudaFree(pointer)
    runtime.cudaStreamDestroy(stream)
