"""Set-up of the `edge` process: C library settings, and the lock of the state folder."""

from __future__ import annotations

import ctypes
import fcntl
import os
from pathlib import Path

from edge.errors import ConfigError

_M_ARENA_MAX = -8  # of mallopt(3), glibc
_HEAPS = 2


def bind_unwinder() -> None:
    """Make C++ exceptions unwind through libgcc, whatever is loaded later.

    Debian's GStreamer loads libunwind, which exports the same symbols. Libraries loaded after it bind to those, and
    the first exception thrown in one of them (for a model that ONNX Runtime or OpenVINO rejects) aborts the process.
    """
    try:
        ctypes.CDLL("libgcc_s.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError:  # not a GNU system, so no libunwind either
        return


def limit_heaps() -> bool:
    """Limit glibc to two heaps instead of eight per core; call before starting threads.

    Cameras that reconnect often leave half-empty heaps behind: 18 MiB an hour in benchmarks/soak.py.

    Returns:
        Whether the limit is set; musl has no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, _HEAPS) == 1


class StateLock:
    """A lock that lets one process use a state folder; the kernel releases it however the process ends."""

    def __init__(self, state_dir: Path) -> None:
        """Lock the folder.

        Raises:
            ConfigError: another process holds the lock, or the folder cannot be written to.
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
            raise ConfigError(
                f"{state_dir}: another `edge` process uses this folder; stop it or choose another state_dir"
            ) from None

    def release(self) -> None:
        """Unlock the folder."""
        os.close(self._file)
