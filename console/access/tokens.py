"""Tokens of the API: what programs send instead of a password.

Rules this module keeps:
1. A token is shown once; only its hash is stored.
2. A token may not do more than its user may at that moment, and ends after a year at the latest.
"""

from __future__ import annotations

import secrets
import sqlite3
from dataclasses import dataclass

from console.access import audit
from console.access.roles import Role, lower_of
from console.access.sessions import hash_of
from edge.errors import ConsoleError

PREFIX = "fsc_"  # by which scanners for leaked secrets find it
MOST_DAYS = 366
USED_EVERY_S = 300.0  # how often the time of the last use is stored
_MOST = 50  # of one user


@dataclass(frozen=True, slots=True)
class Token:
    """One token, without its secret."""

    id: int
    user_id: int
    user: str
    name: str
    role: Role  # what it may do: the lower one of its own and its user's
    created_at: float  # Unix time, seconds
    expires_at: float
    used_at: float | None


def add_token(
    connection: sqlite3.Connection, now_s: float, by: str, user_id: int, name: str, role: Role, days: int
) -> str:
    """Make a token of a user, and return it.

    Raises:
        ConsoleError: the role is above the user's, the name is taken, or there are too many.
    """
    user = connection.execute("SELECT name, role FROM users WHERE id = ?", (user_id,)).fetchone()
    if user is None:
        raise ConsoleError("not_found", "there is no such user")
    if lower_of(role, user["role"]) != role:
        raise ConsoleError("denied", f"{user['name']} is {user['role']}; a token may not be {role}")
    if not 1 <= days <= MOST_DAYS:
        raise ConsoleError("invalid", f"found {days} days, expected 1 to {MOST_DAYS}")
    if not name.strip():
        raise ConsoleError("invalid", "a token needs a name that says what it is for")
    if connection.execute("SELECT count(*) FROM tokens WHERE user_id = ?", (user_id,)).fetchone()[0] >= _MOST:
        raise ConsoleError("conflict", f"{user['name']} has {_MOST} tokens; remove one first")
    token = PREFIX + secrets.token_urlsafe(32)
    try:
        connection.execute(
            "INSERT INTO tokens(hash, user_id, name, role, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
            (hash_of(token), user_id, name, role, now_s, now_s + days * 86400.0),
        )
    except sqlite3.IntegrityError as error:
        raise ConsoleError(
            "conflict", f"{user['name']} has a token {name!r} already; choose another name, or remove it first"
        ) from error
    audit.record(connection, now_s, by, "token.add", f"token {name}", user=user["name"], role=role, days=days)
    return token


def find_token(rows: sqlite3.Connection, now_s: float, token: str) -> Token | None:
    """Return a token by its secret; None where it is over, or was never."""
    row = rows.execute(f"{_SELECT} WHERE tokens.hash = ? AND expires_at > ?", (hash_of(token), now_s)).fetchone()
    return None if row is None else _token(row)


def list_tokens(rows: sqlite3.Connection, user_id: int | None = None) -> list[Token]:
    """Return the tokens of a user, or of all, over ones included; the newest first."""
    found = rows.execute(f"{_SELECT} WHERE ? IS NULL OR user_id = ? ORDER BY tokens.id DESC", (user_id, user_id))
    return [_token(row) for row in found]


def remove_token(connection: sqlite3.Connection, now_s: float, by: str, user_id: int | None, token_id: int) -> str:
    """Remove a token of a user, or of anyone, and return its name. Programs that send it are refused from then on.

    Raises:
        ConsoleError: there is no such token.
    """
    row = connection.execute(
        f"{_SELECT} WHERE tokens.id = ? AND (? IS NULL OR user_id = ?)", (token_id, user_id, user_id)
    )
    found = row.fetchone()
    if found is None:
        raise ConsoleError("not_found", f"there is no token {token_id}; it may have been removed already")
    token = _token(found)
    connection.execute("DELETE FROM tokens WHERE id = ?", (token.id,))
    audit.record(connection, now_s, by, "token.remove", f"token {token.name}", user=token.user)
    return token.name


_SELECT = """
SELECT tokens.*, users.name AS user, users.role AS user_role FROM tokens JOIN users ON users.id = tokens.user_id"""


def _token(row: sqlite3.Row) -> Token:
    return Token(
        id=row["id"],
        user_id=row["user_id"],
        user=row["user"],
        name=row["name"],
        role=lower_of(row["role"], row["user_role"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        used_at=row["used_at"],
    )
