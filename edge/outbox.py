"""The durable queue of messages that wait for the broker.

Rules:
1. `put` never waits for the disk. A thread commits what came in the last few milliseconds as one transaction (WAL, synced).
2. A message the broker acknowledges before its commit never touches the disk: flash lives longer.
3. A disk that fails (full, read-only, gone) is counted and tried again; until then messages wait, and are sent, from memory.
4. Memory and disk are bounded. The lowest priority goes first, the oldest of it; every message dropped is counted.
5. A damaged file is moved aside, never repaired, never a reason not to start.
6. One process at a time: the file is locked while it is open.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from edge.errors import OutboxError
from edge.health import Counters

log = logging.getLogger(__name__)

_VERSION = 1
_TABLES = f"""
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
PRAGMA user_version = {_VERSION};
"""
_ROW_OVERHEAD_BYTES = 128  # of a row and its index entries, beside the texts
_CLOCK_SET = 1577836800.0  # 2020-01-01: a device without a battery clock boots before it, and its ages mean nothing
_IDLE_S = 60.0  # ages are looked at this often when nothing comes in
_RETRY_S = 1.0  # between two tries of a failing disk


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


class Outbox:
    """Messages in the order of their arrival, kept until acknowledged, on disk across restarts and power cuts."""

    def __init__(
        self,
        path: Path,
        counters: Counters,
        *,
        max_bytes: int = 64 * 1024 * 1024,
        max_age_s: float = 7 * 24 * 3600.0,
        max_memory_bytes: int = 8 * 1024 * 1024,
        commit_interval_s: float = 0.005,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Open the file, or start a new one.

        Args:
            path: the SQLite file.
            counters: where drops and failures are counted.
            max_bytes: of all messages on disk.
            max_age_s: older messages are dropped.
            max_memory_bytes: of the messages not yet on disk.
            commit_interval_s: how long the writer gathers messages for one commit.
            now: the wall clock.

        Raises:
            OutboxError: the folder cannot be written or another process holds the file.
        """
        self._path, self._counters, self._now = path, counters, now
        self._max_bytes, self._max_age_s, self._max_memory_bytes = max_bytes, max_age_s, max_memory_bytes
        self._commit_interval_s = commit_interval_s

        self._lock = threading.Lock()  # guards the fields below; never held during disk work
        self._unstored: dict[str, Waiting] = {}  # by event id, in the order of their sequence
        self._unstored_bytes = 0
        self._acknowledged: set[str] = set()  # on disk, to be deleted
        self._taken_up_to = 0  # what the writer has seen
        self._stored_up_to = 0
        self._stored_count = 0
        self._stored_bytes = 0
        self._failing = False
        self._rounds = 0  # the writer's finished tries
        self._listener: Callable[[], None] = lambda: None

        self._file_lock = threading.Lock()  # guards the connection
        self._file = self._open_at_start()
        self._sequence = self._stored_up_to
        self._wake = threading.Event()
        self._round_over = threading.Condition()
        self._closing = threading.Event()
        self._writer = threading.Thread(target=self._write_until_closed, name="outbox", daemon=True)
        self._writer.start()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def put(self, topic: str, payload: bytes, priority: int, event_id: str) -> None:
        """Keep a message until it is acknowledged. Returns at once; an id that waits already is ignored."""
        with self._lock:
            if event_id in self._unstored:
                self._counters.add("outbox_duplicates")
                return
            self._sequence += 1
            message = Waiting(self._sequence, event_id, topic, payload, priority, self._now())
            self._unstored[event_id] = message
            self._unstored_bytes += message.size
            while self._unstored_bytes > self._max_memory_bytes:
                worst = min(self._unstored.values(), key=lambda waiting: (waiting.priority, waiting.sequence))
                self._forget(worst.event_id)
                self._counters.add("outbox_dropped", reason="memory", priority=str(worst.priority))
        self._wake.set()
        self._listener()

    def pending(self, limit: int, after: int = 0) -> list[Waiting]:
        """The oldest messages not yet acknowledged.

        Args:
            limit: how many at most.
            after: only those with a higher sequence.
        """
        with self._lock:  # memory first: a message that moves to disk meanwhile is seen twice, never missed
            unstored = [message for message in self._unstored.values() if message.sequence > after]
            gone = set(self._acknowledged)
            look_on_disk = after < self._stored_up_to
        stored = self._read(limit + len(gone), after) if look_on_disk else []
        waiting = {message.event_id: message for message in chain(unstored, stored) if message.event_id not in gone}
        return sorted(waiting.values(), key=lambda message: message.sequence)[:limit]

    def acknowledge(self, event_ids: Iterable[str]) -> None:
        """Let go of messages that have arrived. Returns at once."""
        with self._lock:
            for event_id in event_ids:
                message = self._unstored.get(event_id)
                if message is None or message.sequence <= self._taken_up_to:
                    self._acknowledged.add(event_id)
                if message is not None:
                    self._forget(event_id)
        self._wake.set()

    def watch(self, listener: Callable[[], None]) -> None:
        """Call this after every put, from the thread that puts: it must return at once."""
        self._listener = listener

    @property
    def last_sequence(self) -> int:
        """The sequence of the latest put; 0 before the first."""
        with self._lock:
            return self._sequence

    def depth(self) -> tuple[int, int]:
        """Messages that wait, and their bytes."""
        with self._lock:
            events = self._stored_count - len(self._acknowledged) + len(self._unstored)
            return max(events, 0), self._stored_bytes + self._unstored_bytes

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until the writer has tried everything that was put or acknowledged before.

        Returns:
            Whether it is all on disk.
        """
        with self._round_over:
            wanted = self._rounds + 2  # the round under way may have begun before
            self._wake.set()
            self._round_over.wait_for(lambda: self._rounds >= wanted or not self._unfinished(), timeout_s)
        return not self._unfinished()

    def close(self) -> None:
        """Commit what is left and let the file go."""
        self._closing.set()
        self._wake.set()
        self._writer.join()
        with self._file_lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _unfinished(self) -> bool:
        with self._lock:
            return bool(self._unstored or self._acknowledged)

    def _forget(self, event_id: str) -> None:
        """Drop a message from memory; with the lock held."""
        message = self._unstored.pop(event_id, None)
        if message is not None:
            self._unstored_bytes -= message.size

    # the writer thread

    def _write_until_closed(self) -> None:
        while True:
            self._wake.wait(_IDLE_S)
            closing = self._closing.is_set()
            if not closing:
                self._closing.wait(_RETRY_S if self._failing else self._commit_interval_s)
            self._wake.clear()
            try:
                self._write()
            except sqlite3.Error as error:
                self._take_note_of(error)
            except Exception:
                log.exception("outbox %s: the writer stumbled", self._path)
                self._counters.add("outbox_errors")
                self._failing = True
            if self._failing:
                self._wake.set()
            with self._round_over:
                self._rounds += 1
                self._round_over.notify_all()
            if closing:
                return

    def _write(self) -> None:
        """Bring the disk up to date, in one transaction."""
        with self._lock:
            messages, acknowledged = list(self._unstored.values()), list(self._acknowledged)
            self._taken_up_to = self._sequence
        with self._file_lock:
            if self._file is None:
                self._file = self._open_file()
            self._file.execute("BEGIN IMMEDIATE")
            fresh = self._insert(self._file, messages)
            self._file.executemany("DELETE FROM message WHERE event_id = ?", ((event_id,) for event_id in acknowledged))
            dropped = self._drop_old(self._file) + self._drop_excess(self._file)
            self._file.execute("COMMIT")
            count, size, _ = _totals(self._file)
        with self._lock:
            for message in messages:
                self._forget(message.event_id)
            self._acknowledged.difference_update(acknowledged)
            self._stored_count, self._stored_bytes = count, size
            if messages:
                self._stored_up_to = messages[-1].sequence
        # counted when it is certain: a transaction that fails is tried again
        self._counters.add("outbox_stored", fresh)
        if fresh < len(messages):
            self._counters.add("outbox_duplicates", len(messages) - fresh)
        for reason, priority in dropped:
            self._counters.add("outbox_dropped", reason=reason, priority=str(priority))
        if self._failing:
            self._failing = False
            log.info("outbox %s: the disk works again", self._path)

    def _insert(self, file: sqlite3.Connection, messages: list[Waiting]) -> int:
        """Add the messages whose id is not there yet; how many those are."""
        before = file.total_changes
        file.executemany(
            "INSERT OR IGNORE INTO message VALUES (?, ?, ?, ?, ?, ?, ?)",
            ((m.sequence, m.event_id, m.topic, m.payload, m.priority, m.put_at, m.size) for m in messages),
        )
        return file.total_changes - before

    def _drop_old(self, file: sqlite3.Connection) -> list[tuple[str, int]]:
        """Delete what is older than allowed; reason and priority of each."""
        oldest = self._now() - self._max_age_s
        found = file.execute(
            "SELECT priority FROM message WHERE put_at BETWEEN ? AND ?", (_CLOCK_SET, oldest)
        ).fetchall()
        if found:
            file.execute("DELETE FROM message WHERE put_at BETWEEN ? AND ?", (_CLOCK_SET, oldest))
        return [("age", priority) for (priority,) in found]

    def _drop_excess(self, file: sqlite3.Connection) -> list[tuple[str, int]]:
        """Delete the least worthy until the rest fits; reason and priority of each."""
        _, size, _ = _totals(file)
        victims: list[tuple[int]] = []
        dropped: list[tuple[str, int]] = []
        if size > self._max_bytes:
            for sequence, priority, row_size in file.execute(
                "SELECT sequence, priority, size FROM message ORDER BY priority, sequence"
            ):
                victims.append((sequence,))
                dropped.append(("bytes", priority))
                size -= row_size
                if size <= self._max_bytes:
                    break
            file.executemany("DELETE FROM message WHERE sequence = ?", victims)
        return dropped

    def _take_note_of(self, error: sqlite3.Error) -> None:
        """Count a failure of the disk; give up the file if it is damaged."""
        damaged = _is_damage(error)
        self._counters.add("outbox_disk_errors")
        if not self._failing:
            log.warning("outbox %s: %s; messages wait in memory", self._path, error)
        self._failing = True
        with self._file_lock:
            if self._file is not None:
                _close_quietly(self._file)
                self._file = None
            if damaged:
                self._move_aside(str(error))

    # the file

    def _open_at_start(self) -> sqlite3.Connection | None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._open_file()
        except OSError as error:
            raise OutboxError(f"outbox {self._path}: cannot make the folder: {error.strerror}") from error
        except sqlite3.Error as error:
            if _is_damage(error):
                self._move_aside(str(error))
                return self._open_file()
            if "full" in str(error) or "I/O" in str(error):
                self._counters.add("outbox_disk_errors")
                self._failing = True
                log.warning("outbox %s: %s; messages wait in memory", self._path, error)
                return None
            if "locked" in str(error):
                raise OutboxError(f"outbox {self._path}: found it open in another process, expected it free") from error
            raise OutboxError(f"outbox {self._path}: cannot open: {error}") from error

    def _open_file(self) -> sqlite3.Connection:
        """Connect, check and read the totals."""
        file = sqlite3.connect(self._path, timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            file.execute("PRAGMA locking_mode = EXCLUSIVE")
            file.execute("PRAGMA journal_mode = WAL")
            file.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut, not only a crash
            file.execute("PRAGMA journal_size_limit = 4194304")
            file.execute("BEGIN IMMEDIATE")  # takes the lock that keeps other processes out
            file.execute("COMMIT")
            version = file.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                file.executescript(_TABLES)
            elif version != _VERSION:
                raise sqlite3.DatabaseError(f"malformed: found schema version {version}, expected {_VERSION}")
            verdict = file.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(f"malformed: {verdict}")
            self._stored_count, self._stored_bytes, self._stored_up_to = _totals(file)
        except sqlite3.Error:
            _close_quietly(file)
            raise
        return file

    def _move_aside(self, found: str) -> None:
        """Put a damaged file where a person can look at it. Only the latest is kept: the disk is bounded."""
        aside = self._path.with_name(self._path.name + ".damaged")
        for suffix in ("", "-wal", "-shm"):
            part = self._path.with_name(self._path.name + suffix)
            if part.exists():
                part.replace(aside.with_name(aside.name + suffix))
        self._counters.add("outbox_damaged")
        log.error("outbox %s: found %s; moved it to %s and started a new one", self._path, found, aside.name)

    def _read(self, limit: int, after: int) -> list[Waiting]:
        """The oldest messages on disk; none while the disk fails, the writer takes care of that."""
        with self._file_lock:
            if self._file is None:
                return []
            try:
                rows = self._file.execute(
                    "SELECT sequence, event_id, topic, payload, priority, put_at FROM message"
                    " WHERE sequence > ? ORDER BY sequence LIMIT ?",
                    (after, limit),
                ).fetchall()
            except sqlite3.Error as error:
                self._counters.add("outbox_disk_errors")
                log.warning("outbox %s: cannot read: %s", self._path, error)
                return []
        return [Waiting(*row) for row in rows]


def _totals(file: sqlite3.Connection) -> tuple[int, int, int]:
    """Messages, their bytes, and the highest sequence."""
    count, size, last = file.execute(
        "SELECT count(*), coalesce(sum(size), 0), coalesce(max(sequence), 0) FROM message"
    ).fetchone()
    return count, size, last


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is bad, rather than the disk below it."""
    return any(word in str(error) for word in ("malformed", "not a database", "corrupt"))


def _close_quietly(file: sqlite3.Connection) -> None:
    try:
        file.close()
    except sqlite3.Error:
        log.debug("outbox: closing failed", exc_info=True)
