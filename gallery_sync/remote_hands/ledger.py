"""The memory of commands on a device: which ids were carried out, their answers, and the audit; one SQLite file.

    <state>/commands.sqlite

Rules this module keeps:
1. An id is on the disk before its command is carried out, so none is carried out twice, however the process ends.
2. An answer is kept until the broker has it, and is given again to whoever sends the same id.
3. What was under way when the process ended is answered as interrupted.
4. A file that is damaged is set aside and replaced; old commands are then refused by their time, and by the time
   from which the new file remembers.
5. Both tables are bounded. What is forgotten moves that time on.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gallery_sync.state.database import (
    DamagedError,
    StateDatabase,
    open_or_replace,
    open_read_only,
    transaction,
)

log = logging.getLogger(__name__)

NAME = "commands.sqlite"
MOST_KNOWN, MOST_AUDITED = 200, 1000
_VERSION = 1
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
_LATER_TABLE = "CREATE TABLE IF NOT EXISTS remembers (since REAL NOT NULL)"  # an older agent ignores it


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


class Ledger(StateDatabase):
    """The memory of one device, see `open_ledger`. One thread uses it."""

    what = "memory of commands"

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
                self._forget_oldest(entry.at)
            self._audit(entry)

    def _forget_oldest(self, now: float) -> None:
        """Forget the oldest commands of too many, but none that is under way."""
        oldest = "SELECT id FROM known WHERE answer IS NOT NULL ORDER BY number DESC LIMIT -1 OFFSET ?"
        for (command_id,) in self._all(oldest, MOST_KNOWN):
            (ended,) = self._all("SELECT max(at) FROM audit WHERE id = ?", command_id)[0]  # None: forgotten there, too
            self._run("UPDATE remembers SET since = max(since, ?)", now if ended is None else ended)
            self._run("DELETE FROM known WHERE id = ?", command_id)

    def end(self, entry: Audited, answer: bytes) -> None:
        """Write down how a command ended that had begun.

        Raises:
            StorageError: the disk failed.
        """
        with self._transaction():
            self._run("UPDATE known SET answer = ?, delivered = 0 WHERE id = ?", answer, entry.id)
            self._audit(entry)

    def remembers_from(self) -> float:
        """Return since when every command that was carried out is known, in Unix seconds of the device's clock."""
        return float(self._all("SELECT max(since) FROM remembers")[0][0] or 0.0)

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


def open_ledger(state_dir: Path, now: float = 0.0) -> Ledger:
    """Open the memory of a device; a damaged one is set aside and replaced.

    Args:
        state_dir: of the device.
        now: Unix seconds: a new file remembers from now on.

    Raises:
        StorageError: the disk failed, or another process holds the file.
    """
    path = state_dir / NAME
    connection, damage = open_or_replace(path, Ledger.what, partial(_prepare, now=now))
    if damage is not None:
        log.warning("%s: %s; it was set aside, and a new one begins", path, damage)
    return Ledger(path, connection)


def read_audit(state_dir: Path, most: int = MOST_AUDITED) -> list[Audited]:
    """Return what became of commands, the newest first, beside a running agent; none if there was no command.

    Raises:
        SyncError: the file cannot be read.
    """
    path = state_dir / NAME
    connection = open_read_only(path, "the agent repairs it when it starts")
    if connection is None:
        return []
    ledger = Ledger(path, connection)
    try:
        return ledger.audit(most)
    finally:
        ledger.close()


def _prepare(connection: sqlite3.Connection, now: float) -> None:
    """Read everything once, or make the tables of a new file."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version not in (0, _VERSION):
        raise DamagedError(f"is of version {version}, and this agent reads version {_VERSION}")
    if version == 0:
        with transaction(connection):
            for statement in filter(str.strip, _TABLES.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            _remember_from(connection, now)
    elif not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'remembers'").fetchone():
        with transaction(connection):  # of an earlier agent: no server kept commands then
            _remember_from(connection, 0.0)
    connection.execute("SELECT since FROM remembers").fetchall()
    connection.execute("SELECT number, id, verb, who, answer, delivered FROM known").fetchall()
    connection.execute("SELECT at, who, verb, id, result, text FROM audit LIMIT 1").fetchall()


def _remember_from(connection: sqlite3.Connection, since: float) -> None:
    connection.execute(_LATER_TABLE)
    connection.execute("INSERT INTO remembers VALUES (?)", (since,))
