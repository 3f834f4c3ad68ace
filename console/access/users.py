"""Users of the console: who there is, and what each may do.

Rules this module keeps:
1. The first user is an admin, and the last admin stays: somebody can always let others in.
2. A user who is removed, or whose password another one sets, is logged out everywhere.
3. Each change is recorded in the audit log, in its own transaction.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass

from console.access import audit
from console.access.roles import ROLES, Role
from edge.errors import ConsoleError

NAME = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}"
LOCAL = "local"  # who comes with the printed token
_RESERVED = (LOCAL, "terminal")
MOST_USERS = 1000
_NAME = re.compile(NAME)


@dataclass(frozen=True, slots=True)
class Account:
    """One user."""

    id: int
    name: str
    role: Role
    created_at: float  # Unix time, seconds
    created_by: str
    password_at: float
    seen_at: float | None  # newest request of a session
    sessions: int  # that are stored, over ones included
    tokens: int


def count_users(rows: sqlite3.Connection) -> int:
    """Return how many users there are."""
    found: int = rows.execute("SELECT count(*) FROM users").fetchone()[0]
    return found


def list_users(rows: sqlite3.Connection) -> list[Account]:
    """Return all users, by name."""
    return [_account(row) for row in rows.execute(f"{_SELECT} ORDER BY users.name")]


def find_user(rows: sqlite3.Connection, user: int | str) -> Account:
    """Return a user, by id or name.

    Raises:
        ConsoleError: there is none.
    """
    column = "id" if isinstance(user, int) else "name"
    row = rows.execute(f"{_SELECT} WHERE users.{column} = ?", (user,)).fetchone()
    if row is None:
        raise ConsoleError("not_found", f"there is no user {user!r}; `edge-console user list` shows them")
    return _account(row)


def stored_password(rows: sqlite3.Connection, name: str) -> tuple[int | None, str | None]:
    """Return the id and the hash of the password of a user; None and None without such a user."""
    row = rows.execute("SELECT id, password FROM users WHERE name = ?", (name,)).fetchone()
    return (None, None) if row is None else (row["id"], row["password"])


def add_user(connection: sqlite3.Connection, now_s: float, by: str, name: str, role: Role, password_hash: str) -> int:
    """Add a user, and return its id.

    Raises:
        ConsoleError: the name cannot be one or is taken, there are too many, or the first one is no admin.
    """
    if not _NAME.fullmatch(name) or name.lower() in _RESERVED:
        raise ConsoleError(
            "invalid", f"{name!r} cannot name a user; use 1 to 64 of a-z, A-Z, 0-9, '.', '_', '@' and '-'"
        )
    users = count_users(connection)
    if users >= MOST_USERS:
        raise ConsoleError("conflict", f"there are {users} users; remove some first")
    if users == 0 and role != "admin":
        raise ConsoleError("conflict", f"the first user must be an admin; found the role {role}")
    try:
        found = connection.execute(
            "INSERT INTO users(name, role, password, created_at, created_by, password_at) VALUES (?, ?, ?, ?, ?, ?)",
            (name, role, password_hash, now_s, by, now_s),
        )
    except sqlite3.IntegrityError as error:
        raise ConsoleError("conflict", f"there is a user {name!r} already; choose another name") from error
    connection.execute("DELETE FROM sessions WHERE user_id IS NULL")  # the printed token ends with the first user
    audit.record(connection, now_s, by, "user.add", f"user {name}", role=role)
    return int(found.lastrowid or 0)


def set_role(connection: sqlite3.Connection, now_s: float, by: str, user: int | str, role: Role) -> Account:
    """Give a user another role; it counts from the next request on.

    Raises:
        ConsoleError: there is no such user, or it is the last admin.
    """
    account = find_user(connection, user)
    if role != "admin":
        _keep_an_admin(connection, account)
    connection.execute("UPDATE users SET role = ? WHERE id = ?", (role, account.id))
    audit.record(connection, now_s, by, "user.role", f"user {account.name}", before=account.role, role=role)
    return find_user(connection, account.id)


def remove_user(connection: sqlite3.Connection, now_s: float, by: str, user: int | str) -> Account:
    """Remove a user with all sessions and tokens; what they did keeps their name.

    Raises:
        ConsoleError: there is no such user, or it is the last admin.
    """
    account = find_user(connection, user)
    _keep_an_admin(connection, account)
    connection.execute("DELETE FROM users WHERE id = ?", (account.id,))
    audit.record(connection, now_s, by, "user.remove", f"user {account.name}", role=account.role)
    return account


def set_password(
    connection: sqlite3.Connection, now_s: float, by: str, user: int | str, password_hash: str, keep: int | None = None
) -> Account:
    """Set the password of a user, and end the sessions but one, `keep`.

    Raises:
        ConsoleError: there is no such user.
    """
    account = find_user(connection, user)
    connection.execute(
        "UPDATE users SET password = ?, password_at = ? WHERE id = ?", (password_hash, now_s, account.id)
    )
    connection.execute("DELETE FROM sessions WHERE user_id = ? AND id IS NOT ?", (account.id, keep))
    audit.record(connection, now_s, by, "user.password", f"user {account.name}")
    return account


def role_named(text: str) -> Role:
    """Return a role by its name.

    Raises:
        ConsoleError: there is none.
    """
    for role in ROLES:
        if role == text:
            return role
    raise ConsoleError("invalid", f"found the role {text!r}, expected one of {', '.join(ROLES)}")


def _keep_an_admin(connection: sqlite3.Connection, account: Account) -> None:
    """Refuse to lose the last admin."""
    admins = connection.execute("SELECT count(*) FROM users WHERE role = 'admin'").fetchone()[0]
    if account.role == "admin" and admins == 1:
        raise ConsoleError("conflict", f"{account.name} is the last admin; make another user admin first")


_SELECT = """
SELECT users.*,
    (SELECT max(seen_at) FROM sessions WHERE user_id = users.id) AS seen_at,
    (SELECT count(*) FROM sessions WHERE user_id = users.id) AS sessions,
    (SELECT count(*) FROM tokens WHERE user_id = users.id) AS tokens
FROM users"""


def _account(row: sqlite3.Row) -> Account:
    return Account(
        id=row["id"],
        name=row["name"],
        role=row["role"],
        created_at=row["created_at"],
        created_by=row["created_by"],
        password_at=row["password_at"],
        seen_at=row["seen_at"],
        sessions=row["sessions"],
        tokens=row["tokens"],
    )
