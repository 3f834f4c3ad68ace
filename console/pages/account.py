"""Logging in and out, and the account of a user."""

from __future__ import annotations

from pydantic import BaseModel

from console.web.routing import Answer, Call, Html, Redirect, Route, page
from edge.http_server.access import cookie_value


class LoginQuery(BaseModel):
    """The query of the page to log in."""

    token: str | None = None


def _login(call: Call) -> Answer:
    if call.query.token:
        return Redirect("/", cookie=cookie_value(call.query.token))
    return Html("login.html")


ROUTES: tuple[Route, ...] = (page("/login", "anyone", _login, LoginQuery),)
