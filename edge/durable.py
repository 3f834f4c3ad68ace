"""Writes that survive a power cut: temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file whole: after a crash either the old or the new content is there, never a part.

    Raises:
        OSError: the disk refused; the old file is untouched.
    """
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    fsync_folder(path.parent)


def fsync_file(path: Path) -> None:
    """Flush a file that others wrote."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    fsync_file(folder)


def fsync_tree(folder: Path) -> None:
    """Flush every file and folder below, and the folder itself."""
    for entry in sorted(folder.rglob("*"), reverse=True):
        fsync_file(entry)
    fsync_folder(folder)
