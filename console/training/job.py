"""A job, and its row in the database."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from edge.errors import ConsoleError

State: TypeAlias = Literal["queued", "running", "done", "failed", "stopped", "interrupted"]


@dataclass(frozen=True, slots=True)
class Job:
    """One job, as it is now."""

    id: int
    kind: str
    name: str
    argv: tuple[str, ...]
    folder: Path  # absolute; the command runs in it
    state: State
    by: str
    created_at: float  # Unix time, seconds
    started_at: float | None  # of the last attempt
    ended_at: float | None
    exit_code: int | None  # negative: ended by that signal
    progress: float | None  # 0..1; None: not known
    left_s: float | None  # a guess
    says: str  # how it ended, or what it does
    about: dict[str, Any]
    bytes: int | None = None  # of its folder, when it ended

    @property
    def is_over(self) -> bool:
        """Whether it neither runs nor waits."""
        return self.state not in ("queued", "running")


def row_of(rows: sqlite3.Connection, job_id: int) -> sqlite3.Row:
    """Return the row of a job.

    Raises:
        ConsoleError: there is none.
    """
    row: sqlite3.Row | None = rows.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise ConsoleError("not_found", f"there is no job {job_id}; somebody may have deleted it")
    return row


def job_of(row: sqlite3.Row) -> Job:
    """Return the job of a row; its progress is not known from there."""
    return Job(
        id=row["id"],
        kind=row["kind"],
        name=row["name"],
        argv=tuple(json.loads(row["argv"])),
        folder=Path(row["folder"]),
        state=row["state"],
        by=row["by"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        exit_code=row["exit_code"],
        progress=None,
        left_s=None,
        says=row["says"],
        about=json.loads(row["about"]),
        bytes=row["bytes"],
    )


def update_row(connection: sqlite3.Connection, job_id: int, **values: object) -> None:
    """Change columns of a job; their names come from this program."""
    columns = ", ".join(f"{name} = :{name}" for name in values)
    connection.execute(f"UPDATE jobs SET {columns} WHERE id = :id", {**values, "id": job_id})  # noqa: S608
