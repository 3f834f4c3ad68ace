"""Starlette requests and responses of the kiosk: access control, bodies bounded in size and time, pictures, errors."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from edge.errors import PictureError
from edge.http_server.access import cookie_value, is_known_host, refusal_reason, token_matches, wrong_host_message
from edge.http_server.listener import HttpListener
from edge.imaging.header import detect_format
from edge.telemetry.counters import Counters

MAX_BODY_BYTES = 20_000_000
FORM = "multipart/form-data"
COOKIE = "finesight_kiosk"

_RESPONSE_HEADERS = [
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_BODY_TIMEOUT_S = 15.0
_GRACE_S, _MIN_BYTES_PER_S = 5.0, 16_000  # a body must arrive at this rate, after a grace
_MAX_RECEIVED_BYTES = 4 * MAX_BODY_BYTES  # of all unfinished bodies together


class AccessMiddleware:
    """Refuses requests that `edge.http_server.access` does not allow, and exchanges `/?token=…` for a cookie."""

    def __init__(
        self, app: ASGIApp, listener: HttpListener, names: frozenset[str], token: str | None, counters: Counters
    ) -> None:
        self._app, self._listener, self._names, self._token, self._counters = app, listener, names, token, counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        try:
            await self._answer(scope, receive, send)
        except ClientDisconnect:
            self._listener.count_left()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        offered = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        response: ASGIApp
        if not is_known_host(request.headers, self._names):
            self._counters.add("kiosk_refused", reason="wrong_host")
            response = error_response(421, "wrong_host", wrong_host_message(request.headers, "kiosk"))
        elif self._token is not None and scope["path"] == "/" and token_matches(offered, self._token):
            response = RedirectResponse("/", status_code=303)
            response.set_cookie(
                COOKIE,
                cookie_value(self._token),
                max_age=365 * 24 * 3600,
                httponly=True,
                samesite="lax",
                secure=scope["scheme"] == "https",
            )
        else:
            changes = scope["method"] not in ("GET", "HEAD")
            cookie = request.cookies.get(COOKIE, "")
            reason = refusal_reason(request.headers, cookie, changes=changes, token=self._token)
            response = self._app if reason is None else self._refuse(reason)

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_RESPONSE_HEADERS]
            await send(message)

        await response(scope, receive, send_with_headers)

    def _refuse(self, reason: str) -> Response:
        self._counters.add("kiosk_refused", reason=reason)
        if reason == "no_token":
            message = "no valid token; send Authorization: Bearer <token>, or open /?token=<token> once"
            return error_response(401, reason, message, {"WWW-Authenticate": "Bearer"})
        return error_response(403, reason, "the origin is not this kiosk's own; open the kiosk at its own address")


@dataclass(slots=True, eq=False)
class _Upload:
    """One body that is being received."""

    parts: list[bytes] = field(default_factory=list)
    received: int = 0
    is_dropped: bool = False  # its memory went to another


class Uploads:
    """Receives the bodies of requests, and bounds the memory and the time of all of them together.

    Many slow clients keep nobody out: they hold little memory, and the one that has been sending for longest gives way.
    """

    def __init__(self, max_received_bytes: int = _MAX_RECEIVED_BYTES) -> None:
        self._max_received_bytes = max_received_bytes
        self._open: list[_Upload] = []  # oldest first

    async def read(self, request: Request, max_bytes: int) -> bytes:
        """Return the body of a request; stop once it is too long or too slow.

        Raises:
            PictureError: the body is longer than `max_bytes` or too slow, or the client left before its end.
        """
        if content_length(request) > max_bytes:
            raise _too_long(max_bytes)
        with self._upload() as upload:
            started_s = time.monotonic()
            receiving = asyncio.ensure_future(self._receive(request, upload, max_bytes))
            try:
                while not receiving.done():
                    allowed_s = min(_BODY_TIMEOUT_S, _GRACE_S + upload.received / _MIN_BYTES_PER_S)
                    left_s = started_s + allowed_s - time.monotonic()
                    if left_s <= 0:
                        raise PictureError("slow", f"the body did not arrive within {allowed_s:.0f} s")
                    await asyncio.wait((receiving,), timeout=left_s)
                return await receiving
            finally:
                receiving.cancel()

    async def _receive(self, request: Request, upload: _Upload, max_bytes: int) -> bytes:
        try:
            async for part in request.stream():
                if upload.is_dropped:
                    raise PictureError("slow", "the body arrived too slowly while others were waiting")
                upload.received += len(part)
                if upload.received > max_bytes:
                    raise _too_long(max_bytes)
                upload.parts.append(part)
                self._make_room(upload)
        except ClientDisconnect:
            raise PictureError("left", "the client disconnected before the end of the body") from None
        return b"".join(upload.parts)

    @contextlib.contextmanager
    def _upload(self) -> Iterator[_Upload]:
        upload = _Upload()
        self._open.append(upload)
        try:
            yield upload
        finally:
            if upload in self._open:
                self._open.remove(upload)

    def _make_room(self, newest: _Upload) -> None:
        while sum(one.received for one in self._open) > self._max_received_bytes:
            oldest = next(one for one in self._open if one is not newest)
            self._open.remove(oldest)
            oldest.is_dropped = True
            oldest.parts.clear()


def _too_long(max_bytes: int) -> PictureError:
    return PictureError("too_large", f"the body is too long; send at most {max_bytes} bytes")


def picture_response(data: bytes | None, missing: str) -> Response:
    """Return a response with JPEG, PNG or WebP bytes; without bytes, a 404 error with the message `missing`."""
    if data is None:
        return error_response(404, "not_found", missing)
    media_type = f"image/{detect_format(data) or 'jpeg'}"
    return Response(data, media_type=media_type, headers={"Cache-Control": "private, max-age=60"})


def query_number(request: Request, name: str) -> int:
    """Return a number from the query string; -1 if it is missing or not a number."""
    text = request.query_params.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 16 else -1


def error_response(status: int, reason: str, message: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error response with a reason code and a message. A client that is too slow is disconnected."""
    headers = {"Connection": "close"} if status == 408 else headers
    return JSONResponse({"reason": reason, "error": message}, status_code=status, headers=headers)


def content_length(request: Request) -> int:
    """Return the length of the body as the header says it; 0 if it does not."""
    return int(request.headers.get("content-length") or 0)


def left_of(request: Request) -> Callable[[], Awaitable[None]]:
    """Return a function that waits until the client of a request, whose body was read, disconnects."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return left


def media_type_of(request: Request) -> str:
    """Return the type of the body, in lower case and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def form_type_of(request: Request) -> str | None:
    """Return the complete content type of a form; None if the body is the picture itself."""
    return request.headers["content-type"] if media_type_of(request) == FORM else None
