"""The lock of a data folder: one console runs on it at a time. The kernel frees it when the process ends, however."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from edge.errors import ConsoleError

FILE = "console.lock"


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a data folder, which is created if there is none.

    Raises:
        ConsoleError: a console runs on it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / FILE).open("ab")
    except OSError as error:
        raise ConsoleError("storage", f"{folder}: cannot be written: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConsoleError("busy", f"{folder}: a console runs on it; stop that one first") from error
        yield
