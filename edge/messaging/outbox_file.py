"""The SQLite file in which messages wait for the broker. The SQLite door of the outbox."""

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
_ROW_OVERHEAD_BYTES = 128  # of a row and its index entries, beside the texts
_CLOCK_SET = 1577836800.0  # 2020-01-01: a device without a battery clock boots before it, and its ages mean nothing


class FailingDiskError(OutboxError):
    """The disk is full, read-only or gone, which may pass."""


class DamagedFileError(OutboxError):
    """The file is not what was written."""


class LockedFileError(OutboxError):
    """Another process holds the file."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One message that the broker has not acknowledged."""

    sequence: int  # grows with every put, also across restarts while messages wait
    event_id: str
    topic: str
    payload: bytes
    priority: int  # higher is kept longer
    put_at: float  # Unix seconds

    @property
    def size(self) -> int:
        """What it counts for against the bounds, in bytes."""
        return len(self.payload) + len(self.topic) + 2 * len(self.event_id) + _ROW_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Totals:
    """What the file holds."""

    messages: int
    size: int  # bytes
    last_sequence: int


@dataclass(frozen=True, slots=True)
class Applied:
    """What one transaction did."""

    fresh: int  # messages whose id was not there
    dropped: tuple[tuple[str, int], ...]  # reason (age, bytes) and priority of each message given up
    totals: Totals


class OutboxFile:
    """The open file; its methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        """Open and check the file, or make a new one, and lock other processes out.

        Raises:
            LockedFileError: another process has it open.
            DamagedFileError: it is not an outbox, or damaged.
            FailingDiskError: the disk refuses.
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
        self, messages: Sequence[Waiting], acknowledged: Sequence[str], *, oldest: float, max_bytes: int
    ) -> Applied:
        """Add and delete in one transaction that survives a power cut, keeping to the bounds.

        Args:
            messages: to add; one whose id is there already is left out.
            acknowledged: ids to delete.
            oldest: messages put before this Unix time are given up.
            max_bytes: above this the least worthy are given up.

        Raises:
            FailingDiskError: nothing was changed.
            DamagedFileError: the file is of no more use.
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

    def read(self, limit: int, after: int, priority: int | None = None) -> list[Waiting]:
        """The oldest messages with a higher sequence, of one priority or of all.

        Raises:
            FailingDiskError: the disk refuses.
            DamagedFileError: the file is of no more use.
        """
        columns = "SELECT sequence, event_id, topic, payload, priority, put_at FROM message"
        with self._lock, self._mapped():
            if priority is None:
                rows = self._database.execute(
                    f"{columns} WHERE sequence > ? ORDER BY sequence LIMIT ?", (after, limit)
                ).fetchall()
            else:  # a query of its own, which the index by_worth answers
                rows = self._database.execute(
                    f"{columns} WHERE priority = ? AND sequence > ? ORDER BY sequence LIMIT ?", (priority, after, limit)
                ).fetchall()
        return [Waiting(*row) for row in rows]

    def totals(self) -> Totals:
        """What the file holds."""
        with self._lock, self._mapped():
            return self._totals()

    def close(self) -> None:
        """Let the file go; a transaction under way is undone."""
        with self._lock, contextlib.suppress(sqlite3.Error):  # a failing disk may refuse even this
            self._database.close()

    def _prepare(self) -> None:
        for pragma in (
            "locking_mode = EXCLUSIVE",
            "journal_mode = WAL",
            "synchronous = FULL",  # a commit survives a power cut, not only a crash
            "journal_size_limit = 4194304",
        ):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.executescript("BEGIN IMMEDIATE; COMMIT")  # takes the lock that keeps other processes out
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._database.executescript(_TABLES)
        elif version != _VERSION:
            raise DamagedFileError(f"outbox {self._path}: found schema version {version}, expected {_VERSION}")
        verdict = self._database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise DamagedFileError(f"outbox {self._path}: found a damaged database ({verdict}), expected a whole one")

    def _totals(self) -> Totals:
        row = self._database.execute(
            "SELECT messages, bytes, (SELECT coalesce(max(sequence), 0) FROM message) FROM total"
        ).fetchone()
        return Totals(*row)

    def _delete_old(self, oldest: float) -> list[int]:
        """Delete by age; the priority of each."""
        bounds = (_CLOCK_SET, oldest)
        found = self._database.execute("SELECT priority FROM message WHERE put_at BETWEEN ? AND ?", bounds).fetchall()
        if found:
            self._database.execute("DELETE FROM message WHERE put_at BETWEEN ? AND ?", bounds)
        return [priority for (priority,) in found]

    def _delete_excess(self, max_bytes: int) -> list[int]:
        """Delete the lowest priority, and the oldest of it, until the rest fits; the priority of each."""
        excess = self._totals().size - max_bytes
        victims: list[tuple[int, int]] = []
        rows = self._database.execute("SELECT sequence, priority, size FROM message ORDER BY priority, sequence")
        while excess > 0 and (row := rows.fetchone()):
            victims.append(row[:2])
            excess -= row[2]
        rows.close()
        self._database.executemany("DELETE FROM message WHERE sequence = ?", ((victim[0],) for victim in victims))
        return [priority for _, priority in victims]

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn SQLite's errors into ours, and undo what they interrupted."""
        try:
            yield
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error, AttributeError):  # no connection when connecting failed
                self._database.rollback()
            text = str(error)
            if "locked" in text:
                message = f"outbox {self._path}: found it open in another process, expected it free"
                raise LockedFileError(message) from error
            if any(word in text for word in ("malformed", "not a database", "corrupt")):
                raise DamagedFileError(f"outbox {self._path}: found a damaged file ({text})") from error
            raise FailingDiskError(f"outbox {self._path}: the disk refuses ({text})") from error


def move_aside(path: Path) -> Path:
    """Put a damaged file where a person can look at it; the latest only, for the disk is bounded.

    Raises:
        OutboxError: the folder refuses.
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
