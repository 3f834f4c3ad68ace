"""Durable file operations: writes and renames that survive a power cut, and SHA-256 checks."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def write_durably(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Replace a file atomically: after a crash it holds either the old or the new content.

    Args:
        path: the file.
        data: its new content.
        mode: its permissions, before the umask of the process; use 0o600 for secrets.

    Raises:
        OSError: the write failed; the old file is unchanged.
    """
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)  # a leftover would keep its permissions
    try:
        with open(partial, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)  # a useless part must not keep a full disk full
        raise
    fsync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, if they do not exist; their names survive a power cut.

    Raises:
        OSError: one cannot be made.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in new:
        fsync_folder(path.parent)


def set_aside(path: Path) -> bool:
    """Rename what is in the place of a file and is none: a folder, a link, a pipe; return whether there was such.

    A link is renamed itself, wherever it points.

    Raises:
        OSError: it cannot be renamed.
    """
    try:
        if stat.S_ISREG(path.lstat().st_mode):
            return False
    except FileNotFoundError:
        return False
    path.rename(path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}"))
    return True


def oldest_first(folder: Path, pattern: str) -> list[tuple[Path, int]]:
    """Return the files of a folder and their bytes, the one that changed longest ago first; skip those that vanish."""
    found = []
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            about = path.stat()
            found.append((about.st_mtime_ns, path, about.st_size))
    return [(path, size) for _, path, size in sorted(found)]


def fsync_file(path: Path) -> None:
    """Flush a file to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(folder: Path) -> None:
    """Flush the entries of a folder, so that a rename in it survives a power cut."""
    fsync_file(folder)


def fsync_tree(folder: Path) -> None:
    """Flush a folder and everything below it."""
    for entry in sorted(folder.rglob("*"), reverse=True):
        fsync_file(entry)
    fsync_folder(folder)


def copy_files(source: Path, names: Iterable[str], target: Path) -> None:
    """Replace a folder with flushed, read-only copies of some files of another folder.

    Raises:
        OSError: a file cannot be read or written.
    """
    shutil.rmtree(target, ignore_errors=True)
    make_folder(target)
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
        (target / name).chmod(0o444)
    fsync_tree(target)


def replace_file(complete: Path, final: Path) -> None:
    """Flush a file and rename it into place. A crash leaves either the old file or the new one.

    Raises:
        OSError: it cannot be flushed or renamed.
    """
    fsync_file(complete)
    complete.replace(final)
    fsync_folder(final.parent)


def replace_folder(complete: Path, final: Path) -> None:
    """Rename a flushed folder into place. A crash leaves the old folder, the new one or, for a moment, neither.

    Raises:
        OSError: a rename failed.
    """
    replaced = final.with_name(f".{final.name}.old")
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        final.rename(replaced)
    complete.rename(final)
    fsync_folder(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal, without loading it into memory.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def file_mismatch(path: Path, size: int, sha256: str) -> str | None:
    """Return how a file differs from its expected size and hash, or None when it matches."""
    try:
        if path.is_symlink() or not path.is_file():
            what = "is a link" if path.is_symlink() else "is not a file" if path.exists() else "does not exist"
            return f"{path}: {what}; it must be a regular file"
        if (found_size := path.stat().st_size) != size:
            return f"{path}: found {found_size} bytes, expected {size}"
        if (found := sha256_of(path)) != sha256:
            return f"{path}: found SHA-256 {found}, expected {sha256}"
    except OSError as error:
        return f"{path}: cannot read: {error.strerror}"
    return None
