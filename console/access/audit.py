"""The audit log of the console: who did what, and when. Rows are only ever added."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from edge.errors import ConsoleError

TABLES = """
CREATE TABLE IF NOT EXISTS audit(
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,        -- Unix time, seconds
    by TEXT NOT NULL,        -- name of the user; ?: nobody who is known
    action TEXT NOT NULL,    -- such as set.create
    target TEXT NOT NULL,    -- what it was done to, such as set 3
    details TEXT NOT NULL    -- JSON object
);
CREATE INDEX IF NOT EXISTS audit_at ON audit(at, id);
CREATE INDEX IF NOT EXISTS audit_by ON audit(by, at, id);
CREATE INDEX IF NOT EXISTS audit_action ON audit(action, at, id);
"""


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which rows of the log."""

    by: str | None = None
    action: str | None = None
    since_s: float | None = None  # Unix time, seconds
    until_s: float | None = None  # exclusive
    before: str = ""  # `next` of the page before
    limit: int = 100


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One thing that somebody did."""

    id: int
    at: float
    by: str
    action: str
    target: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Rows of the log, newest first."""

    rows: tuple[AuditRow, ...]
    next: str  # names the page of older rows; empty: there are none


def record(connection: sqlite3.Connection, now_s: float, by: str, action: str, target: str, **details: Any) -> None:
    """Add a row, in the transaction of what it tells about."""
    values = (now_s, by, action, target, json.dumps(details, ensure_ascii=False))
    connection.execute("INSERT INTO audit(at, by, action, target, details) VALUES (?, ?, ?, ?, ?)", values)


def find_page(rows: sqlite3.Connection, query: AuditQuery) -> AuditPage:
    """Return a page of the log.

    Raises:
        ConsoleError: `before` is of no page.
    """
    conditions, values = ["1"], list[Any]()
    for condition, value in (
        ("by = ?", query.by),
        ("action = ?", query.action),
        ("at >= ?", query.since_s),
        ("at < ?", query.until_s),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if query.before:
        conditions.append("(at, id) < (?, ?)")
        values += _position(query.before)
    where = " AND ".join(conditions)
    statement = f"SELECT * FROM audit WHERE {where} ORDER BY at DESC, id DESC LIMIT ?"  # noqa: S608  no input
    found = [_row(row) for row in rows.execute(statement, (*values, query.limit + 1))]
    page = found[: query.limit]
    return AuditPage(tuple(page), f"{page[-1].at!r}-{page[-1].id}" if len(found) > len(page) else "")


def names_in(rows: sqlite3.Connection, column: str) -> list[str]:
    """Return what the column `by` or `action` holds; jumps from one value to the next in its index."""
    if column not in {"by", "action"}:
        raise ValueError(f"found the column {column!r}, expected by or action")
    statement = f"""
    WITH RECURSIVE found(name) AS (
        SELECT min({column}) FROM audit UNION ALL
        SELECT (SELECT min({column}) FROM audit WHERE {column} > found.name) FROM found WHERE found.name IS NOT NULL
    ) SELECT name FROM found WHERE name IS NOT NULL LIMIT 1000"""  # noqa: S608  no input
    return [row["name"] for row in rows.execute(statement)]


def _position(text: str) -> tuple[float, int]:
    at, _, number = text.rpartition("-")
    try:
        position = float(at), int(number)
    except ValueError as error:
        raise ConsoleError("invalid", "before: expected `next` of the previous page") from error
    if not (0 <= position[1] < 2**53 and abs(position[0]) < 2**53):
        raise ConsoleError("invalid", "before: expected `next` of the previous page")
    return position


def _row(row: sqlite3.Row) -> AuditRow:
    return AuditRow(row["id"], row["at"], row["by"], row["action"], row["target"], json.loads(row["details"]))
