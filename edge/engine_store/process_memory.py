"""Memory of the machine and of this process's heap, as Linux and glibc report it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

_MALLINFO2 = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"  # of mallinfo2(3)


class _MallInfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _MALLINFO2.split()]


def heap_bytes() -> int | None:
    """Return the bytes that this process has allocated with malloc; None where the C library does not report them.

    Unlike resident memory, it does not count what was freed and not given back to the system.
    """
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)  # glibc 2.33
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _MallInfo2
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


def release_heap() -> None:
    """Give freed memory back to the system: a millisecond or less. Other C libraries than glibc have no such call."""
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)


def default_budget_bytes() -> int | None:
    """Return a quarter of the memory that this process may use; None where the system does not report it.

    A new bundle is loaded beside the active one: both together leave half to cameras, galleries and the system.
    """
    usable = usable_bytes()
    return None if usable is None else usable // 4


def usable_bytes(
    meminfo: Path = Path("/proc/meminfo"),
    cgroup: Path = Path("/proc/self/cgroup"),
    cgroups: Path = Path("/sys/fs/cgroup"),
) -> int | None:
    """Return the memory that this process may use: of the machine, or of its service or container if that is less.

    None where the system does not report it.
    """
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        found = int(lines["MemTotal"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None
    return min([found, *_limits(cgroup, cgroups)])


def _limits(cgroup: Path, cgroups: Path) -> Iterator[int]:
    """Yield the limits of the control groups (version 2) that this process is in."""
    try:
        lines = cgroup.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    own = next((line[len("0::/") :] for line in lines if line.startswith("0::/")), "")
    folder = cgroups / own
    for level in (folder, *folder.parents):
        if not level.is_relative_to(cgroups):
            return
        for name in ("memory.max", "memory.high"):
            try:
                yield int((level / name).read_text(encoding="ascii"))
            except (OSError, ValueError):  # no limit: "max"
                continue
