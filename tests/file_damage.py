"""What a disk that lies, or a person, may do to a single file."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path


def truncate(path: Path) -> None:
    data = path.read_bytes()
    replace(path, data[: len(data) // 2])


def empty(path: Path) -> None:
    replace(path, b"")


def scramble(path: Path) -> None:
    replace(path, random.Random(path.name).randbytes(max(64, path.stat().st_size)))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes() or b"\0")
    data[len(data) // 2] ^= 0x40
    replace(path, bytes(data))


def remove(path: Path) -> None:
    path.unlink()


def make_folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


DAMAGES: tuple[Callable[[Path], None], ...] = (truncate, empty, scramble, flip, remove, make_folder, dangle)


def replace(path: Path, data: bytes) -> None:
    """Write a new file in place of one: installed files are read-only."""
    path.unlink()
    path.write_bytes(data)
