"""The console's database: one SQLite file in a data folder.

Rules this module keeps:
1. One writer at a time; readers see the last commit and never wait for the writer (WAL).
2. What `write` has committed survives a power cut (synchronous=FULL).
3. Each room owns its tables and passes their `CREATE TABLE IF NOT EXISTS` statements when the file is opened.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.errors import ConsoleError

FILE = "console.sqlite"
VERSION = 1  # of the tables, in user_version
_WAIT_S = 30.0  # for another process that writes, such as `edge-console user add`


class Database:
    """An open database. Any thread may use it."""

    def __init__(self, path: Path, tables: Iterable[str]) -> None:
        """Open the file, and create it and its tables where they are missing; see `open_database`."""
        self.path = path
        self._lock = threading.Lock()
        self._writer = self._connect()
        self._readers: list[sqlite3.Connection] = []
        self._readers_lock = threading.Lock()
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            self._writer.close()
            raise ConsoleError("newer", f"{path}: a newer version of the console wrote it; update finesight")
        self._writer.execute("PRAGMA journal_mode=WAL")
        statements = "\n".join(tables)
        self._writer.executescript(f"BEGIN;\n{statements}\nPRAGMA user_version={VERSION};\nCOMMIT;")  # one flush

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Give a connection that sees one state of the database; rows by column name."""
        with self._readers_lock:
            connection = self._readers.pop() if self._readers else None
        if connection is None:
            connection = self._connect()
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("ROLLBACK")
            with self._readers_lock:
                self._readers.append(connection)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Give the connection of the writer; what it did is on disk afterwards, or undone by an exception.

        Raises:
            ConsoleError: the file cannot be written.
        """
        with self._lock:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                except BaseException:
                    self._writer.execute("ROLLBACK")
                    raise
                self._writer.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise ConsoleError("storage", f"{self.path}: cannot be written: {error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock, self._readers_lock:
            for connection in (*self._readers, self._writer):
                connection.close()
            self._readers.clear()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")
        return connection


def open_database(folder: Path, tables: Iterable[str]) -> Database:
    """Open the database of a data folder, or create both.

    Raises:
        ConsoleError: the folder cannot be written, or the file is no database or of a newer version.
    """
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # it holds hashes of passwords
        return Database(path, tables)
    except OSError as error:
        raise ConsoleError("storage", f"{folder}: cannot be written: {error.strerror}") from error
    except sqlite3.DatabaseError as error:
        raise ConsoleError(
            "storage", f"{path}: cannot be opened: {error}; restore a backup, or move the file away to begin again"
        ) from error
