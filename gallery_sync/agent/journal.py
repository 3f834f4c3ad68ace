"""The journal of the update agent: what is under way, what is held back, and what happened; one SQLite file.

Rules this module keeps:
1. A step is one transaction: task, quarantine and history change together or not at all. It is on the disk when the
   call returns, see gallery_sync.state.database. A dozen stores a release need no more speed than that.
2. A journal that is damaged, or written by a newer version, is set aside and replaced by an empty one, and the report
   says so. The agent rebuilds the task of an empty journal from the pointer, and the quarantine from its last report.
3. A journal of an older version is brought up to date in one transaction. A column that an older agent can do without
   is added without another version: after a way back to an older package, that reads the journal as it did.
4. Every table is bounded.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge.errors import SyncError
from gallery_sync.agent.machine import Ended, Held, State, Step, Target, Task
from gallery_sync.state.database import (
    DamagedError,
    StateDatabase,
    open_or_replace,
    open_read_only,
    transaction,
)
from gallery_sync.transport.retry_ledger import Failures

log = logging.getLogger(__name__)

NAME = "journal.sqlite"
VERSION = 3
MOST_ENDED, MOST_RECEIPTS, MOST_HELD, MOST_DAYS, MOST_FAILURES = 100, 1000, 100, 40, 5000

# Version 1: task, quarantine, history. 2: byte spend and receipts. 3: objects that a server did not give.
_MIGRATIONS = (
    """
    CREATE TABLE task (only INTEGER PRIMARY KEY CHECK (only = 1), content TEXT NOT NULL);
    CREATE TABLE quarantine (
        line TEXT NOT NULL, sequence INTEGER NOT NULL, reason TEXT NOT NULL, count INTEGER NOT NULL, until REAL,
        PRIMARY KEY (line, sequence)
    ) WITHOUT ROWID;
    CREATE TABLE history (
        id INTEGER PRIMARY KEY, at REAL NOT NULL, line TEXT NOT NULL, sequence INTEGER NOT NULL,
        bundle_id TEXT NOT NULL, gallery_sequence INTEGER NOT NULL, outcome TEXT NOT NULL, reason TEXT, trial TEXT
    );
    """,
    """
    CREATE TABLE spent (day TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE receipts (
        category TEXT NOT NULL, sequence INTEGER NOT NULL, items INTEGER NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (category, sequence)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE failures (
        sha256 TEXT PRIMARY KEY, count INTEGER NOT NULL, again_at REAL NOT NULL, reason TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
)
_ADDED = (("history", "plan", "TEXT"),)  # columns, which an older agent leaves empty
_SOUND = {  # what each row keeps to
    "quarantine": "typeof(sequence) = 'integer' AND sequence >= 0 AND count >= 1 AND typeof(until) IN ('real', 'null')",
    "spent": "typeof(bytes) = 'integer' AND bytes >= 0",
    "receipts": "typeof(sequence) = 'integer' AND typeof(items) = 'integer'",
    "failures": "typeof(count) = 'integer' AND typeof(again_at) = 'real'",
}


@dataclass(frozen=True, slots=True)
class Receipt:
    """An urgent deletion that this device carried out, in every gallery that it has."""

    category: str
    sequence: int  # gallery sequence of the deletion
    items: int  # that were deleted
    at: float  # Unix seconds


@dataclass(frozen=True, slots=True)
class Past:
    """How a try of a release ended."""

    at: float  # Unix seconds
    line: str
    sequence: int
    bundle_id: str
    gallery_sequence: int
    outcome: str  # as in machine.Ended
    reason: str | None
    trial: str | None
    plan: str | None = None  # the rollout that brought the release


class Journal(StateDatabase):
    """The journal of one device. One process uses it at a time."""

    what = "journal"

    def __init__(self, path: Path, told: str | None, connection: sqlite3.Connection) -> None:
        """Use `open_journal`."""
        super().__init__(path, connection)
        self.told = told  # what was wrong with the journal; None: nothing, or there was none

    @property
    def is_empty(self) -> bool:
        """Whether no task was ever stored: a new device, or a journal that is lost."""
        return not self._all("SELECT 1 FROM task")

    def task(self) -> Task:
        """Return the task; an idle one if none was stored.

        Raises:
            StorageError: the disk failed.
        """
        found = self._all("SELECT content FROM task")
        return _read_task(found[0][0]) if found else Task()

    def store(self, step: Step, now: float) -> None:
        """Write down a step: its task, and what enters the quarantine and the history.

        Args:
            step: to write down.
            now: Unix seconds.

        Raises:
            StorageError: the disk failed; nothing was written.
        """
        with self._transaction():
            self._run("INSERT OR REPLACE INTO task VALUES (1, ?)", _write_task(step.task))
            if step.hold is not None:
                self._hold(step.hold)
            if step.ended is not None:
                self._add_past(step.ended, now)

    def _hold(self, held: Held) -> None:
        self._run(
            "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?)",
            held.line,
            held.sequence,
            held.reason,
            held.count,
            held.until,
        )
        newest = "SELECT sequence FROM quarantine ORDER BY sequence DESC LIMIT ?"
        self._run(f"DELETE FROM quarantine WHERE sequence NOT IN ({newest})", MOST_HELD)  # noqa: S608 - no value in it

    def _add_past(self, ended: Ended, now: float) -> None:
        one = ended.release
        self._run(
            "INSERT INTO history (at, line, sequence, bundle_id, gallery_sequence, outcome, reason, trial, plan) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            now,
            one.line,
            one.sequence,
            one.bundle_id,
            one.gallery_sequence,
            ended.outcome,
            ended.reason,
            ended.trial,
            one.plan,
        )
        self._run("DELETE FROM history WHERE id <= (SELECT MAX(id) FROM history) - ?", MOST_ENDED)
        if ended.outcome == "confirmed":  # a newer release clears the quarantine
            self._run("DELETE FROM quarantine WHERE line = ? AND sequence <= ?", one.line, one.sequence)

    def held(self, release: Target | None) -> Held | None:
        """Return the quarantine of a release; None if it is not held."""
        if release is None:
            return None
        return next((one for one in self.all_held() if (one.line, one.sequence) == _key(release)), None)

    def all_held(self) -> list[Held]:
        """Return all releases in quarantine, the newest last; also those whose time is over."""
        return [Held(*row) for row in self._all("SELECT line, sequence, reason, count, until FROM quarantine")]

    def hold(self, held: Iterable[Held]) -> None:
        """Put releases into the quarantine, as a rebuilt journal does.

        Raises:
            StorageError: the disk failed.
        """
        with self._transaction():
            for one in held:
                self._hold(one)

    def clear_quarantine(self) -> int:
        """Release all from the quarantine, and return how many they were.

        Raises:
            StorageError: the disk failed.
        """
        with self._transaction():
            count = len(self.all_held())
            self._run("DELETE FROM quarantine")
            task = self.task()
            if task.state is State.IDLE:
                self._run("INSERT OR REPLACE INTO task VALUES (1, ?)", _write_task(Task(since=task.since)))
        return count

    def history(self, most: int = MOST_ENDED) -> list[Past]:
        """Return how the last tries ended, the newest first."""
        plan = "plan" if "plan" in self._columns("history") else "NULL"  # `status` reads what an older agent left
        columns = f"at, line, sequence, bundle_id, gallery_sequence, outcome, reason, trial, {plan}"
        return [Past(*row) for row in self._all(f"SELECT {columns} FROM history ORDER BY id DESC LIMIT ?", most)]  # noqa: S608

    def add_receipts(self, receipts: Iterable[Receipt]) -> None:
        """Write down urgent deletions that were carried out; one that is known already is kept as it is.

        Raises:
            StorageError: the disk failed.
        """
        with self._transaction():
            for one in receipts:
                self._run(
                    "INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?)", one.category, one.sequence, one.items, one.at
                )
            newest = "SELECT category, sequence FROM receipts ORDER BY at DESC, sequence DESC LIMIT ?"
            self._run(f"DELETE FROM receipts WHERE (category, sequence) NOT IN ({newest})", MOST_RECEIPTS)  # noqa: S608

    def receipts(self, most: int = MOST_RECEIPTS) -> list[Receipt]:
        """Return the newest deletions that were carried out, the newest first."""
        sql = "SELECT category, sequence, items, at FROM receipts ORDER BY at DESC, sequence DESC LIMIT ?"
        return [Receipt(*row) for row in self._all(sql, most)]

    def spent(self, day: str) -> int:
        """Return the bytes of downloads on a day such as 2026-11-28."""
        found = self._all("SELECT bytes FROM spent WHERE day = ?", day)
        return int(found[0][0]) if found else 0

    def add(self, day: str, count: int) -> None:
        """Add to the bytes of downloads on a day.

        Raises:
            StorageError: the disk failed.
        """
        with self._transaction():
            self._run(
                "INSERT INTO spent VALUES (?, ?) ON CONFLICT (day) DO UPDATE SET bytes = bytes + excluded.bytes",
                day,
                count,
            )
            self._run("DELETE FROM spent WHERE day NOT IN (SELECT day FROM spent ORDER BY day DESC LIMIT ?)", MOST_DAYS)

    def failures(self, sha256: str) -> Failures | None:
        """Return the failures of an object that a server did not give; None if there are none."""
        found = self._all("SELECT count, again_at, reason FROM failures WHERE sha256 = ?", sha256)
        return Failures(*found[0]) if found else None

    def put_failures(self, sha256: str, failures: Failures | None) -> None:
        """Replace the failures of an object; None: forget them.

        Raises:
            StorageError: the disk failed.
        """
        with self._transaction():
            self._run("DELETE FROM failures WHERE sha256 = ?", sha256)
            if failures is not None:
                one = failures
                self._run("INSERT INTO failures VALUES (?, ?, ?, ?)", sha256, one.count, one.again_at_s, one.reason)
                newest = "SELECT sha256 FROM failures ORDER BY again_at DESC LIMIT ?"
                self._run(f"DELETE FROM failures WHERE sha256 NOT IN ({newest})", MOST_FAILURES)  # noqa: S608

    def _columns(self, table: str) -> set[str]:
        return {row[1] for row in self._all(f"PRAGMA table_info({table})")}


def open_journal(state_dir: Path) -> Journal:
    """Open the journal of a device; a damaged one is set aside and replaced.

    Raises:
        StorageError: the disk failed, or another process holds the journal.
    """
    path = state_dir / NAME
    connection, damage = open_or_replace(path, Journal.what, _prepare)
    told = None
    if damage is not None:
        told = f"{path}: {damage}; it was set aside, and a new one is rebuilt from the pointers"
        log.warning("%s", told)
    return Journal(path, told, connection)


def read_journal(state_dir: Path) -> Journal | None:
    """Open the journal to read it, as `status` does; None if there is none.

    Raises:
        SyncError: it cannot be read.
    """
    path = state_dir / NAME
    connection = open_read_only(path, "the agent repairs it when it starts")
    if connection is None:
        return None
    if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
        connection.close()
        raise SyncError(f"{path}: is of another version; start the agent once")
    return Journal(path, None, connection)


def _prepare(connection: sqlite3.Connection) -> None:
    _migrate(connection)
    _check_content(connection)


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring a journal up to date in one transaction; a new file is a journal of version 0."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if not 0 <= version <= VERSION:
        raise DamagedError(f"is of version {version}, and this agent reads up to {VERSION}")
    missing = [one for one in _ADDED if version < VERSION or one[1] not in _columns(connection, one[0])]
    if version == VERSION and not missing:
        return
    with transaction(connection):
        for migration in _MIGRATIONS[version:]:
            for statement in filter(str.strip, migration.split(";")):
                connection.execute(statement)
        for table, column, kind in missing:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
        connection.execute(f"PRAGMA user_version = {VERSION}")


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _check_content(connection: sqlite3.Connection) -> None:
    """Read everything that steers the agent once: a page of zeros can be sound for SQLite."""
    try:
        for (content,) in connection.execute("SELECT content FROM task"):
            _read_task(content)
        wrong = [
            connection.execute(f"SELECT COUNT(*) FROM {table} WHERE NOT ({sound})").fetchone()[0]  # noqa: S608
            for table, sound in _SOUND.items()
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedError(f"is damaged ({str(error)[:100]})") from error
    if any(wrong):
        raise DamagedError("is damaged (values that nothing wrote)")


def _write_task(task: Task) -> str:
    return json.dumps({**asdict(task), "state": task.state.value})


def _read_task(content: str) -> Task:
    """Read a task; unknown keys, of a later minor version, are ignored.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    found = json.loads(content)
    state, release = State(found["state"]), found.get("release")
    known = {name: found[name] for name in Task.__dataclass_fields__ if name in found} | {"state": state}
    if release is not None:
        known["release"] = _read_target(release)
    task = Task(**known)
    if not all(isinstance(value, (int, float)) for value in (task.since, task.stores, task.boots, task.not_before)):
        raise TypeError("found a task whose numbers are none")
    return task


def _read_target(found: Any) -> Target:
    release = {name: found[name] for name in Target.__dataclass_fields__ if name in found}
    windows = release.get("windows", [])
    if not isinstance(windows, list) or not all(isinstance(window, str) for window in windows):
        raise TypeError("found windows that are no list of texts")
    return Target(**release | {"windows": tuple(windows)})


def _key(release: Target) -> tuple[str, int]:
    return release.line, release.sequence
