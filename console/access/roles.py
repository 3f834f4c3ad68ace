"""Roles, and who sends a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["viewer", "labeller", "operator", "admin"]  # each may do what those before it may
ROLES: tuple[Role, ...] = ("viewer", "labeller", "operator", "admin")
WHAT_ROLES_MAY: dict[Role, str] = {
    "viewer": "sees everything but users, and changes nothing",
    "labeller": "names crops, draws boxes, and makes sets",
    "operator": "changes galleries, publishes, trains, and sends commands to the fleet",
    "admin": "adds and removes users",
}


@dataclass(frozen=True, slots=True)
class User:
    """Who sends a request."""

    name: str
    role: Role  # of a token: not more than its user's
    id: int | None = None  # in the table of users; None: the printed token opened it, and there are no users
    session: int | None = None  # id of the session that the cookie names; None: a token was sent

    def may(self, role: Role) -> bool:
        """Return whether this user may do what a role may."""
        return ROLES.index(self.role) >= ROLES.index(role)


def lower_of(one: Role, other: Role) -> Role:
    """Return the role that may less."""
    return min(one, other, key=ROLES.index)
