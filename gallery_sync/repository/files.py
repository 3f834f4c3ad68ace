"""Reads and writes the small files of a repository and of its keys."""

from __future__ import annotations

from pathlib import Path

from edge.durable import make_folder, write_durably
from edge.errors import SyncError


def read_file(path: Path, most_bytes: int, advice: str = "check the path") -> bytes:
    """Read a small file.

    Args:
        path: the file.
        most_bytes: that it may have.
        advice: what to do if it is not there or too large.

    Raises:
        SyncError: it is missing, too large or cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except FileNotFoundError as error:
        raise SyncError(f"{path}: is missing; {advice}") from error
    except OSError as error:
        raise SyncError(f"{path}: cannot read: {error.strerror}") from error
    if len(data) > most_bytes:
        raise SyncError(f"{path}: larger than the limit of {most_bytes} bytes; {advice}")
    return data


def write_file(path: Path, data: bytes) -> None:
    """Write a file durably, and the folders above it.

    Raises:
        SyncError: the disk failed.
    """
    try:
        make_folder(path.parent)
        write_durably(path, data)
    except OSError as error:
        raise SyncError(f"{path}: cannot write: {error.strerror or error}; run the command again") from error
