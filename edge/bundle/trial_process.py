"""The engines of one back end, in a process of their own: a crash or a hang is an error of one engine.

Rules:
1. Each request has a limit: of CPU time, and of time in which the process does nothing. A process that exceeds one is
   ended. On a busy machine a process at low priority may take many times as long, and does not hang.
2. After a crash the other engines get a new process and are loaded again. A back end that crashed three times, or hung
   once, gets no more.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from edge.bundle.child_process import command, how_it_ended
from edge.bundle.trial_worker import receive, send
from edge.config.schema import TensorRtConfig
from edge.errors import EngineError

OPEN_LIMIT_S = 60.0
BUILD_LIMIT_S = 1800.0  # of a back end that builds an engine for minutes
RUN_LIMIT_S = 30.0
_MOST_CRASHES = 3
_LOOK_S = 1.0  # between two looks at the process


class TrialProcess:
    """A back end in a child process: `with TrialProcess("openvino") as process: process.open(...)`."""

    def __init__(
        self,
        backend: str,
        *,
        builds: bool = False,
        reserves_memory: bool = False,
        limit_s: float | None = None,
        tensorrt: TensorRtConfig | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            backend: that it runs.
            builds: the first load of a model may take minutes.
            reserves_memory: the back end reserves far more memory than it uses, so it gets no limit.
            limit_s: of every request, see rule 1; None: the usual limits.
            tensorrt: how TensorRT builds and runs; None: the defaults.
        """
        self._tensorrt = (tensorrt or TensorRtConfig()).model_dump()
        self.backend = backend
        self._open_limit_s = limit_s or (BUILD_LIMIT_S if builds else OPEN_LIMIT_S)
        self._run_limit_s = limit_s or RUN_LIMIT_S
        self._reserves = "reserves" if reserves_memory else ""
        self._process: subprocess.Popen[bytes] | None = None
        self._generation = self._crashes = self._opened = 0

    def __enter__(self) -> TrialProcess:  # noqa: PYI034  Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def forms(self) -> tuple[str, ...]:
        """Return the forms that the back end runs, best first.

        Raises:
            EngineError: it cannot run here; the text says why.
        """
        header, _ = self._ask({"do": "hello"}, (), self._open_limit_s)
        if header["problem"] is not None:
            raise EngineError(f"engine {self.backend}: {header['problem']}")
        return tuple(header["forms"])

    def open(self, path: Path, threads: int, max_batch: int, cache: Path | None) -> TrialEngine:
        """Load a model file.

        Raises:
            EngineError: the back end rejects it, crashes, or takes too long.
        """
        self._opened += 1
        request = {"do": "open", "id": self._opened, "path": str(path), "threads": threads, "max_batch": max_batch}
        return TrialEngine(self, request | {"cache": str(cache) if cache else "", "tensorrt": self._tensorrt})

    def load(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Load an engine, and return the number of the process that holds it and what the engine says of itself.

        Raises:
            EngineError: as `open`.
        """
        header, _ = self._ask(request, (), self._open_limit_s)
        return self._generation, header

    def is_running(self, generation: int) -> bool:
        """Return whether a process of that number runs."""
        return self._process is not None and generation == self._generation

    def ask(
        self, request: dict[str, Any], arrays: Sequence[NDArray[np.generic]]
    ) -> tuple[dict[str, Any], list[NDArray[np.generic]]]:
        """Send a request about a loaded engine.

        Raises:
            EngineError: it failed, crashed or hung.
        """
        return self._ask(request, arrays, self._run_limit_s)

    def _ask(
        self, request: dict[str, Any], arrays: Sequence[NDArray[np.generic]], limit_s: float
    ) -> tuple[dict[str, Any], list[NDArray[np.generic]]]:
        process = self._started()
        answered, too_late = threading.Event(), threading.Event()

        def watch() -> None:
            idle = _IdleClock(process.pid)
            while not answered.wait(min(_LOOK_S, limit_s)):
                if idle.is_over(limit_s):
                    too_late.set()
                    process.kill()
                    return

        threading.Thread(target=watch, name="trial-watch", daemon=True).start()
        try:
            send(cast("IO[bytes]", process.stdin), request, arrays)
            answer = receive(cast("IO[bytes]", process.stdout))
        except (OSError, ValueError, KeyError, TypeError):
            answer = None
        finally:
            answered.set()
        if answer is None:
            status = self._end()
            self._crashes += _MOST_CRASHES if too_late.is_set() else 1
            how = f"did not answer within {limit_s:g} s" if too_late.is_set() else f"ended with {how_it_ended(status)}"
            raise EngineError(f"engine {self.backend}: its process {how}")
        if "error" in answer[0]:
            raise EngineError(str(answer[0]["error"])[:1000])
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            if self._crashes >= _MOST_CRASHES:
                raise EngineError(f"engine {self.backend}: its process ended {self._crashes} times")
            arguments = command("edge.bundle.trial_worker", self.backend, self._reserves)
            self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._generation += 1
        return self._process

    def _end(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                cast("IO[bytes]", pipe).close()
        try:
            return process.wait(2.0)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


class _IdleClock:
    """How long a process works on a request, and how long it has done nothing."""

    def __init__(self, process: int) -> None:
        self._stat = Path(f"/proc/{process}/stat")
        self._began_s = self._last_s = self._cpu_s()
        self._since_s = time.monotonic()

    def is_over(self, limit_s: float) -> bool:
        """Return whether the process took so much CPU time, or did nothing for so long."""
        now_s = self._cpu_s()
        if now_s > self._last_s:
            self._last_s, self._since_s = now_s, time.monotonic()
        return now_s - self._began_s >= limit_s or time.monotonic() - self._since_s >= limit_s

    def _cpu_s(self) -> float:
        """Return the CPU seconds of all threads of the process; 0 where the system does not report them."""
        try:
            fields = self._stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return 0.0


class TrialEngine:
    """A model that another process runs, with the interface of every engine."""

    def __init__(self, process: TrialProcess, request: dict[str, Any]) -> None:
        self._process, self._request = process, request
        self._id: int = request["id"]
        self._generation, header = process.load(request)
        self.where: str = request["path"]
        self.inputs: Sequence[Collection[str]] = header["inputs"]
        self.outputs: Sequence[Collection[str]] = header["outputs"]
        self.library: str = header["library"]

    def run(self, batch: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """Run the model on one batch.

        Raises:
            EngineError: it failed, crashed or hung.
        """
        self._load_again_after_a_crash()
        return self._process.ask({"do": "run", "id": self._id}, [batch])[1]

    def time_ms(self, batch: NDArray[np.generic], runs: int, *, on_cpu: int | None = None) -> list[float]:
        """Return the milliseconds of each of some runs.

        Args:
            batch: input.
            runs: number of runs.
            on_cpu: measure CPU time, on this one of the process's CPUs; None: measure wall time.

        Raises:
            EngineError: it failed, crashed or hung.
        """
        self._load_again_after_a_crash()
        request = {"do": "time", "id": self._id, "runs": runs, "on_cpu": on_cpu}
        return [float(one) for one in self._process.ask(request, [batch])[0]["ms"]]

    def _load_again_after_a_crash(self) -> None:
        if not self._process.is_running(self._generation):
            self._generation, _ = self._process.load(self._request)

    def close(self) -> None:
        """Free the model."""
        if self._process.is_running(self._generation):
            with contextlib.suppress(EngineError):
                self._process.ask({"do": "close", "id": self._id}, ())
