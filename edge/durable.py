"""Writes that survive a power cut: temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path


def write_durably(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Replace a file whole: after a crash either the old or the new content is there, never a part.

    Args:
        path: the file.
        data: its new content.
        mode: its permissions, less the process's umask; 0o600 for what may hold a secret.

    Raises:
        OSError: the disk refused; the old file is untouched.
    """
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)  # a left-over one keeps its permissions
    try:
        with open(partial, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)  # a full disk is not kept full by a part of no use
        raise
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


def copy_files(source: Path, names: Iterable[str], target: Path) -> None:
    """Make a folder of copies of some files of another, flushed; what was at the target is gone.

    Raises:
        OSError: the disk refused.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
    fsync_tree(target)


def replace_folder(complete: Path, final: Path) -> None:
    """Rename a flushed folder into place: after a crash there is the old one, the new one or, for a moment, none.

    Raises:
        OSError: the disk refused.
    """
    replaced = final.with_name(f".{final.name}.old")
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        final.rename(replaced)
    complete.rename(final)
    fsync_folder(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


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
