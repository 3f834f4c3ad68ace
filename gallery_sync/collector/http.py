"""Starlette requests and responses of the fleet's server: access, errors.

Rules this module keeps:
1. Who may ask is decided by edge.http_server.access. Only `/healthz` needs no token, and the inbox has one of its own,
   which opens nothing else.
2. No request ends in a traceback for its sender: the server counts and logs its own failures, and answers 503.
"""

from __future__ import annotations

import logging
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from edge.errors import FinesightError
from edge.http_server.access import is_known_host, refusal_reason
from edge.http_server.listener import HttpListener
from edge.telemetry.counters import Counters

log = logging.getLogger(__name__)

OPEN_PATH, INBOX_PATH = "/healthz", "/inbox/"
_HEADERS = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


class RequestError(FinesightError):
    """A request that is refused."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.status, self.reason = status, reason


class Guard:
    """Lets requests through that may pass, and turns everything that goes wrong into an answer."""

    def __init__(
        self,
        app: ASGIApp,
        listener: HttpListener,
        names: frozenset[str],
        tokens: tuple[str | None, str | None],
        counters: Counters,
    ) -> None:
        """Guard an application.

        Args:
            app: what answers.
            listener: counts clients that left.
            names: of this server, in lower case.
            tokens: of the API, and of the inbox; None: none is needed.
            counters: counts what was refused.
        """
        self._app, self._listener, self._names, self._counters = app, listener, names, counters
        self._token, self._inbox_token = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        started = False

        async def send_with_headers(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        try:
            answer = self._refusal(Request(scope)) or self._app
            await answer(scope, receive, send_with_headers)
        except ClientDisconnect:
            self._listener.count_left()
        except Exception:
            log.exception("a request failed: %s", scope["path"][:120])
            self._counters.add("http_failures")
            if not started:
                failed = error_response(503, "failed", "the server could not answer; its log says why")
                await failed(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        headers, path = request.headers, request.scope["path"]
        if not is_known_host(headers, self._names):
            text = f"{headers.get('host', '')[:80]!r} is no name of this server; use its address, or --host-name"
            return self._refuse(421, "wrong_host", text)
        if path == OPEN_PATH:
            return None
        is_inbox = path.startswith(INBOX_PATH)
        changes = request.method not in ("GET", "HEAD")
        reason = refusal_reason(headers, "", changes=changes, token=self._inbox_token if is_inbox else self._token)
        if reason == "no_token":
            return self._refuse(401, reason, "no valid token; send Authorization: Bearer <token>")
        if reason is not None:
            return self._refuse(
                403, reason, "a page of another server sent this; send it from a program, or from this server"
            )
        return None

    def _refuse(self, status: int, reason: str, text: str) -> Response:
        self._counters.add("http_refused", reason=reason)
        return error_response(status, reason, text, {"WWW-Authenticate": "Bearer"} if status == 401 else None)


def error_response(status: int, reason: str, text: str, headers: dict[str, str] | None = None) -> Response:
    """Return a response with a reason code and a message."""
    return JSONResponse({"reason": reason, "error": text}, status_code=status, headers=headers)


async def http_error(_: Request, error: Exception) -> Response:
    """Answer where there is no such address, or it does not take this method."""
    status = error.status_code if isinstance(error, HTTPException) else 400
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    reason = {404: "not_found", 405: "method"}.get(status, "wrong_request")
    text = {404: "there is no such address; /openapi.json lists them", 405: "this address does not take this method"}
    return error_response(status, reason, text.get(status, "the request is wrong"), headers)
