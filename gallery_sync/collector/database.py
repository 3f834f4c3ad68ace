"""The SQLite file of the fleet's server: opened, checked, and one writer beside many readers.

Rules this module keeps:
1. A damaged file is moved aside, never deleted, and a new one begins. The broker keeps the last report of each device,
   so it fills again; the history and the audit of commands are in the file that was moved.
2. A file of a newer finesight, or of another program, is left alone: the server does not start.
3. A change is on the disk when its transaction ends.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from edge.durable import fsync_folder, make_folder
from edge.errors import SyncError, unread_format
from gallery_sync.formats.rollouts import bucket_of

log = logging.getLogger(__name__)

VERSION = 1
_APPLICATION = 0x66736674  # "fsft", so that no other program's file is taken for ours
_TABLES = """
CREATE TABLE device (
    device TEXT PRIMARY KEY, line TEXT NOT NULL, state TEXT NOT NULL, release INTEGER, engine TEXT, outcome TEXT,
    available INTEGER, first_seen REAL NOT NULL, last_seen REAL NOT NULL, epoch TEXT NOT NULL,
    revision INTEGER NOT NULL, running TEXT, trial TEXT, target INTEGER, plan TEXT, waits INTEGER NOT NULL,
    labels TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX counted ON device (line, release, state, available, engine, outcome, last_seen);
CREATE INDEX waiting ON device (line) WHERE waits;
CREATE TABLE report (device TEXT PRIMARY KEY, json TEXT NOT NULL, tries TEXT NOT NULL, earlier TEXT NOT NULL);
CREATE TABLE label (
    key TEXT NOT NULL, value TEXT NOT NULL, device TEXT NOT NULL, PRIMARY KEY (key, value, device)
) WITHOUT ROWID;
CREATE TABLE history (
    id INTEGER PRIMARY KEY, device TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL, change TEXT NOT NULL
);
CREATE INDEX history_of_device ON history (device, id);
CREATE TABLE command (
    id TEXT PRIMARY KEY, device TEXT NOT NULL, verb TEXT NOT NULL, arguments TEXT NOT NULL, by TEXT NOT NULL,
    at REAL NOT NULL, sent TEXT
);
CREATE INDEX commands_of_device ON command (device, at);
CREATE TABLE answer (
    id INTEGER PRIMARY KEY, command TEXT NOT NULL, device TEXT NOT NULL, at REAL NOT NULL, json TEXT NOT NULL
);
CREATE INDEX answers_to_command ON answer (command, id);
CREATE INDEX answers_of_device ON answer (device, id);
CREATE TABLE turn (
    device TEXT PRIMARY KEY, release INTEGER NOT NULL, plan TEXT NOT NULL, given_at REAL NOT NULL, before TEXT
);
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
_LATER_TABLES = """
CREATE TABLE IF NOT EXISTS kept (command TEXT PRIMARY KEY, device TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS kept_of_device ON kept (device);
"""  # an older server ignores them
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}) if hasattr(sqlite3, "SQLITE_CORRUPT") else None
_BUSY_S = 10.0
_PAGE_BYTES = 8192  # holds three reports or four
_MOST_IDLE = 8


class Database:
    """The open file. `writer` belongs to one thread; `reader` may be used by any."""

    def __init__(self, path: Path) -> None:
        """Open the file, or create it.

        Raises:
            SyncError: it cannot be opened, or is none of ours.
        """
        self.path = path
        self._generation = 0  # grows when the file is moved aside
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []  # readers of this generation that nobody uses
        try:
            make_folder(path.parent)
            self.writer = self._open()
        except (OSError, sqlite3.OperationalError) as error:
            raise SyncError(f"{path}: cannot open the database: {error}") from error

    def close(self) -> None:
        """Close all connections."""
        self.writer.close()
        self._forget_readers()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give the writer's thread a transaction, which ends with the block, or is undone if that raises."""
        self.writer.execute("BEGIN IMMEDIATE")
        try:
            yield self.writer
            self.writer.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self.writer.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give this thread a view of the database that does not change during the block.

        Raises:
            SyncError: the database cannot be read now.
        """
        try:
            generation, connection = self._reader()
            try:
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.close()
                raise
            self._give_back(generation, connection)
        except sqlite3.Error as error:
            raise SyncError(f"{self.path}: cannot read the database: {error}; try again in a moment") from error

    def size(self) -> int:
        """Return the bytes of the file, with what was not merged into it yet."""
        total = 0
        for suffix in ("", "-wal"):
            with contextlib.suppress(OSError):
                total += self.path.with_name(self.path.name + suffix).stat().st_size
        return total

    def start_over(self) -> Path:
        """Move the damaged file aside and begin with an empty one; return where the damaged one is.

        Raises:
            OSError: the disk failed.
            sqlite3.Error: likewise.
        """
        with contextlib.suppress(sqlite3.Error):
            self.writer.close()
        aside = _set_aside(self.path)
        self.writer = self._open()
        self._forget_readers()
        return aside

    def _open(self) -> sqlite3.Connection:
        connection = self._connect(self.path)
        try:
            if self._is_whole(connection):
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        _set_aside(self.path)
        connection = self._connect(self.path)
        self._is_whole(connection)
        return connection

    def _is_whole(self, connection: sqlite3.Connection) -> bool:
        """Check the file, or make its tables; return False if it is damaged."""
        try:
            version, application = (_number(connection, name) for name in ("user_version", "application_id"))
            if application not in (0, _APPLICATION) or (not application and _tables(connection)):
                raise SyncError(f"{self.path}: is the database of another program; choose another --database")
            if version > VERSION:
                raise SyncError(f"{self.path}: {unread_format(version, VERSION)}")
            connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")  # of a new file
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA cache_size = -65536")
            if not application:
                connection.executescript(
                    f"BEGIN; {_TABLES} {_LATER_TABLES} PRAGMA user_version = {VERSION}; "
                    f"PRAGMA application_id = {_APPLICATION}; COMMIT;"
                )
                fsync_folder(self.path.parent)
                return True
            found: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found == "ok":
                connection.executescript(_LATER_TABLES)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            found = str(error)
        if found != "ok":
            log.error("%s: the database is damaged: %s", self.path, found.splitlines()[0][:200])
        return found == "ok"

    def _reader(self) -> tuple[int, sqlite3.Connection]:
        with self._lock:
            if self._idle:
                return self._generation, self._idle.pop()
            generation = self._generation
        connection = self._connect(self.path)
        connection.execute("PRAGMA query_only = ON")
        connection.create_function("bucket_of", 2, bucket_of, deterministic=True)  # of rollouts
        return generation, connection

    def _give_back(self, generation: int, connection: sqlite3.Connection) -> None:
        with self._lock:
            if generation == self._generation and len(self._idle) < _MOST_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def _forget_readers(self) -> None:
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error says that the file is damaged, not that the disk is full or busy."""
    code = getattr(error, "sqlite_errorcode", None)  # from Python 3.11 on
    if code is not None and _DAMAGED is not None:
        return (code & 0xFF) in _DAMAGED
    return "malformed" in str(error) or "not a database" in str(error)


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _tables(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    fsync_folder(path.parent)
    log.error("%s: damaged, so it is now %s, and the server starts with an empty database", path, aside)
    log.error("the broker sends the last report of each device again; history and commands are in the damaged file")
    return aside
