"""Set-up and end of the `edge` process: C library settings, the lock of the state folder, and leaving at once."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

from edge.errors import ConfigError

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")
_M_ARENA_MAX = -8  # of mallopt(3), glibc
_HEAPS = 2
_M_PERTURB = -6  # fill new memory with the complement of a byte
_filling_memory = threading.Lock()
_POLL_S = 0.1
_HAND_OVER_S = 0.0002


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


class Call(Generic[_Result]):
    """A call that runs in a thread of its own, such as the loading of models.

    A native library that loads a model cannot be interrupted; after `StoppedError` the thread is left behind, so end
    the process with `leave`.
    """

    def __init__(self, call: Callable[[], _Result]) -> None:
        """Start the call."""
        self._call = call
        self._results: list[_Result] = []
        self._errors: list[BaseException] = []
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="loader", daemon=True).start()

    def result(self, stop: threading.Event | None = None) -> _Result:
        """Wait for the result of the call, or for `stop`.

        Raises:
            StoppedError: `stop` was set first.
            Exception: that of the function.
        """
        while not self._ended.wait(_POLL_S):
            if stop is not None and stop.is_set():
                raise StoppedError
        for error in self._errors:
            raise error
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:  # noqa: BLE001  raised again by the caller
            self._errors.append(error)
        finally:
            self._ended.set()


@contextlib.contextmanager
def starting() -> Iterator[Callable[[], None]]:
    """Speed up the start of the process; call what is yielded once it has started.

    Nearly all objects that a start makes stay: the garbage collector waits, and never looks at them again. Threads that
    load models and import modules side by side hand over often.
    """
    before_s = sys.getswitchinterval()

    def end() -> None:
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
            sys.setswitchinterval(before_s)

    gc.disable()
    sys.setswitchinterval(_HAND_OVER_S)
    try:
        yield end
    finally:
        end()


@contextlib.contextmanager
def hand_over_often() -> Iterator[None]:
    """Have a thread that works in Python for seconds keep no other thread from the interpreter for long meanwhile."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(min(before_s, _HAND_OVER_S))
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)


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
