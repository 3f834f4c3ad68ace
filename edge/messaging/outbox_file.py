"""The SQLite file of the outbox. The only module here that imports sqlite3."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import OutboxError

log = logging.getLogger(__name__)

_VERSION = 1
_TABLES = """
BEGIN;
CREATE TABLE message (
    sequence INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    priority INTEGER NOT NULL,
    put_at REAL NOT NULL,
    size INTEGER NOT NULL
);
CREATE INDEX by_worth ON message (priority, sequence);
CREATE INDEX by_age ON message (put_at);
CREATE TABLE total (messages INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO total VALUES (0, 0);
CREATE TRIGGER count_in AFTER INSERT ON message BEGIN
    UPDATE total SET messages = messages + 1, bytes = bytes + new.size;
END;
CREATE TRIGGER count_out AFTER DELETE ON message BEGIN
    UPDATE total SET messages = messages - 1, bytes = bytes - old.size;
END;
PRAGMA user_version = 1;
COMMIT;
"""
_ROW_OVERHEAD_BYTES = 128  # of a row and its index entries, without the texts
_CLOCK_SET = 1577836800.0  # 2020-01-01: a device without a battery clock boots before it, so its ages mean nothing


class FailingDiskError(OutboxError):
    """The disk is full, read-only or gone; a retry may succeed."""


class DamagedFileError(OutboxError):
    """The file is damaged, or not an outbox."""


class LockedFileError(OutboxError):
    """Another process holds the file."""


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """One message that the broker has not acknowledged."""

    sequence: int  # grows with every put, across restarts too while messages wait
    event_id: str
    topic: str
    payload: bytes
    priority: int  # higher is kept longer
    put_at: float  # Unix seconds

    @property
    def size(self) -> int:
        """Its bytes as counted against the bounds."""
        return len(self.payload) + len(self.topic) + 2 * len(self.event_id) + _ROW_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals of the file."""

    messages: int
    size: int  # bytes
    last_sequence: int


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of one transaction."""

    fresh: int  # messages whose id was new
    dropped: tuple[tuple[str, int], ...]  # reason (age, bytes) and priority of each dropped message
    totals: Totals


class OutboxFile:
    """The open file; thread-safe."""

    def __init__(self, path: Path) -> None:
        """Open and check the file, or create it, and lock it against other processes.

        Raises:
            LockedFileError: another process has it open.
            DamagedFileError: the file is damaged, or not an outbox.
            FailingDiskError: the disk failed.
        """
        self._path = path
        self._lock = threading.Lock()
        with self._mapped():
            self._database = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self.close()
                raise

    def apply(
        self, messages: Sequence[OutboxMessage], acknowledged: Sequence[str], *, oldest: float, max_bytes: int
    ) -> Applied:
        """Add and delete messages in one transaction that survives a power cut, and enforce the bounds.

        Args:
            messages: to add; a duplicate id is skipped.
            acknowledged: ids to delete.
            oldest: messages put before this Unix time are dropped.
            max_bytes: above this, the oldest of the lowest priority are dropped.

        Raises:
            FailingDiskError: nothing was changed.
            DamagedFileError: the file must be replaced.
        """
        with self._lock, self._mapped():
            self._database.execute("BEGIN IMMEDIATE")
            before = self._totals().messages
            self._database.executemany(
                "INSERT OR IGNORE INTO message VALUES (?, ?, ?, ?, ?, ?, ?)",
                ((m.sequence, m.event_id, m.topic, m.payload, m.priority, m.put_at, m.size) for m in messages),
            )
            fresh = self._totals().messages - before
            self._database.executemany("DELETE FROM message WHERE event_id = ?", ((key,) for key in acknowledged))
            dropped = [("age", priority) for priority in self._delete_old(oldest)]
            dropped += [("bytes", priority) for priority in self._delete_excess(max_bytes)]
            totals = self._totals()
            self._database.execute("COMMIT")
            return Applied(fresh, tuple(dropped), totals)

    def read(self, limit: int, after: int, priority: int | None = None) -> list[OutboxMessage]:
        """Return the oldest messages with a higher sequence, of one priority or of all.

        Raises:
            FailingDiskError: the disk failed.
            DamagedFileError: the file must be replaced.
        """
        columns = "SELECT sequence, event_id, topic, payload, priority, put_at FROM message"
        with self._lock, self._mapped():
            if priority is None:
                rows = self._database.execute(
                    f"{columns} WHERE sequence > ? ORDER BY sequence LIMIT ?", (after, limit)
                ).fetchall()
            else:  # a separate query that can use the index by_worth
                rows = self._database.execute(
                    f"{columns} WHERE priority = ? AND sequence > ? ORDER BY sequence LIMIT ?", (priority, after, limit)
                ).fetchall()
        return [OutboxMessage(*row) for row in rows]

    def totals(self) -> Totals:
        """Return the totals of the file."""
        with self._lock, self._mapped():
            return self._totals()

    def close(self) -> None:
        """Close the file; an open transaction is rolled back."""
        with self._lock, contextlib.suppress(sqlite3.Error):  # may fail on a failing disk
            self._database.close()

    def _prepare(self) -> None:
        for pragma in (
            "locking_mode = EXCLUSIVE",
            "journal_mode = WAL",
            "synchronous = FULL",  # a commit survives a power cut, not only a crash
            "journal_size_limit = 4194304",
        ):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.executescript("BEGIN IMMEDIATE; COMMIT")  # takes the lock against other processes
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._database.executescript(_TABLES)
        elif version != _VERSION:
            raise DamagedFileError(f"outbox {self._path}: found schema version {version}, expected {_VERSION}")
        result = self._database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if result != "ok":
            raise DamagedFileError(f"outbox {self._path}: the database is damaged ({result})")

    def _totals(self) -> Totals:
        row = self._database.execute(
            "SELECT messages, bytes, (SELECT coalesce(max(sequence), 0) FROM message) FROM total"
        ).fetchone()
        return Totals(*row)

    def _delete_old(self, oldest: float) -> list[int]:
        """Delete old messages; return the priority of each."""
        bounds = (_CLOCK_SET, oldest)
        found = self._database.execute("SELECT priority FROM message WHERE put_at BETWEEN ? AND ?", bounds).fetchall()
        if found:
            self._database.execute("DELETE FROM message WHERE put_at BETWEEN ? AND ?", bounds)
        return [priority for (priority,) in found]

    def _delete_excess(self, max_bytes: int) -> list[int]:
        """Delete the oldest of the lowest priority until the rest fits; return the priority of each."""
        excess = self._totals().size - max_bytes
        dropped: list[tuple[int, int]] = []
        rows = self._database.execute("SELECT sequence, priority, size FROM message ORDER BY priority, sequence")
        while excess > 0 and (row := rows.fetchone()):
            dropped.append(row[:2])
            excess -= row[2]
        rows.close()
        self._database.executemany("DELETE FROM message WHERE sequence = ?", ((sequence,) for sequence, _ in dropped))
        return [priority for _, priority in dropped]

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn SQLite errors into this module's and roll back the interrupted transaction."""
        try:
            yield
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error, AttributeError):  # no connection when connecting failed
                self._database.rollback()
            text = str(error)
            if "locked" in text:
                message = f"outbox {self._path}: open in another process; stop the other `edge` first"
                raise LockedFileError(message) from error
            if any(word in text for word in ("malformed", "not a database", "corrupt")):
                raise DamagedFileError(f"outbox {self._path}: the file is damaged ({text})") from error
            raise FailingDiskError(f"outbox {self._path}: disk error ({text})") from error


def move_aside(path: Path) -> Path:
    """Rename a damaged file for later inspection; only the latest is kept, to bound the disk use.

    Raises:
        FailingDiskError: the file cannot be renamed.
    """
    aside = path.with_name(path.name + ".damaged")
    try:
        for suffix in ("", "-wal", "-shm"):
            part, target = path.with_name(path.name + suffix), aside.with_name(aside.name + suffix)
            target.unlink(missing_ok=True)
            if part.exists():
                part.replace(target)
    except OSError as error:
        raise FailingDiskError(f"outbox {path}: cannot move it aside: {error.strerror}") from error
    return aside
