"""Files and folders that a pull writes: always new, never through a link, never somebody else's.

Rules this module keeps:
1. A file is created with O_EXCL and O_NOFOLLOW. Nothing that exists is opened for writing, but a part of a download.
2. A part is a regular file of this user with one name. Anything else under its name is removed, not followed.
3. What is in the way is removed as what it is: a link, never what it points to.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_CHUNK_BYTES = 1 << 20


def create_new(path: Path) -> BinaryIO:
    """Create a file for writing.

    Raises:
        OSError: something has this name, or the disk failed.
    """
    return open(path, "xb", opener=_opener(0o600))


def copy_new(source: Path, target: Path) -> None:
    """Copy a regular file to a new name; the two never share bytes that can be written.

    Raises:
        OSError: the source is a link, something has the new name, or the disk failed.
    """
    with open(source, "rb", opener=_opener(0)) as readable, create_new(target) as file:
        shutil.copyfileobj(readable, file, _CHUNK_BYTES)


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Hold the lock of `flock(2)` on a file, which the kernel releases however its holder ends.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the file cannot be opened.
    """
    clear_lock(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def clear_lock(path: Path) -> None:
    """Remove what has the name of a lock file and is none: a link, a folder, a pipe; give this user access to a file.

    Raises:
        OSError: it belongs to another user.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            remove(path)
        elif not os.access(path, os.R_OK | os.W_OK):
            path.chmod(0o640)


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Read a regular file, at most so many bytes and one; a pipe or a link does not hold the reader.

    Raises:
        OSError: it is no regular file, or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        return file.read(most_bytes + 1)


def remove(path: Path) -> bool:
    """Remove a file, a link or a folder with its content; return whether anything had the name.

    Raises:
        OSError: it belongs to another user, or the disk failed.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        shutil.rmtree(path)
    else:
        path.unlink()
    return True


def make_private_folder(path: Path) -> bool:
    """Make sure that a path is a folder of this user; return whether something else had to be removed.

    Raises:
        OSError: it cannot be made.
    """
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode) and _is_own(found):
            if found.st_mode & stat.S_IRWXU != stat.S_IRWXU:
                path.chmod(stat.S_IRWXU)
            return False
    removed = remove(path)
    path.mkdir(parents=True)
    return removed


def part_size(path: Path, most_bytes: int) -> int:
    """Return how many bytes of a download are there; remove what cannot be one, or is longer."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    own_file = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and _is_own(found)
    if own_file and found.st_size <= most_bytes:
        if found.st_mode & stat.S_IRUSR == 0 or found.st_mode & stat.S_IWUSR == 0:
            path.chmod(0o600)
        return found.st_size
    remove(path)
    return 0


def open_part(path: Path, had: int) -> BinaryIO:
    """Open a part that `part_size` measured to append to it, or a new one when nothing was there.

    Raises:
        OSError: something has this name, or the disk failed.
    """
    if had:
        return open(path, "ab", opener=_opener(0o600))
    remove(path)
    return create_new(path)


def _is_own(found: os.stat_result) -> bool:
    return os.geteuid() in (found.st_uid, 0)


def _opener(mode: int) -> Callable[[str, int], int]:
    return lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
