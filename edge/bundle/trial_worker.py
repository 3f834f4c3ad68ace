"""The process that runs one engine in a trial, so that a crash or a hang of its library loses nothing else.

It reads requests from standard input and answers each on standard output: a line of JSON, then the arrays that the line
announces, as raw bytes. `edge.bundle.trial_process` is the other end.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle.child_process import be_the_first_to_die, lift_memory_limit, limit_memory, take_stdout, threads
from edge.config.schema import TensorRtConfig
from edge.errors import FinesightError
from edge.types import Engine

MAX_LINE_BYTES = 1 << 20
MAX_ARRAY_BYTES = 1 << 30
_DTYPES = frozenset("?bBhHiIlLqQefd")
_Arrays = Sequence[NDArray[np.generic]]


def send(file: IO[bytes], header: dict[str, Any], arrays: _Arrays = ()) -> None:
    """Write a message.

    Raises:
        OSError: the other end is gone.
    """
    parts = [np.ascontiguousarray(array) for array in arrays]
    shapes = [(part.dtype.char, part.shape) for part in parts]
    file.write(json.dumps(header | {"arrays": shapes}).encode() + b"\n")
    for part in parts:
        file.write(part.tobytes())
    file.flush()


def receive(file: IO[bytes]) -> tuple[dict[str, Any], list[NDArray[np.generic]]] | None:
    """Read a message; None at the end.

    Raises:
        ValueError: what arrived is no message.
    """
    line = file.readline(MAX_LINE_BYTES)
    if not line:
        return None
    header = json.loads(line)
    arrays: list[NDArray[np.generic]] = []
    for kind, shape in header["arrays"]:
        if kind not in _DTYPES or not all(isinstance(side, int) and side >= 0 for side in shape):
            raise ValueError(f"found an array of type {kind!r} and shape {shape!r}")
        size = math.prod(shape) * np.dtype(kind).itemsize
        if size > MAX_ARRAY_BYTES:
            raise ValueError(f"found an array of {size} bytes, expected {MAX_ARRAY_BYTES} at most")
        data = file.read(size)
        if len(data) < size:
            return None
        arrays.append(np.frombuffer(data, kind).reshape(shape))
    return header, arrays


class _Worker:
    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._engines: dict[int, Engine] = {}

    def answer(self, request: dict[str, Any], arrays: _Arrays) -> tuple[dict[str, Any], _Arrays]:
        verbs: dict[str, Callable[..., tuple[dict[str, Any], _Arrays]]] = {
            "hello": self._hello,
            "open": self._open,
            "run": self._run,
            "time": self._time,
            "close": self._close,
        }
        return verbs[request["do"]](request, *arrays)

    def _hello(self, _: dict[str, Any]) -> tuple[dict[str, Any], _Arrays]:
        from edge.inference.engine import RUNS, forms_of, unusable
        from edge.inference.engine_plugins import load_plugin

        problem = unusable(self._backend) if self._backend in RUNS else load_plugin(self._backend).is_usable()
        return {"problem": problem, "forms": list(forms_of(self._backend))}, ()

    def _open(self, request: dict[str, Any]) -> tuple[dict[str, Any], _Arrays]:
        from edge.inference.engine import open_engine

        path, cache = Path(request["path"]), request["cache"]
        engine = open_engine(
            path,
            self._backend,
            request["threads"],
            max_batch=request["max_batch"],
            cache=Path(cache) if cache else None,
            tensorrt=TensorRtConfig.model_validate(request["tensorrt"]),
        )
        self._engines[request["id"]] = engine
        inputs, outputs = ([sorted(names) for names in tensors] for tensors in (engine.inputs, engine.outputs))
        return {"inputs": inputs, "outputs": outputs, "library": engine.library}, ()

    def _run(self, request: dict[str, Any], batch: NDArray[np.generic]) -> tuple[dict[str, Any], _Arrays]:
        return {}, [np.asarray(output) for output in self._engines[request["id"]].run(batch)]

    def _time(self, request: dict[str, Any], batch: NDArray[np.generic]) -> tuple[dict[str, Any], _Arrays]:
        """Time runs after one that is not timed, which brings the weights back into the caches."""
        on_cpu = request["on_cpu"]
        clock_s = time.perf_counter if on_cpu is None else time.process_time
        engine = self._engines[request["id"]]
        taken_ms = []
        with contextlib.nullcontext() if on_cpu is None else _on_one_cpu(on_cpu):
            engine.run(batch)
            for _ in range(request["runs"]):
                started_s = clock_s()
                engine.run(batch)
                taken_ms.append((clock_s() - started_s) * 1000)
        return {"ms": taken_ms}, ()

    def _close(self, request: dict[str, Any]) -> tuple[dict[str, Any], _Arrays]:
        self._engines.pop(request["id"], None)
        return {}, ()


@contextlib.contextmanager
def _on_one_cpu(number: int) -> Iterator[None]:
    """Keep every thread of this process on one of its CPUs: two CPUs are not equally fast while others use them."""
    allowed = os.sched_getaffinity(0)
    _move(sorted(allowed)[number % len(allowed)])
    try:
        yield
    finally:
        _move(*allowed)


def _move(*cpus: int) -> None:
    for thread in threads() or [0]:
        with contextlib.suppress(OSError):  # it ended meanwhile
            os.sched_setaffinity(thread, cpus)


def main(arguments: list[str]) -> None:
    """Answer requests until there are no more."""
    parent, backend, reserves = arguments
    be_the_first_to_die(int(parent))
    if reserves == "reserves":
        lift_memory_limit()
    else:
        limit_memory()
    with os.fdopen(take_stdout(), "wb") as answers, os.fdopen(os.dup(0), "rb") as requests:
        worker = _Worker(backend)
        while (message := receive(requests)) is not None:
            header: dict[str, Any]
            arrays: _Arrays
            try:
                header, arrays = worker.answer(*message)
            except FinesightError as error:
                header, arrays = {"error": str(error)}, ()
            except Exception as error:  # noqa: BLE001  whatever an engine raises, the parent gets it
                header, arrays = {"error": f"{type(error).__name__}: {error}"[:1000]}, ()
            send(answers, header, arrays)
        answers.flush()
        os._exit(0)  # without the clean-up of native libraries
