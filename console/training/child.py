"""Runs the command of a job and writes how it ended: `python -m console.training.child HOME FOLDER COMMAND`.

Rules this module keeps:
1. It outlives the console. Whoever starts later reads process.json, and exit.json once the command has ended.
2. Signals go to the whole process group. They end the command, never this process: it still has to write exit.json.
3. One at a time for each HOME: a second one ends at once, and changes nothing.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from console.training.processes import EXIT, PROCESS, identity_of
from edge.durable import write_durably

_LOCKED = 75  # EX_TEMPFAIL
_NOT_FOUND = 127  # as of a shell
_PR_SET_PDEATHSIG = 1  # of prctl(2)


def main(argv: Sequence[str]) -> int:
    """Run the command of a job in its folder; return its exit status."""
    home, command = Path(argv[0]), list(argv[2:])
    folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return _LOCKED
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # a handler, not SIG_IGN, which the command would inherit
    (home / EXIT).unlink(missing_ok=True)
    write_durably(home / PROCESS, json.dumps(identity_of(os.getpid())).encode())
    code = _run(command, argv[1])
    write_durably(home / EXIT, json.dumps({"code": code, "ended_at": time.time()}).encode())
    return code if code >= 0 else 128 - code


def _run(command: list[str], folder: str) -> int:
    try:
        child = subprocess.Popen(command, cwd=folder, preexec_fn=_die_with_parent)  # noqa: PLW1509  one thread
    except OSError as error:
        print(f"{command[0]}: cannot be started: {error.strerror}", file=sys.stderr, flush=True)
        return _NOT_FOUND
    return child.wait()


def _die_with_parent() -> None:
    """Have the kernel kill the command if this process is killed: a command that nobody waits for is lost."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
