"""A file's size and SHA-256, and what is wrong with a file that should have them."""

from __future__ import annotations

import hashlib
from pathlib import Path

_CHUNK = 1 << 20


def sha256_of(path: Path) -> str:
    """Hash a file without holding it in memory.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def mismatch(path: Path, size: int, sha256: str) -> str | None:
    """Say how a file differs from what was promised, None when it does not."""
    try:
        if path.is_symlink() or not path.is_file():
            what = "a link" if path.is_symlink() else "something else" if path.exists() else "nothing"
            return f"{path}: found {what}, expected a regular file"
        if (found_size := path.stat().st_size) != size:
            return f"{path}: found {found_size} bytes, expected {size}"
        if (found := sha256_of(path)) != sha256:
            return f"{path}: found SHA-256 {found}, expected {sha256}"
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror}"
    return None
