"""What the API of accounts, users and the audit log takes and answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from console.access import tokens
from console.access.passwords import LONGEST, SHORTEST
from console.access.roles import Role

_Password = Annotated[str, Field(min_length=SHORTEST, max_length=LONGEST)]
_Typed = Annotated[str, Field(max_length=1000)]  # a password that is compared


class Login(BaseModel):
    """A name and a password."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=100)]
    password: _Typed
    next: Annotated[str, Field(max_length=2000)] = ""  # a path of the console


class OwnPassword(BaseModel):
    """The own password: the old one and a new one."""

    model_config = ConfigDict(extra="forbid")

    old: _Typed
    new: _Password


class NewPassword(BaseModel):
    """A new password of another user."""

    model_config = ConfigDict(extra="forbid")

    password: _Password


class NewToken(BaseModel):
    """A token to make."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=80)]  # what it is for
    role: Role
    days: Annotated[int, Field(ge=1, le=tokens.MOST_DAYS)] = 90


class NewUser(BaseModel):
    """A user to add."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=64)]
    role: Role
    password: _Password


class NewRole(BaseModel):
    """Another role of a user."""

    model_config = ConfigDict(extra="forbid")

    role: Role


class SessionValue(BaseModel):
    """A browser that is logged in."""

    id: int
    created_at: float
    seen_at: float
    address: str
    agent: str
    is_this: bool


class SessionsValue(BaseModel):
    """The browsers that are logged in as one user."""

    sessions: list[SessionValue]


class TokenValue(BaseModel):
    """A token, without its secret."""

    id: int
    name: str
    role: Role
    created_at: float
    expires_at: float
    used_at: float | None


class TokensValue(BaseModel):
    """The tokens of one user."""

    tokens: list[TokenValue]


class MadeToken(BaseModel):
    """A token that was made. It is never shown again."""

    token: str


class UserValue(BaseModel):
    """A user."""

    id: int
    name: str
    role: Role
    created_at: float
    created_by: str
    seen_at: float | None
    sessions: int
    tokens: int


class UsersValue(BaseModel):
    """All users."""

    users: list[UserValue]


class AuditRowsQuery(BaseModel):
    """Which rows of the audit log."""

    model_config = ConfigDict(extra="forbid")

    by: Annotated[str, Field(max_length=100)] | None = None
    action: Annotated[str, Field(max_length=100)] | None = None
    since_s: Annotated[float, Field(ge=0, le=1e11)] | None = None
    until_s: Annotated[float, Field(ge=0, le=1e11)] | None = None
    before: Annotated[str, Field(max_length=60)] = ""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class AuditRowValue(BaseModel):
    """One thing that somebody did."""

    id: int
    at: float
    by: str
    action: str
    target: str
    details: dict[str, object]


class AuditValue(BaseModel):
    """Rows of the audit log, newest first."""

    rows: list[AuditRowValue]
    next: str
