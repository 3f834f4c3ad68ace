"""Starlette requests and responses of the kiosk: access control, bounded bodies, multipart forms, pictures, errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from edge.errors import PictureError
from edge.http_access import cookie_value, refusal_reason, token_matches
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
_MAX_PARTS = 32
_MAX_PART_HEADER_BYTES = 4096
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s";,]{1,70}))', re.IGNORECASE)
_QUOTED = re.compile(rb'"(?:\\.|[^"\\])*"')
_FILE = re.compile(rb"^content-disposition:.*;\s*filename\*?\s*=", re.IGNORECASE | re.MULTILINE)


class AuthMiddleware:
    """Refuses requests that `edge.http_access` does not allow, and exchanges `/?token=…` for a cookie."""

    def __init__(self, app: ASGIApp, token: str | None, counters: Counters) -> None:
        self._app, self._token, self._counters = app, token, counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request = Request(scope)
        offered = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if self._token is not None and scope["path"] == "/" and token_matches(offered, self._token):
            response: ASGIApp = RedirectResponse("/", status_code=303)
            response.set_cookie(  # type: ignore[attr-defined]
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
        header = "host" if reason == "wrong_host" else "origin"
        return error_response(403, reason, f"the {header} is not this kiosk's own; open the kiosk at its own address")


async def read_body(request: Request, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Read the body of a request, and stop once it is too long.

    Raises:
        PictureError: the body is longer than `max_bytes`.
    """
    parts: list[bytes] = []
    size = int(request.headers.get("content-length") or 0)
    if size <= max_bytes:
        size = 0
        async for part in request.stream():
            size += len(part)
            parts.append(part)
            if size > max_bytes:
                break
    if size > max_bytes:
        raise PictureError("too_large", f"the body is too long; send at most {max_bytes} bytes")
    return b"".join(parts)


def file_from_form(body: bytes, content_type: str, max_bytes: int) -> bytes:
    """Return the file in a multipart form. Other fields are ignored.

    Args:
        body: of the request, complete.
        content_type: of the request; names the boundary between the parts.
        max_bytes: of the file.

    Raises:
        PictureError: the body is not a form, is truncated, holds no file or several, or the file is too long.
    """
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise PictureError("broken", "form: the content type names no boundary; send one")
    files = [
        (begin, end)
        for header, begin, end in _parts(body, b"--" + (boundary[1] or boundary[2]).encode("latin-1"))
        if _FILE.search(_QUOTED.sub(b'""', header))
    ]
    if len(files) != 1:
        raise PictureError("broken" if files else "empty", f"form: it holds {len(files)} files; send one")
    begin, end = files[0]
    if end - begin > max_bytes:
        raise PictureError("too_large", f"form: the file has {end - begin} bytes; send at most {max_bytes}")
    return body[begin:end]


def _parts(body: bytes, boundary: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the header lines of each part, and where its content begins and ends."""
    if not body.startswith(boundary):
        raise PictureError("broken", "form: the body does not begin with the boundary")
    at = len(boundary)
    for _ in range(_MAX_PARTS):
        if body.startswith(b"--", at):
            return
        begin = body.find(b"\r\n\r\n", at, at + _MAX_PART_HEADER_BYTES)
        if begin < 0 or not body.startswith(b"\r\n", at):
            message = f"form: a part has no header, or one of more than {_MAX_PART_HEADER_BYTES} bytes"
            raise PictureError("broken", message)
        end = body.find(b"\r\n" + boundary, begin + 4)
        if end < 0:
            raise PictureError("truncated", f"form: the body ends after {len(body)} bytes without the last boundary")
        yield body[at:begin], begin + 4, end
        at = end + 2 + len(boundary)
    raise PictureError("broken", f"form: too many parts; send at most {_MAX_PARTS}")


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
    """Return an error response with a reason code and a message."""
    return JSONResponse({"reason": reason, "error": message}, status_code=status, headers=headers)
