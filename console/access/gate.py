"""The gate of the console: who sends a request, and whether that user may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from console.storage.database import Database
from edge.http_server.access import cookie_value, token_matches

Role = Literal["viewer", "labeller", "operator", "admin"]  # each may do what those before it may
ROLES: tuple[Role, ...] = ("viewer", "labeller", "operator", "admin")
COOKIE = "finesight_console"


@dataclass(frozen=True, slots=True)
class User:
    """Who sends a request."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Return whether this user may do what a role may."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Gate:
    """Users, sessions and tokens of a console."""

    def __init__(self, database: Database, token: str | None) -> None:
        self._database, self._token = database, token

    def identify(self, headers: Mapping[str, str], cookie: str) -> User | None:
        """Return who sends a request; None: nobody who is known."""
        if self._token is None:
            return None
        scheme, _, offered = headers.get("authorization", "").partition(" ")
        by_header = scheme.lower() == "bearer" and token_matches(offered.strip(), self._token)
        if by_header or token_matches(cookie, cookie_value(self._token)):
            return User("local", "admin")
        return None
