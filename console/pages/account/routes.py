"""The pages to log in, of the own account, of users, and of the audit log."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Annotated, Any
from urllib.parse import urlencode

from pydantic import BaseModel, Field

from console.access import audit, users
from console.access.login_limits import PER_ADDRESS, PER_NAME, WINDOW_S
from console.access.passwords import SHORTEST
from console.access.roles import ROLES, WHAT_ROLES_MAY
from console.access.sessions import browser_named, list_sessions
from console.access.tokens import MOST_DAYS, list_tokens
from console.pages.account import actions
from console.web.routing import Answer, Call, Html, Redirect, Route, page

_PAGE_ROWS = 100
_EARLIEST = date(1970, 1, 2)


class LoginQuery(BaseModel):
    """The query of the page to log in."""

    token: Annotated[str, Field(max_length=200)] = ""  # as the console printed it
    next: Annotated[str, Field(max_length=2000)] = ""  # the page that was asked for


class AuditPageQuery(BaseModel):
    """Which rows of the audit log the page shows."""

    by: Annotated[str, Field(max_length=100)] | None = None
    action: Annotated[str, Field(max_length=100)] | None = None
    since: Annotated[date, Field(ge=_EARLIEST)] | None = None  # in the reader's zone
    until: Annotated[date, Field(ge=_EARLIEST)] | None = None  # inclusive
    offset: Annotated[int, Field(ge=-840, le=840)] = 0  # minutes from the reader's clock to UTC
    before: Annotated[str, Field(max_length=60)] = ""  # `next` of the page before


def _login(call: Call) -> Answer:
    if call.query.token:
        cookie = call.services.gate.open_with_token(call.query.token, call.client)
        if cookie is not None:
            return Redirect(actions.local_path(call.query.next), cookie=cookie)
    has_users = call.services.gate.count_users() > 0
    values = {
        "has_users": has_users,
        "next": actions.local_path(call.query.next),
        "is_wrong": bool(call.query.token),
    }
    return Html("login.html", values, 401 if call.query.token else 200)


def _account(call: Call) -> Answer:
    user = call.user
    with call.services.database.read() as rows:
        values: dict[str, Any] = {
            "sessions": list_sessions(rows, call.now_s, user.id),
            "tokens": list_tokens(rows, user.id) if user.id is not None else [],
            "account": users.find_user(rows, user.id) if user.id is not None else None,
        }
    roles = [role for role in ROLES if user.may(role)]
    more = {"roles": roles, "what_roles_may": WHAT_ROLES_MAY, "most_days": MOST_DAYS, "shortest": SHORTEST}
    return Html("account/account.html", {**values, **more, "now_s": call.now_s, "browser_named": browser_named})


def _users(call: Call) -> Answer:
    with call.services.database.read() as rows:
        found = users.list_users(rows)
    values = {"users": found, "roles": ROLES, "what_roles_may": WHAT_ROLES_MAY, "shortest": SHORTEST}
    return Html("account/users.html", values)


def _audit(call: Call) -> Answer:
    query: AuditPageQuery = call.query
    wanted = audit.AuditQuery(
        by=query.by,
        action=query.action,
        since_s=_unix_s(query.since, query.offset),
        until_s=_unix_s(query.until, query.offset, 1),
        before=query.before,
        limit=_PAGE_ROWS,
    )
    with call.services.database.read() as rows:
        found = audit.find_page(rows, wanted)
        names, actions = audit.names_in(rows, "by"), audit.names_in(rows, "action")
    shown = {key: value for key, value in query.model_dump(mode="json").items() if value not in (None, "")}
    values = {
        "page": found,
        "is_filtered": any(value is not None for value in (query.by, query.action, query.since, query.until)),
        "names": names,
        "actions": actions,
        "query": query,
        "older": urlencode({**shown, "before": found.next}) if found.next else "",
        "newest": urlencode({key: value for key, value in shown.items() if key != "before"}),
        "counts": _counts(call),
        "limits": {"name": PER_NAME, "address": PER_ADDRESS, "minutes": round(WINDOW_S / 60)},
    }
    return Html("account/audit.html", values)


def _counts(call: Call) -> dict[str, int]:
    """Return what the server refused or failed at since it started."""
    counters = call.services.gate.counters
    return {
        "wrong": counters.total("log_ins", result="wrong") + counters.total("log_ins", result="wrong_token"),
        "limited": counters.total("log_ins", result="limited"),
        "failures": counters.total("http_failures"),
    }


def _unix_s(day: date | None, offset_minutes: int, more_days: int = 0) -> float | None:
    """Return when a day of the reader's zone begins."""
    if day is None:
        return None
    begin = datetime(day.year, day.month, day.day, tzinfo=timezone.utc).timestamp()
    return begin + 60.0 * offset_minutes + timedelta(days=more_days).total_seconds()


ROUTES: tuple[Route, ...] = (
    page("/login", "anyone", _login, LoginQuery),
    page("/account", "viewer", _account),
    page("/account/users", "admin", _users),
    page("/account/audit", "operator", _audit, AuditPageQuery),
    *actions.ROUTES,
)
