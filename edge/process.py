"""Set-up and end of the `edge` process: C library settings, the lock of the state folder, and leaving at once."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

from edge.errors import ConfigError

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")
_M_ARENA_MAX = -8  # of mallopt(3), glibc
_HEAPS = 2
_M_PERTURB = -6  # fill new memory with the complement of a byte
_filling_memory = threading.Lock()
_POLL_S = 0.1


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


@contextlib.contextmanager
def new_memory_filled_with(value: int) -> Iterator[None]:
    """Have glibc fill all memory that the process gets meanwhile with a byte; musl has no such setting."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)
    with _filling_memory:
        mallopt(_M_PERTURB, value ^ 0xFF)
        try:
            yield
        finally:
            mallopt(_M_PERTURB, 0)


class StoppedError(Exception):
    """The process was asked to stop during a long call."""


def call_until(stop: threading.Event, call: Callable[[], _Result]) -> _Result:
    """Call a function in a thread, and wait for its result or for `stop`.

    A native library that loads a model cannot be interrupted; the thread is then left behind, so end the process with
    `leave`.

    Raises:
        StoppedError: `stop` was set first.
        Exception: that of the function.
    """
    results: list[_Result] = []
    errors: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001  raised again by the caller
            errors.append(error)
        finally:
            ended.set()

    threading.Thread(target=run, name="loader", daemon=True).start()
    while not ended.wait(_POLL_S):
        if stop.is_set():
            raise StoppedError
    for error in errors:
        raise error
    return results[0]


def leave(status: int) -> NoReturn:
    """End the process at once: flush what was printed and logged, and run no clean-up of native threads.

    A thread that is still inside a native library (a model that loads, a camera that hangs) would abort the process in
    the interpreter's own clean-up.
    """
    left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    log.debug("leaving with status %d; threads left behind: %s", status, ", ".join(left) or "none")
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # a closed pipe
            continue
    os._exit(status)


class StateLock:
    """A lock that lets one process use a state folder; the kernel releases it however the process ends.

    It is on the folder itself, so it works on a disk that cannot be written.
    """

    def __init__(self, state_dir: Path) -> None:
        """Lock the folder.

        Raises:
            ConfigError: another process holds the lock, or the folder cannot be read.
        """
        try:
            self._folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(f"{state_dir}: cannot open: {error.strerror}") from error
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._folder)
            raise ConfigError(
                f"{state_dir}: another `edge` process uses this folder; stop it or choose another state_dir"
            ) from None

    def release(self) -> None:
        """Unlock the folder."""
        os.close(self._folder)
