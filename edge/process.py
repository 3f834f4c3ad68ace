"""What this process settles with the C libraries that Python's packages bring with them."""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import os
from pathlib import Path

from edge.errors import ConfigError

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


_PACKAGES = {"kiosk": ("starlette", "uvicorn")}


def require_extra(extra: str) -> None:
    """Make sure that an extra is installed.

    Raises:
        ConfigError: one of its packages is not.
    """
    for package in _PACKAGES[extra]:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{extra}: found no package {package!r}, expected it installed (extra {extra!r})")


class StateLock:
    """Held from start to stop; the kernel lets go of it when the process dies, however it does."""

    def __init__(self, state_dir: Path) -> None:
        """Take it.

        Raises:
            ConfigError: another process has it, or the folder cannot be written to.
        """
        path = state_dir / "lock"
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise ConfigError(f"{path}: cannot open: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise ConfigError(f"{state_dir}: found another device running on it, expected none") from None

    def release(self) -> None:
        """Let another device start."""
        os.close(self._file)
