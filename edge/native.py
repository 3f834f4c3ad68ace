"""What this process settles with the C libraries that Python's packages bring with them."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # of mallopt(3), glibc
_HEAPS = 2


def bind_unwinder() -> None:
    """Have C++ exceptions unwound by libgcc, whatever is loaded later.

    Debian's GStreamer brings libunwind, which exports the same symbols. Libraries loaded after it bind to those, and
    the first exception thrown in one of them (a model that ONNX Runtime or OpenVINO refuses) aborts the process.
    """
    try:
        ctypes.CDLL("libgcc_s.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError:  # no GNU system: no libunwind beside it either
        return


def limit_heaps() -> bool:
    """Have glibc keep two heaps instead of eight per core; whether it does. Before threads are started.

    Cameras that are opened again and again leave half-empty heaps behind: 18 MiB an hour in benchmarks/soak.py.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and mallopt(_M_ARENA_MAX, _HEAPS) == 1
