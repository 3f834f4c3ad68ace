"""The SQLite file of the outbox. The only module here that imports sqlite3."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.durable import fsync_folder
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
# beside the tables of version 1, which an older release ignores
_SET_ASIDE = """
CREATE TABLE IF NOT EXISTS set_aside (
    sequence INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    priority INTEGER NOT NULL,
    reason TEXT NOT NULL,
    set_aside_at REAL NOT NULL
);
"""
SET_ASIDE_ROWS = "SELECT event_id, topic, length(payload), reason, set_aside_at FROM set_aside ORDER BY sequence"
_MOST_SET_ASIDE = 200  # messages; the oldest are dropped
_OBJECTS = {"message", "total", "by_worth", "by_age", "count_in", "count_out"}
_WRONG_TYPES = """
SELECT count(*) FROM message WHERE typeof(event_id) != 'text' OR typeof(topic) != 'text' OR typeof(payload) != 'blob'
OR typeof(priority) != 'integer' OR typeof(put_at) != 'real' OR typeof(size) != 'integer' OR sequence < 1
OR sequence > 1 << 53
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
class SetAside:
    """One message that the broker cannot take, kept for people."""

    event_id: str
    topic: str
    size: int  # bytes of its payload
    reason: str
    at: float  # Unix seconds

    def __str__(self) -> str:
        """Name it, for people."""
        return f"event {self.event_id} on {self.topic}, {self.size} bytes: {self.reason}"


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
    dropped: tuple[tuple[str, int], ...]  # reason (age, bytes, set_aside) and priority of each dropped message
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
        self,
        messages: Sequence[OutboxMessage],
        finished: Mapping[str, SetAside | None],
        *,
        oldest: float,
        max_bytes: int,
    ) -> Applied:
        """Add and delete messages in one transaction that survives a power cut, and enforce the bounds.

        Args:
            messages: to add; a duplicate id is skipped.
            finished: ids to delete; with a value, the message moves to those that are set aside.
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
            dropped = [("set_aside", priority) for priority in self._set_aside(finished)]
            self._database.executemany("DELETE FROM message WHERE event_id = ?", ((key,) for key in finished))
            dropped += [("age", priority) for priority in self._delete_old(oldest)]
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

    def set_aside(self) -> list[SetAside]:
        """Return the messages that are set aside, the oldest first."""
        with self._lock, self._mapped():
            return [SetAside(*row) for row in self._database.execute(SET_ASIDE_ROWS)]

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
            "trusted_schema = OFF",
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
            raise DamagedFileError(f"outbox {self._path}: the database is damaged ({' '.join(str(result).split())})")
        self._check_content()
        self._database.executescript(_SET_ASIDE)
        fsync_folder(self._path.parent)  # else a power cut may take the names of the file and of its log

    def _check_content(self) -> None:
        """Check what SQLite does not: its tables are ours, and hold what we would write."""
        names = "SELECT name FROM sqlite_master WHERE type IN ('table', 'index', 'trigger') AND sql IS NOT NULL"
        missing = _OBJECTS - {name for (name,) in self._database.execute(names)}
        if missing:
            raise DamagedFileError(f"outbox {self._path}: {', '.join(sorted(missing))} is missing")
        if wrong := self._database.execute(_WRONG_TYPES).fetchone()[0]:
            raise DamagedFileError(f"outbox {self._path}: {wrong} messages hold values of a wrong type")
        for names in self._database.execute("SELECT CAST(event_id AS BLOB), CAST(topic AS BLOB) FROM message"):
            try:
                b"".join(names).decode()
            except UnicodeDecodeError as error:
                raise DamagedFileError(f"outbox {self._path}: a message holds text that is not UTF-8") from error
        found = self._database.execute("SELECT count(*), coalesce(sum(size), 0) FROM message").fetchone()
        if self._database.execute("SELECT messages, bytes FROM total").fetchall() != [found]:
            raise DamagedFileError(f"outbox {self._path}: the totals are wrong")

    def _totals(self) -> Totals:
        row = self._database.execute(
            "SELECT messages, bytes, (SELECT coalesce(max(sequence), 0) FROM message) FROM total"
        ).fetchone()
        return Totals(*row)

    def _set_aside(self, finished: Mapping[str, SetAside | None]) -> list[int]:
        """Copy messages to those set aside; return the priority of each that is dropped for it."""
        copy = "INSERT OR REPLACE INTO set_aside SELECT sequence, event_id, topic, payload, priority, ?, ? FROM message"
        for event_id, aside in finished.items():
            if aside is not None:
                self._database.execute(f"{copy} WHERE event_id = ?", (aside.reason, aside.at, event_id))
        excess = self._database.execute("SELECT count(*) FROM set_aside").fetchone()[0] - _MOST_SET_ASIDE
        if excess <= 0:
            return []
        oldest = "SELECT sequence, priority FROM set_aside ORDER BY set_aside_at, sequence LIMIT ?"
        dropped = self._database.execute(oldest, (excess,)).fetchall()
        self._database.executemany("DELETE FROM set_aside WHERE sequence = ?", ((row[0],) for row in dropped))
        return [priority for _, priority in dropped]

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
        """Turn errors of SQLite and the disk into this module's and roll back the interrupted transaction."""
        try:
            yield
        except OSError as error:
            raise FailingDiskError(f"outbox {self._path}: disk error ({error.strerror})") from error
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error, AttributeError):  # no connection when connecting failed
                self._database.rollback()
            text = str(error)
            if "locked" in text:
                message = f"outbox {self._path}: open in another process; stop the other `edge` first"
                raise LockedFileError(message) from error
            # an OperationalError is one of the disk, unless the file holds what no outbox writes
            odd = ("malformed", "unsupported file format", "no such", "could not decode", "has no column", "is not")
            if not isinstance(error, sqlite3.OperationalError) or any(word in text.lower() for word in odd):
                raise DamagedFileError(f"outbox {self._path}: the file is damaged ({text})") from error
            raise FailingDiskError(f"outbox {self._path}: disk error ({text})") from error
