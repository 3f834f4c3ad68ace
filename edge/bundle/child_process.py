"""Child processes that try what was not proved: they give way to the process that serves, and end with their parent.

Such a child has no network: a filter of the kernel (seccomp) refuses every socket but those of this machine, in all of
its threads and children. Where the kernel has no such filter it moves to an empty network namespace; where that is not
allowed either, Python refuses sockets, which stops a mistake and not an attack.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import resource
import signal
import sys
from pathlib import Path
from typing import Any, Literal

_PR_SET_PDEATHSIG = 1  # of prctl(2)
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # of unshare(2)
_AF_UNIX = 1
_EAFNOSUPPORT = 97
_IO_URING_SETUP = 425  # makes sockets without socket(2)
# by machine: the architecture of its system calls as audit(7) names it, and the number of socket(2)
_SYSTEM_CALLS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198), "armv7l": (0x40000028, 281)}
_X32_BIT = 0x40000000  # of the numbers of another convention on x86_64
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # of the filter's instructions
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in what a filter sees
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | _EAFNOSUPPORT

_NICE = 10
WARM = "warm"  # an argument: the child waits, and proves a gallery alone at full speed

Wall = Literal["seccomp", "namespace", "python"]


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line of a child that calls `main` of a module with this process's id and the arguments.

    It is isolated: it imports the same modules as this process, whatever folder it is started in.
    """
    code = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import main; main(sys.argv[2:])"
    return [sys.executable, "-I", "-c", code, json.dumps(sys.path), str(os.getpid()), *arguments]


def be_the_first_to_die(parent: int, full_speed_s: float = 0.0) -> None:
    """Give way to the process that serves: in time, in memory, and when the parent ends.

    Args:
        parent: process id.
        full_speed_s: processor time that it may use before it gives way in time.
    """
    if full_speed_s > 0:
        signal.signal(signal.SIGPROF, lambda *_: give_way())
        signal.setitimer(signal.ITIMER_PROF, full_speed_s)
    else:
        give_way()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that
        sys.exit(1)
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:  # not Linux, or not allowed
        return


def give_way() -> None:
    """Lower the priority of every thread of this process. What starts later has it, too."""
    for thread in threads() or [0]:
        with contextlib.suppress(OSError):  # it has ended
            nice = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, max(_NICE, nice))


def threads(tasks: Path = Path("/proc/self/task")) -> list[int]:
    """Return the ids of the threads of this process; none if the system does not list them."""
    try:
        return [int(task.name) for task in tasks.iterdir()]
    except OSError:
        return []


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


def limit_cpu(limit_s: float, cores: int | None = None) -> None:
    """End this process once it has used so much time of every core from now on; leave no core dump on the disk."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    wanted_s = int(used.ru_utime + used.ru_stime + limit_s * (cores or os.cpu_count() or 1)) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (wanted_s if hard == resource.RLIM_INFINITY else min(wanted_s, hard), hard))
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def peak_memory_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forbid_network() -> Wall:
    """Take the network from this process, its threads and its children; call it before other threads start.

    Returns:
        what refuses it: the strongest wall that this machine allows.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if _filter_sockets(libc):
        return "seccomp"
    if libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        return "namespace"
    sys.addaudithook(_refuse_sockets)
    return "python"


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jump_true", ctypes.c_ubyte),
        ("jump_false", ctypes.c_ubyte),
        ("operand", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def _filter_sockets(libc: ctypes.CDLL) -> bool:
    """Have the kernel refuse sockets of other machines; return whether it does."""
    known = system_calls(platform.machine(), sys.maxsize)
    if known is None or sys.platform != "linux":
        return False
    instructions = socket_filter(*known)
    program = _Program(len(instructions), (_Instruction * len(instructions))(*map(_as_instruction, instructions)))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


def system_calls(machine: str, largest: int) -> tuple[int, int] | None:
    """Return the architecture of this process's system calls, and the number of socket(2); None if it is not known.

    Args:
        machine: as uname(1) names it.
        largest: integer that a pointer holds: a program of 32 bits may run on a kernel of 64.
    """
    if largest < 1 << 32:
        return _SYSTEM_CALLS["armv7l"] if machine.startswith(("arm", "aarch64")) else None
    return _SYSTEM_CALLS.get(machine) if machine != "armv7l" else None


def _as_instruction(fields: tuple[int, int, int, int]) -> _Instruction:
    return _Instruction(*fields)


def socket_filter(architecture: int, socket_number: int) -> list[tuple[int, int, int, int]]:
    """Return a filter of system calls that refuses sockets, but for those of this machine.

    Each instruction is its code, how many it skips when true and when false, and its operand.
    """
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 0, 6, architecture),  # another convention: refused
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, 4, 0, _X32_BIT),
        (_IF_EQUAL, 3, 0, _IO_URING_SETUP),
        (_IF_EQUAL, 0, 3, socket_number),  # any other call: allowed
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_IF_EQUAL, 1, 0, _AF_UNIX),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _refuse_sockets(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.__new__" and arguments[1] != _AF_UNIX:
        raise OSError(_EAFNOSUPPORT, "a proof has no network")


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
