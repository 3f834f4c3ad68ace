"""The audit log of the console: who did what, and when. Rows are only ever added."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

TABLES = """
CREATE TABLE IF NOT EXISTS audit(
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,        -- Unix time, seconds
    by TEXT NOT NULL,        -- name of the user
    action TEXT NOT NULL,    -- such as set.create
    target TEXT NOT NULL,    -- what it was done to, such as set 3
    details TEXT NOT NULL    -- JSON object
);
"""


def record(connection: sqlite3.Connection, now_s: float, by: str, action: str, target: str, **details: Any) -> None:
    """Add a row, in the transaction of what it tells about."""
    values = (now_s, by, action, target, json.dumps(details, ensure_ascii=False))
    connection.execute("INSERT INTO audit(at, by, action, target, details) VALUES (?, ?, ?, ?, ?)", values)
