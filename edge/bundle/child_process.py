"""Child processes that try what was not proved: they give way to the process that serves, and end with their parent."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # of prctl(2)


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line of a child that calls `main` of a module with this process's id and the arguments.

    It is isolated: it imports the same modules as this process, whatever folder it is started in.
    """
    code = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import main; main(sys.argv[2:])"
    return [sys.executable, "-I", "-c", code, json.dumps(sys.path), str(os.getpid()), *arguments]


def be_the_first_to_die(parent: int) -> None:
    """Give way to the process that serves: in time, in memory, and when the parent ends."""
    os.nice(max(0, 10 - os.nice(0)))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that
        sys.exit(1)
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:  # not Linux, or not allowed
        return


def limit_memory(meminfo: Path = Path("/proc/meminfo")) -> None:
    """Let the kernel refuse more memory than is free now, so that a model that wants all of it fails here."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        free_bytes = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        free_bytes = min(free_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (free_bytes, hard))


def lift_memory_limit() -> None:
    """Undo `limit_memory` of a parent: CUDA reserves far more than it uses."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def take_stdout() -> int:
    """Return a descriptor for the answer, and send what native libraries print to standard error."""
    answer = os.dup(1)
    os.dup2(2, 1)
    return answer


def how_it_ended(status: int) -> str:
    """Return an exit status in words."""
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
