"""Small SQLite databases in the state folder of a device: opened, checked and, where damaged, replaced, all alike.

Rules this module keeps:
1. A change is one transaction, and is on the disk when it ends (synchronous EXTRA, which is FULL and also flushes the
   folder).
2. The rollback mode is DELETE, not WAL: one file holds everything, and a lost or damaged `-wal` file cannot take back
   what was stored.
3. A damaged database is set aside, with what SQLite keeps beside it, and an empty one begins. A few are kept.
4. A full disk or a lock is no damage: it is an error, and the file stays.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from edge.durable import fsync_folder, make_folder, set_aside
from edge.errors import SyncError
from gallery_sync.transport.errors import StorageError

_LARGEST_BYTES = 64 << 20
_MOST_DAMAGED = 3  # kept for the support
_BESIDE = ("-journal", "-wal", "-shm")  # a hot journal would be applied to the new file
_TIMEOUT_S = 5.0

Prepare = Callable[[sqlite3.Connection], None]  # makes or checks the tables; raises DamagedError or sqlite3.Error


class DamagedError(Exception):
    """A file is no database that this version reads; the text says why."""


class StateDatabase:
    """One open database."""

    what: ClassVar[str] = "database"  # its name in messages

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Use an open connection, see `open_or_replace` and `open_read_only`."""
        self._path, self._connection = path, connection

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _all(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._mapped():
            return self._connection.execute(sql, values).fetchall()

    def _run(self, sql: str, *values: object) -> None:
        self._connection.execute(sql, values)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._mapped(), transaction(self._connection):
            yield

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: cannot read or write the {self.what}: {error}") from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what happens inside, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def open_or_replace(path: Path, what: str, prepare: Prepare) -> tuple[sqlite3.Connection, str | None]:
    """Open a database, and replace a damaged one by an empty one.

    Args:
        path: of the file.
        what: its name in messages.
        prepare: makes the tables of an empty database, and checks those of any other.

    Returns:
        The connection; and what was wrong with the file, None if nothing was.

    Raises:
        StorageError: the disk failed, or another process holds the file.
    """
    try:
        make_folder(path.parent)
        damage = "was no file" if set_aside(path) else None
        try:
            return _open(path, prepare), damage
        except DamagedError as error:
            damage = str(error)
        _replace(path)
        return _open(path, prepare), damage
    except (OSError, sqlite3.Error, DamagedError) as error:
        raise StorageError(f"{path}: cannot open the {what}: {error}; free some space, or check the disk") from error


def open_read_only(path: Path, advice: str) -> sqlite3.Connection | None:
    """Open a database beside the process that writes it; None if there is none.

    Raises:
        SyncError: it cannot be read; `advice` says what to do.
    """
    if not path.is_file():
        return None
    connection: sqlite3.Connection | None = None
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=_TIMEOUT_S, isolation_level=None)
        connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise SyncError(f"{path}: cannot be read: {error}; {advice}") from error
    return connection


def _open(path: Path, prepare: Prepare) -> sqlite3.Connection:
    if path.exists() and path.stat().st_size > _LARGEST_BYTES:
        raise DamagedError(f"is larger than {_LARGEST_BYTES} bytes")
    connection = sqlite3.connect(path, timeout=_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("PRAGMA trusted_schema = OFF")
        _check_pages(connection)
        prepare(connection)
    except sqlite3.DatabaseError as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError) and not _is_damage(error):
            raise  # a full disk, a lock
        raise DamagedError(f"is damaged ({error})") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _check_pages(connection: sqlite3.Connection) -> None:
    if (found := connection.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
        raise DamagedError(f"is damaged ({str(found)[:100]})")


def _is_damage(error: sqlite3.OperationalError) -> bool:
    return any(words in str(error) for words in ("malformed", "no such table", "no such column"))


def _replace(path: Path) -> None:
    path.replace(path.with_name(f"{path.name}.damaged-{path.stat().st_mtime_ns:x}"))
    for suffix in _BESIDE:
        beside = path.with_name(f"{path.name}{suffix}")
        set_aside(beside)
        beside.unlink(missing_ok=True)
    fsync_folder(path.parent)
    kept = sorted(path.parent.glob(f"{path.name}.damaged-*"), key=lambda one: one.lstat().st_mtime_ns)
    for old in kept[:-_MOST_DAMAGED]:
        if old.is_file():
            old.unlink(missing_ok=True)
