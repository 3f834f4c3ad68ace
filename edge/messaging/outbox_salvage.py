"""Moves a damaged outbox file aside, and reads what is left in it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edge.durable import make_folder
from edge.messaging.outbox_file import SET_ASIDE_ROWS, DamagedFileError, FailingDiskError, OutboxMessage, SetAside

_PARTS = ("", "-wal", "-shm", "-journal")  # of a database: the file and its companions
_MAX_SEQUENCE = 2**53
_ROWS = (
    "SELECT sequence, event_id, topic, payload, priority, put_at FROM message"
    " WHERE typeof(payload) = 'blob' AND length(payload) <= 1048576 ORDER BY sequence"
)


def check_place(path: Path) -> None:
    """Check that a database can be at a path: files or nothing, and writable.

    Raises:
        DamagedFileError: something else is there, or a file that this user may not write.
        FailingDiskError: the folder cannot be written.
    """
    for suffix in _PARTS:
        part = path.with_name(path.name + suffix)
        if os.access(part, os.F_OK) and not part.is_file():
            raise DamagedFileError(f"outbox {part}: it is not a regular file")
    try:
        make_folder(path.parent)
        path.open("ab").close()
    except PermissionError as error:
        if os.access(path, os.F_OK):
            raise DamagedFileError(f"outbox {path}: no permission to write") from error
        reason = "no permission to write; give the folder to the user of `edge`"
        raise FailingDiskError(f"outbox {path}: {reason}") from error
    except OSError as error:
        raise FailingDiskError(f"outbox {path}: cannot write: {error.strerror}") from error


def move_aside(path: Path) -> Path:
    """Rename a damaged file for later inspection; only the latest is kept, to bound the disk use.

    Raises:
        FailingDiskError: the file cannot be renamed.
    """
    aside = path.with_name(path.name + ".damaged")
    try:
        for suffix in _PARTS:
            part, target = path.with_name(path.name + suffix), aside.with_name(aside.name + suffix)
            if suffix and part.exists() and not part.is_file():
                target = target.with_name(target.name + ".odd")  # where SQLite does not look for a log
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            target.unlink(missing_ok=True)
            if part.exists() or part.is_symlink():
                part.replace(target)
    except OSError as error:
        raise FailingDiskError(f"outbox {path}: cannot move it aside: {error.strerror}") from error
    return aside


def read_damaged(path: Path) -> Iterator[OutboxMessage]:
    """Yield the messages that can still be read, from both ends of the table; some may come twice."""
    if not path.is_file():  # opening a pipe would wait for ever
        return
    for mode in ("mode=ro", "immutable=1"):  # with the log and, if that cannot be read, without
        for direction in ("ASC", "DESC"):
            try:
                with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True)) as database:
                    database.text_factory = bytes
                    database.execute("PRAGMA trusted_schema = OFF")
                    for row in database.execute(f"{_ROWS} {direction}"):
                        if (message := _message(*row)) is not None:
                            yield message
            except sqlite3.Error:
                continue
            return  # all of them in one go


def read_set_aside(path: Path) -> list[SetAside]:
    """Return the messages that are set aside in the outbox of a device that does not run.

    Raises:
        FailingDiskError: the file cannot be read, or a running device has it open.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", timeout=0.1, uri=True)) as database:
            return [SetAside(*row) for row in database.execute(SET_ASIDE_ROWS)]
    except sqlite3.Error as error:
        message = f"outbox {path}: cannot read: {error}; a running device names the latest in its health report"
        raise FailingDiskError(message) from error


def _message(
    sequence: Any, event_id: Any, topic: Any, payload: Any, priority: Any, put_at: Any
) -> OutboxMessage | None:
    """Return the message of a row; None if it holds what was never written."""
    try:
        names = event_id.decode(), topic.decode()
    except (AttributeError, UnicodeDecodeError):
        return None
    numbers_fit = isinstance(sequence, int) and 0 < sequence <= _MAX_SEQUENCE and priority in (0, 1, 2)
    names_fit = all(name and name.isprintable() for name in names)
    if not (numbers_fit and names_fit and isinstance(put_at, float) and math.isfinite(put_at) and _is_whole(payload)):
        return None
    return OutboxMessage(sequence, *names, payload, priority, put_at)


def _is_whole(payload: bytes) -> bool:
    """Return whether a payload may be what was written: no lost page within, and JSON if it begins like JSON."""
    if b"\0" in payload:
        return False
    try:
        return not payload.startswith(b"{") or bool(json.loads(payload))
    except (ValueError, RecursionError):
        return False
