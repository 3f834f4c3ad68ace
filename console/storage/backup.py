"""Backups of a console's database: one SQLite file. Pictures lie elsewhere, and are not part of it.

Rules this module keeps:
1. No file is ever overwritten: a backup needs a new name, and what a restore replaces is kept under another name.
2. A backup is complete or not there; after a power cut, a data folder holds either the old database or the new one.
3. Nothing is restored that is damaged, is of no console or of a newer one, or while a console runs.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from console.storage.database import FILE, VERSION
from console.storage.folder_lock import locked_folder
from edge.durable import fsync_file, fsync_folder
from edge.errors import ConsoleError

_NEEDED_TABLES = frozenset({"audit", "sets", "pictures", "crops"})


def back_up(folder: Path, target: Path) -> int:
    """Copy the database of a data folder to a new file, and return its bytes. A console may run meanwhile.

    Raises:
        ConsoleError: there is no database, it is damaged, the file is there already, or it cannot be written.
    """
    source = folder / FILE
    if not source.is_file():
        raise ConsoleError("not_found", f"{source}: there is no console's database; name its folder with --data")
    if target.exists():
        raise ConsoleError("conflict", f"{target}: is there already; choose a new name")
    partial = target.with_name(f".{target.name}.partial")
    with _storage_errors(target):
        partial.unlink(missing_ok=True)
        try:
            _copy(source, partial)
            check_backup(partial)
            fsync_file(partial)
            os.link(partial, target)
        except FileExistsError as error:
            raise ConsoleError("conflict", f"{target}: is there already; choose a new name") from error
        finally:
            partial.unlink(missing_ok=True)
        fsync_folder(target.absolute().parent)
        return target.stat().st_size


def restore(folder: Path, backup: Path) -> Path | None:
    """Put a backup in the place of a data folder's database, and return where the replaced one is, if there was one.

    All sessions end: people log in again.

    Raises:
        ConsoleError: the backup cannot be used, a console runs on the folder, or it cannot be written.
    """
    check_backup(backup)
    with locked_folder(folder), _storage_errors(folder):
        database, partial = folder / FILE, folder / f".{FILE}.partial"
        partial.unlink(missing_ok=True)
        try:
            _copy(backup, partial)
            _end_sessions(partial)
            check_backup(partial)
            fsync_file(partial)
            kept = _keep(database) if database.exists() else None
            partial.replace(database)
        finally:
            partial.unlink(missing_ok=True)
        fsync_folder(folder)
        return kept


def check_backup(path: Path) -> None:
    """Check that a file is a whole database of a console.

    Raises:
        ConsoleError: it is not.
    """
    if not path.is_file():
        raise ConsoleError("not_found", f"{path}: there is no such file")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as rows:
            names = {row[0] for row in rows.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            found = rows.execute("PRAGMA integrity_check(1)").fetchone()[0]
            version = rows.execute("PRAGMA user_version").fetchone()[0]
            orphan = rows.execute("PRAGMA foreign_key_check").fetchone()
    except sqlite3.Error as error:
        raise ConsoleError("invalid", f"{path}: is no database that can be read: {error}") from error
    if not names >= _NEEDED_TABLES:
        raise ConsoleError("invalid", f"{path}: is no backup of a console")
    if version > VERSION:
        raise ConsoleError("newer", f"{path}: a newer version of the console wrote it; update finesight")
    if found != "ok" or orphan is not None:
        raise ConsoleError("invalid", f"{path}: is damaged ({found}); use another backup")


def _copy(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment, with what its log holds."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # it holds hashes of passwords
    with (
        contextlib.closing(sqlite3.connect(source, timeout=30.0)) as rows,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        rows.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it


def _end_sessions(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sessions'").fetchone():
            connection.execute("DELETE FROM sessions")


def _keep(database: Path) -> Path:
    """Give the present database a second name, with all that its log holds."""
    number = 1
    while (kept := database.with_name(f"{FILE}.replaced-{number}")).exists():
        number += 1
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in ("-wal", "-shm"):  # only of one that cannot be opened any more
        log = database.with_name(database.name + suffix)
        if log.exists():
            log.rename(kept.with_name(kept.name + suffix))
    os.link(database, kept)
    return kept


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConsoleError("storage", f"{path}: cannot be written: {error.strerror}") from error
    except sqlite3.Error as error:
        raise ConsoleError("storage", f"{path}: {error}") from error
