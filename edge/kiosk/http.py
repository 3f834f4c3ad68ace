"""Requests and answers of a kiosk in starlette's terms: who is let in, bodies of a stated size, pictures, errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from edge.errors import PictureError
from edge.imaging.header import kind_of
from edge.kiosk.auth import COOKIE, cookie_value, refusal_reason, token_matches
from edge.telemetry.metrics import Counters

MAX_BODY_BYTES = 20_000_000
_HEADERS = [
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class AuthMiddleware:
    """Lets through whom edge.kiosk.auth does; takes the token from the address once, for a cookie."""

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
            reason = refusal_reason(request.headers, request.cookies, changes=changes, token=self._token)
            response = self._app if reason is None else self._refuse(reason)

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await response(scope, receive, send_with_headers)

    def _refuse(self, reason: str) -> Response:
        self._counters.add("kiosk_refused", reason=reason)
        if reason == "no_token":
            message = "found no token, expected Authorization: Bearer, or a page opened once by /?token="
            return error_answer(401, reason, message, {"WWW-Authenticate": "Bearer"})
        return error_answer(
            403, reason, f"found a request with a {reason.replace('_', ' ')}, expected this kiosk's own"
        )


async def body_of(request: Request, most: int = MAX_BODY_BYTES) -> bytes:
    """The body, of a stated size at most, however long it claims to be.

    Raises:
        PictureError: it is longer.
    """
    parts: list[bytes] = []
    size = int(request.headers.get("content-length") or 0)
    if size <= most:
        size = 0
        async for part in request.stream():
            size += len(part)
            parts.append(part)
            if size > most:
                break
    if size > most:
        raise PictureError("too_large", f"found a body of more than {most} bytes, expected at most that")
    return b"".join(parts)


def picture_answer(data: bytes | None, missing: str) -> Response:
    """JPEG, PNG or WebP bytes as they are, or that there are none."""
    if data is None:
        return error_answer(404, "not_found", missing)
    media_type = f"image/{kind_of(data) or 'jpeg'}"
    return Response(data, media_type=media_type, headers={"Cache-Control": "private, max-age=60"})


def number_of(request: Request, name: str) -> int:
    """A count from the query; -1 where there is none."""
    text = request.query_params.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 16 else -1


def error_answer(status: int, reason: str, message: str, headers: dict[str, str] | None = None) -> Response:
    """Why a request is refused: one word, and one sentence."""
    return JSONResponse({"reason": reason, "error": message}, status_code=status, headers=headers)


FORM = "multipart/form-data"

_MOST_PARTS = 32
_MOST_HEADER_BYTES = 4096  # of one part
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s";,]{1,70}))', re.IGNORECASE)
_QUOTED = re.compile(rb'"(?:\\.|[^"\\])*"')
_FILE = re.compile(rb"^content-disposition:.*;\s*filename\*?\s*=", re.IGNORECASE | re.MULTILINE)


def file_of(body: bytes, content_type: str, most: int) -> bytes:
    """The file that a form carries; its other fields are nobody's business.

    Args:
        body: of the request, whole.
        content_type: of the request; names the boundary between the parts.
        most: bytes of the file.

    Raises:
        PictureError: no form, a form cut short, or another number of files than one; or the file is too long.
    """
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise PictureError("broken", "form: found no boundary in its content type, expected one")
    files = [
        (begin, end)
        for head, begin, end in _parts(body, b"--" + (boundary[1] or boundary[2]).encode("latin-1"))
        if _FILE.search(_QUOTED.sub(b'""', head))
    ]
    if len(files) != 1:
        raise PictureError("broken" if files else "empty", f"form: found {len(files)} files, expected one")
    begin, end = files[0]
    if end - begin > most:
        raise PictureError("too_large", f"form: found a file of {end - begin} bytes, expected at most {most}")
    return body[begin:end]


def _parts(body: bytes, boundary: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The header lines of each part, and where its content begins and ends."""
    if not body.startswith(boundary):
        raise PictureError("broken", "form: found something else at its beginning, expected its boundary")
    at = len(boundary)
    for _ in range(_MOST_PARTS):
        if body.startswith(b"--", at):
            return
        begin = body.find(b"\r\n\r\n", at, at + _MOST_HEADER_BYTES)
        if begin < 0 or not body.startswith(b"\r\n", at):
            expected = f"a header of at most {_MOST_HEADER_BYTES} bytes"
            raise PictureError("broken", f"form: found a part without a header, expected {expected}")
        end = body.find(b"\r\n" + boundary, begin + 4)
        if end < 0:
            raise PictureError("truncated", f"form: found {len(body)} bytes, expected it to its end")
        yield body[at:begin], begin + 4, end
        at = end + 2 + len(boundary)
    raise PictureError("broken", f"form: found more than {_MOST_PARTS} parts, expected at most that")
