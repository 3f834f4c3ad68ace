"""Sessions: browsers that are logged in.

Rules this module keeps:
1. A cookie is random; only its hash is stored.
2. A session ends 12 hours after its last request, 14 days after it began, or when somebody ends it.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from dataclasses import dataclass

from console.access.roles import Role
from edge.errors import ConsoleError

IDLE_S = 12 * 3600.0
LONGEST_S = 14 * 86400.0
SEEN_EVERY_S = 300.0  # how often the time of the last request is stored
_MOST = 50  # of one user; the one that was seen longest ago makes room
_AGENT_CHARACTERS = 200
# the first mark that is found counts: browsers name their forerunners, too
_BROWSERS = (
    *(("Edg", "Edge"), ("OPR/", "Opera"), ("Firefox", "Firefox"), ("Chrome", "Chrome"), ("Safari", "Safari")),
    ("curl", "curl"),
)
_SYSTEMS = (
    *(("Windows", "Windows"), ("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad")),
    *(("Mac OS", "macOS"), ("CrOS", "ChromeOS"), ("Linux", "Linux")),
)


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from."""

    address: str = ""
    agent: str = ""  # its browser, as it says


@dataclass(frozen=True, slots=True)
class Session:
    """One browser that is logged in."""

    id: int
    user_id: int | None  # None: the printed token opened it
    name: str | None  # of the user
    role: Role | None
    created_at: float  # Unix time, seconds
    seen_at: float
    address: str
    agent: str


def begin_session(connection: sqlite3.Connection, now_s: float, user_id: int | None, client: Client) -> str:
    """Begin a session, and return its cookie."""
    connection.execute("DELETE FROM sessions WHERE seen_at < ? OR created_at < ?", (now_s - IDLE_S, now_s - LONGEST_S))
    connection.execute(
        "DELETE FROM sessions WHERE id IN "
        "(SELECT id FROM sessions WHERE user_id IS ? ORDER BY seen_at DESC LIMIT -1 OFFSET ?)",
        (user_id, _MOST - 1),
    )
    cookie = secrets.token_urlsafe(32)
    connection.execute(
        "INSERT INTO sessions(hash, user_id, created_at, seen_at, address, agent) VALUES (?, ?, ?, ?, ?, ?)",
        (hash_of(cookie), user_id, now_s, now_s, client.address, client.agent[:_AGENT_CHARACTERS]),
    )
    return cookie


def find_session(rows: sqlite3.Connection, now_s: float, cookie: str) -> Session | None:
    """Return the session of a cookie; None where it is over, or was never."""
    row = rows.execute(f"{_SELECT} AND sessions.hash = ?", (now_s - IDLE_S, now_s - LONGEST_S, hash_of(cookie)))
    found = row.fetchone()
    return None if found is None else _session(found)


def list_sessions(rows: sqlite3.Connection, now_s: float, user_id: int | None) -> list[Session]:
    """Return the open sessions of a user, the one used last first."""
    found = rows.execute(
        f"{_SELECT} AND user_id IS ? ORDER BY seen_at DESC, sessions.id DESC",
        (now_s - IDLE_S, now_s - LONGEST_S, user_id),
    )
    return [_session(row) for row in found]


def end_session(connection: sqlite3.Connection, user_id: int | None, session_id: int) -> None:
    """End a session of a user.

    Raises:
        ConsoleError: the user has no such session.
    """
    ended = connection.execute("DELETE FROM sessions WHERE id = ? AND user_id IS ?", (session_id, user_id))
    if ended.rowcount == 0:
        raise ConsoleError("not_found", "there is no such session; it may have ended already")


def browser_named(agent: str) -> str:
    """Return the name of a browser, such as `Firefox on Linux`, from what it says of itself."""
    program = next((name for mark, name in _BROWSERS if mark in agent), agent[:30] or "unknown")
    system = next((name for mark, name in _SYSTEMS if mark in agent), "")
    return f"{program} on {system}" if system else program


def hash_of(secret: str) -> str:
    """Return what to store of a random secret. It needs no slow hash: nobody can guess 256 bits."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


_SELECT = """
SELECT sessions.*, users.name, users.role FROM sessions LEFT JOIN users ON users.id = sessions.user_id
WHERE sessions.seen_at >= ? AND sessions.created_at >= ?"""


def _session(row: sqlite3.Row) -> Session:
    return Session(**{name: row[name] for name in Session.__slots__})
