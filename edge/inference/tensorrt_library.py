"""TensorRT's library: its version, its log, and the names that only some versions have. The only importer of it."""

from __future__ import annotations

import functools
import logging
import operator
from typing import Any

import tensorrt as trt

from edge.errors import EngineError, first_line, one_line

log = logging.getLogger(__name__)

__all__ = ["VERSION", "failed", "forget_errors", "has", "is_out_of_memory", "library_log", "trt", "why"]

VERSION = str(trt.__version__)
_LEVELS = {"INTERNAL_ERROR": logging.ERROR, "ERROR": logging.ERROR, "WARNING": logging.WARNING}
_OUT_OF_MEMORY = ("out of memory", "outofmemory", "cudaerrormemoryallocation", "insufficient memory")


def has(name: str) -> bool:
    """Return whether this version of TensorRT has a name, such as `DeviceType.DLA`."""
    try:
        operator.attrgetter(name)(trt)
    except AttributeError:
        return False
    return True


class _Log(trt.ILogger):  # type: ignore[misc]  # TensorRT has no types
    """Forwards TensorRT's messages to the log and keeps the latest error."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.error = ""

    def log(self, severity: Any, msg: str) -> None:
        level = _LEVELS.get(severity.name, logging.DEBUG)
        if level == logging.ERROR and msg:
            self.error = one_line(msg.splitlines()[0])[:300]
        log.log(level, "TensorRT: %s", one_line(msg))


@functools.cache  # TensorRT keeps its first logger for the whole process: it must never be freed
def library_log() -> _Log:
    """Return the log that every object of TensorRT writes to."""
    return _Log()


def forget_errors() -> None:
    """Forget the errors before a call, so that `why` gives those of the call."""
    library_log().error = ""


def why() -> str:
    """Return the latest error of TensorRT, and what to do where that is known."""
    error = library_log().error or "no reason given"
    return f"{error}; {_MORE_MEMORY}" if is_out_of_memory() else error


_MORE_MEMORY = "free memory (other programs, fewer cameras) or set engine.tensorrt.workspace_mib"


def is_out_of_memory() -> bool:
    """Return whether the latest error of TensorRT is a lack of memory."""
    return any(words in library_log().error.lower() for words in _OUT_OF_MEMORY)


def failed(where: str, what: str, error: Exception | None = None) -> EngineError:
    """Return the error to raise: which file, what TensorRT does not do, and why.

    Args:
        where: the file.
        what: TensorRT does not do.
        error: what the bindings raised; None: they returned nothing.
    """
    if error is None:
        return EngineError(f"{where}: {what}: {why()}")
    if isinstance(error, MemoryError):
        return EngineError(f"{where}: {what}: out of memory; {_MORE_MEMORY}")
    raised = one_line(first_line(error))
    return EngineError(f"{where}: {what}: {raised}: {why()}")
