"""The memory of commands on a device: which ids were carried out, their answers, and the audit; one SQLite file.

    <state>/commands.sqlite

Rules this module keeps:
1. An id is on the disk before its command is carried out, so none is carried out twice, however the process ends.
2. An answer is kept until the broker has it, and is given again to whoever sends the same id.
3. What was under way when the process ended is answered as interrupted.
4. A file that is damaged is set aside and replaced; old commands are then refused by their time.
5. Both tables are bounded.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.durable import fsync_folder, make_folder, set_aside
from edge.errors import SyncError
from gallery_sync.transport.errors import StorageError

log = logging.getLogger(__name__)

NAME = "commands.sqlite"
MOST_KNOWN, MOST_AUDITED = 200, 1000
_VERSION = 1
_LARGEST_BYTES = 64 << 20
_TABLES = """
    CREATE TABLE known (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, verb TEXT NOT NULL, who TEXT NOT NULL,
        answer BLOB, delivered INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE audit (
        number INTEGER PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL, verb TEXT NOT NULL, id TEXT NOT NULL,
        result TEXT NOT NULL, text TEXT NOT NULL
    )
"""


@dataclass(frozen=True, slots=True)
class Audited:
    """What became of one command, at one time."""

    at: float  # Unix seconds
    who: str
    verb: str
    id: str  # of the command; empty: it had none that can be read
    result: str  # accepted, done, refused or failed
    text: str


@dataclass(frozen=True, slots=True)
class Known:
    """A command whose id is known."""

    id: str
    verb: str
    who: str
    answer: bytes | None  # None: it is under way


class Ledger:
    """The memory of one device. One thread uses it."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Use `open_ledger`."""
        self._path, self._connection = path, connection

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def known(self, command_id: str) -> Known | None:
        """Return a command by its id; None: it is a new one."""
        found = self._all("SELECT id, verb, who, answer FROM known WHERE id = ?", command_id)
        return Known(*found[0]) if found else None

    def begin(self, entry: Audited, answer: bytes | None = None) -> None:
        """Write down a command: one that is about to be carried out, or one that is not.

        Args:
            entry: for the audit. Without an id, it is in the audit alone.
            answer: of a command that is not carried out; None: it is.

        Raises:
            StorageError: the disk failed; do not carry it out.
        """
        with self._transaction():
            if entry.id:
                values = (entry.id, entry.verb, entry.who, answer)
                self._run("INSERT INTO known (id, verb, who, answer) VALUES (?, ?, ?, ?)", *values)
                # what is under way is never forgotten
                oldest = "SELECT number FROM known WHERE answer IS NOT NULL ORDER BY number DESC LIMIT -1 OFFSET ?"
                self._run(f"DELETE FROM known WHERE number IN ({oldest})", MOST_KNOWN)  # noqa: S608  no value in it
            self._audit(entry)

    def end(self, entry: Audited, answer: bytes) -> None:
        """Write down how a command ended that had begun.

        Raises:
            StorageError: the disk failed.
        """
        with self._transaction():
            self._run("UPDATE known SET answer = ?, delivered = 0 WHERE id = ?", answer, entry.id)
            self._audit(entry)

    def interrupted(self) -> list[Known]:
        """Return the commands that were under way when the process ended."""
        return [Known(*row) for row in self._all("SELECT id, verb, who, answer FROM known WHERE answer IS NULL")]

    def undelivered(self) -> list[tuple[str, bytes]]:
        """Return the ids and answers that the broker does not have yet, the oldest first."""
        sql = "SELECT id, answer FROM known WHERE answer IS NOT NULL AND delivered = 0 ORDER BY number"
        return [(command_id, answer) for command_id, answer in self._all(sql)]

    def delivered(self, ids: Iterable[str]) -> None:
        """Note that the broker has the answers to some commands.

        Raises:
            StorageError: the disk failed.
        """
        with self._transaction():
            for command_id in ids:
                self._run("UPDATE known SET delivered = 1 WHERE id = ? AND answer IS NOT NULL", command_id)

    def audit(self, most: int = MOST_AUDITED) -> list[Audited]:
        """Return what became of commands, the newest first."""
        sql = "SELECT at, who, verb, id, result, text FROM audit ORDER BY number DESC LIMIT ?"
        return [Audited(*row) for row in self._all(sql, most)]

    def _audit(self, one: Audited) -> None:
        values = (one.at, one.who, one.verb, one.id, one.result, one.text)
        self._run("INSERT INTO audit (at, who, verb, id, result, text) VALUES (?, ?, ?, ?, ?, ?)", *values)
        self._run("DELETE FROM audit WHERE number <= (SELECT MAX(number) FROM audit) - ?", MOST_AUDITED)

    def _all(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._mapped():
            return self._connection.execute(sql, values).fetchall()

    def _run(self, sql: str, *values: object) -> None:
        self._connection.execute(sql, values)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._mapped():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: cannot read or write the memory of commands: {error}") from error


def open_ledger(state_dir: Path) -> Ledger:
    """Open the memory of a device; a damaged one is set aside and replaced.

    Raises:
        StorageError: the disk failed, or another process holds the file.
    """
    path = state_dir / NAME
    try:
        make_folder(state_dir)
        set_aside(path)
        try:
            connection = _open(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
                raise  # a full disk, a lock
            log.warning("%s: is damaged (%s); it was set aside, and a new one begins", path, error)
            _replace(path)
            connection = _open(path)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"{path}: cannot open the memory of commands: {error}; check the disk") from error
    return Ledger(path, connection)


def read_audit(state_dir: Path, most: int = MOST_AUDITED) -> list[Audited]:
    """Return what became of commands, the newest first, beside a running agent; none if there was no command.

    Raises:
        SyncError: the file cannot be read.
    """
    path = state_dir / NAME
    if not path.is_file():
        return []
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0, isolation_level=None)
    except sqlite3.Error as error:
        raise SyncError(f"{path}: cannot be read: {error}") from error
    ledger = Ledger(path, connection)
    try:
        return ledger.audit(most)
    finally:
        ledger.close()


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = DELETE")  # see gallery_sync.agent.journal
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("PRAGMA trusted_schema = OFF")
        _check(path, connection)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError) and "no such" in str(error):
            raise sqlite3.DatabaseError(str(error)) from error
        raise
    return connection


def _check(path: Path, connection: sqlite3.Connection) -> None:
    """Read everything once, or make the tables of a new file."""
    if path.stat().st_size > _LARGEST_BYTES:
        raise sqlite3.DatabaseError(f"is larger than {_LARGEST_BYTES} bytes")
    if (found := connection.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
        raise sqlite3.DatabaseError(str(found)[:100])
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version not in (0, _VERSION):
        raise sqlite3.DatabaseError(f"version {version}, and this agent reads version {_VERSION}")
    if version == 0:
        _make_tables(connection)
    connection.execute("SELECT number, id, verb, who, answer, delivered FROM known").fetchall()
    connection.execute("SELECT at, who, verb, id, result, text FROM audit LIMIT 1").fetchall()


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in filter(str.strip, _TABLES.split(";")):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {_VERSION}")
    connection.execute("COMMIT")


def _replace(path: Path) -> None:
    """Set a file aside, and remove what SQLite keeps beside it, which would be applied to the new one."""
    path.replace(path.with_name(f"{NAME}.damaged"))
    for suffix in ("-journal", "-wal", "-shm"):
        beside = path.with_name(f"{NAME}{suffix}")
        set_aside(beside)
        beside.unlink(missing_ok=True)
    fsync_folder(path.parent)
