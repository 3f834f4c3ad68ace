"""Starts processes that outlive the console, finds them again, and ends them. The door to the operating system."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import ConsoleError

LOG, PROCESS, EXIT = "log.txt", "process.json", "exit.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PASSED_ON = frozenset({
    "PATH", "HOME", "USER", "LOGNAME",
    "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "no_proxy", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "TORCH_HOME",
})  # fmt: skip
_PREFIXES_PASSED_ON = ("LC_", "XDG_", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "OPENBLAS_", "PYTORCH_")
_NEVER_PASSED_ON = frozenset({"FINESIGHT_FLEET_TOKEN", "FINESIGHT_HAWKBIT_TOKEN", "FINESIGHT_MQTT_PASSWORD"})


@dataclass(frozen=True, slots=True)
class Process:
    """A running process; `start` tells it from a later one with the same number."""

    pid: int
    start: int  # clock ticks since the machine started
    boot: str  # id of the machine's start


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended."""

    code: int  # negative: by that signal
    ended_at: float | None  # Unix time, seconds


def child_environment(of_console: Mapping[str, str], *, signs: bool, keys: Path | None = None) -> dict[str, str]:
    """Return the environment of a job: what programs need, and none of the console's secrets.

    Args:
        of_console: the console's own environment.
        signs: whether the job signs. Then it gets the folder of keys, and variables that keys are read from.
        keys: folder of signing keys.
    """
    passed = {
        name: value
        for name, value in of_console.items()
        if name not in _NEVER_PASSED_ON and (signs or name in _PASSED_ON or name.startswith(_PREFIXES_PASSED_ON))
    }
    passed.pop("FINESIGHT_KEYS", None)
    if signs and keys is not None:
        passed["FINESIGHT_KEYS"] = str(keys)
    return passed | {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", "PYTHONFAULTHANDLER": "1"}


def spawn(home: Path, folder: Path, command: Sequence[str], environment: Mapping[str, str]) -> Process:
    """Start a command in a session of its own; what it prints is added to the log in `home`.

    Raises:
        ConsoleError: it cannot be started.
    """
    program = [sys.executable, "-m", "console.training.child", str(home), str(folder), *command]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(home / LOG), flags, 0o666),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    reset = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE]
    try:
        pid = os.posix_spawn(
            sys.executable, program, dict(environment), file_actions=files, setsid=True, setsigmask=[], setsigdef=reset
        )
    except OSError as error:
        raise ConsoleError("busy", f"the job cannot be started: {error.strerror}") from error
    found = identity_of(pid)
    return Process(pid, int(found["start"]), str(found["boot"]))


def identity_of(pid: int) -> dict[str, int | str]:
    """Return what tells a running process from all others, for process.json."""
    return {"pid": pid, "start": _stat(pid)[1], "boot": _boot_id()}


def read_process(home: Path) -> Process | None:
    """Return the process that last ran a job; None if there was none."""
    try:
        found = json.loads((home / PROCESS).read_bytes())
        return Process(int(found["pid"]), int(found["start"]), str(found["boot"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def read_exit(home: Path) -> Exit | None:
    """Return how the command of a job ended; None if it has not, or nobody saw it."""
    try:
        found = json.loads((home / EXIT).read_bytes())
        return Exit(int(found["code"]), float(found["ended_at"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def is_alive(process: Process) -> bool:
    """Return whether a process still runs; one of ours that has ended is collected."""
    with contextlib.suppress(OSError):  # not a child of this console: of an earlier one
        if os.waitpid(process.pid, os.WNOHANG)[0] == process.pid:
            return False
    state, start = _stat(process.pid)
    return state not in ("", "Z", "X") and start == process.start and process.boot == _boot_id()


def is_of_this_boot(process: Process) -> bool:
    """Return whether the machine has not been restarted since a process was started."""
    return process.boot == _boot_id()


def send_signal(process: Process, number: signal.Signals) -> None:
    """Send a signal to the whole group of a process that runs."""
    if is_alive(process):
        with contextlib.suppress(OSError):
            os.killpg(process.pid, number)


def _stat(pid: int) -> tuple[str, int]:
    """Return the state and the start of a process: `""` and 0 if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # its name may hold anything
        return fields[0].decode(), int(fields[19])
    except (OSError, IndexError, ValueError):
        return "", 0


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
