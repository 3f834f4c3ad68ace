"""Turns what a handler answered into a response: headers for caches, compression, cookies."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response

from console.access.gate import COOKIE
from console.access.sessions import LONGEST_S
from console.web.routing import Bytes, Download, Redirect, Values

GZIP_BYTES = 1000  # shorter ones are sent as they are
_GZIP_LEVEL = 5
_NEVER_SHOWN = ("html", "svg", "xml", "javascript")  # of what comes from outside
# a body from outside is no page of ours, whatever a browser makes of it
_OUTSIDE = {"Content-Security-Policy": "default-src 'none'; sandbox"}


def values_response(answer: Values, *, secure: bool) -> Response:
    """Return JSON."""
    values = answer.values
    tree = values.model_dump(mode="json") if isinstance(values, BaseModel) else dict(values)
    response = JSONResponse(
        {**tree, "says": answer.says, "go": answer.go}, answer.status, headers={"Cache-Control": "no-store"}
    )
    set_cookie(response, answer.cookie, secure=secure)
    return response


def bytes_response(answer: Bytes, request: Request) -> Response:
    """Return a picture or another small body; one that the browser has already is not sent again."""
    if any(one in answer.media_type for one in _NEVER_SHOWN):
        raise ValueError(f"{answer.media_type} may not be answered as it came from outside; use Download")
    if not answer.cache_s:
        return Response(answer.data, media_type=answer.media_type, headers={"Cache-Control": "no-store", **_OUTSIDE})
    tag = f'"{hashlib.sha256(answer.data).hexdigest()[:32]}"'
    headers = {"Cache-Control": f"private, max-age={answer.cache_s}", "ETag": tag, **_OUTSIDE}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(answer.data, media_type=answer.media_type, headers=headers)


def download_response(answer: Download) -> Response:
    """Return a file to save."""
    headers = {
        "Content-Disposition": f"attachment; filename*=utf-8''{quote(answer.name, safe='')}",
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'",
    }
    if isinstance(answer.data, Path):
        return FileResponse(answer.data, media_type=answer.media_type, headers=headers)
    return Response(answer.data, media_type=answer.media_type, headers=headers)


def redirect_response(answer: Redirect, *, secure: bool) -> Response:
    """Return a redirection to another page."""
    response = RedirectResponse(answer.to, 303, headers={"Cache-Control": "no-store"})
    set_cookie(response, answer.cookie, secure=secure)
    return response


def set_cookie(response: Response, cookie: str | None, *, secure: bool) -> None:
    """Give the browser a session, or end it with an empty one."""
    if cookie is not None:
        age_s = int(LONGEST_S) if cookie else 0
        response.set_cookie(COOKIE, cookie, httponly=True, samesite="strict", max_age=age_s, secure=secure)


def compress(response: Response, request: Request) -> None:
    """Compress a page or JSON for a browser that understands it."""
    response.headers.add_vary_header("Accept-Encoding")
    body = bytes(response.body)
    if len(body) < GZIP_BYTES or "gzip" not in request.headers.get("accept-encoding", ""):
        return
    response.body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
    response.headers["Content-Encoding"] = "gzip"
    response.headers["Content-Length"] = str(len(response.body))


def is_text(response: Response) -> bool:
    """Return whether a response is a page or JSON, held in memory."""
    kind = (response.media_type or "").partition(";")[0]
    return kind in {"text/html", "application/json"} and bool(getattr(response, "body", b""))


def error_body(reason: str, text: str) -> dict[str, Any]:
    """Return the JSON of an error."""
    return {"reason": reason, "error": text}


mimetypes.add_type("text/javascript", ".js")  # whatever this machine says
