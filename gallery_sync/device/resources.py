"""What a device has left of disk and memory, and whether that is enough for a release."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.errors import SyncError

RESERVED_DISK_BYTES = 16 << 20  # stay free for events and logs
RESERVED_MEMORY_BYTES = 32 << 20  # stay free for everything else
_BYTES_PER_ITEM = 512  # id, label and their objects


def available_memory(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return how many bytes of memory a program can use without swapping; None where the system does not say."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None


@dataclass(frozen=True, slots=True)
class Resources:
    """Doors to the disk and the memory."""

    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free  # of the file system of a folder
    memory_bytes: Callable[[], int | None] = available_memory  # None: not known


def gallery_memory(items: int, vectors: int, dim: int) -> int:
    """Return the memory that a category needs while it is searched, in bytes: int8 vectors, scales and items."""
    return vectors * (dim + 8) + items * _BYTES_PER_ITEM


def check_resources(what: str, state_dir: Path, resources: Resources, *, disk: int, memory: int) -> None:
    """Check that a device can take a release.

    Args:
        what: the release, in messages.
        state_dir: of the device.
        resources: doors to disk and memory.
        disk: bytes that will be written.
        memory: bytes that its galleries need beside those that serve.

    Raises:
        SyncError: there is too little of one.
    """
    needed = disk + RESERVED_DISK_BYTES
    if disk and (free := resources.free_bytes(state_dir)) < needed:
        raise SyncError(f"{state_dir}: {free} bytes are free, but {what} needs {needed}; free some space")
    needed = memory + RESERVED_MEMORY_BYTES
    available = resources.memory_bytes() if memory else None
    if available is not None and available < needed:
        raise SyncError(
            f"{what} needs {needed} bytes of memory beside what serves, and {available} are available; stop other "
            "programs, or publish smaller galleries"
        )
