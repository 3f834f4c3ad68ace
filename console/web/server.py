"""The HTTP server of the console: turns requests into calls of handlers, and their answers into responses.

Rules this module keeps:
1. Who may do what is declared by the route and decided by console.access. Nothing is answered before that.
2. A request that changes something must come from one of the console's own pages, or carry a token.
3. No request ends in a traceback for its sender: our errors say what is wrong; others are logged, and answer 500.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from jinja2 import Environment
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount
from starlette.routing import Route as StarletteRoute
from starlette.staticfiles import StaticFiles

from console.access.gate import COOKIE, User
from console.services import Services
from console.web.rendering import make_environment, render
from console.web.routing import (
    API,
    Answer,
    Bytes,
    Call,
    Download,
    Event,
    Events,
    Html,
    Redirect,
    Route,
    UploadedFile,
    Values,
)
from edge.errors import BusyError, ConsoleError, FinesightError, PictureError, first_validation_error
from edge.http_server.access import is_known_host

log = logging.getLogger(__name__)

STATIC = Path(__file__).parents[1] / "static"
MAX_BODY_BYTES = 2_000_000  # of JSON and of a form without files
_MAX_INT = 2**53  # of a number in an address: larger ones are no id
_MAX_FILES = 2000
_STATUS = {
    "not_found": 404, "conflict": 409, "invalid": 422, "denied": 403, "too_large": 413, "busy": 503, "missing": 503,
    "limited": 429, "storage": 507,
}  # fmt: skip
_PICTURE_STATUS = {"too_large": 413, "not_a_picture": 415, "busy": 503}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def make_app(services: Services, routes: Iterable[Route], host_names: frozenset[str]) -> Starlette:
    """Return the ASGI application of a console."""
    environment = make_environment()
    handlers = [_Endpoint(one, services, environment, host_names) for one in routes]
    return Starlette(
        routes=[
            *(StarletteRoute(one.route.path, one, methods=[one.route.method]) for one in handlers),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        exception_handlers={HTTPException: _http_error},
    )


class _Endpoint:
    """Answers the requests of one route."""

    def __init__(self, route: Route, services: Services, environment: Environment, host_names: frozenset[str]) -> None:
        self.route, self._services, self._environment, self._host_names = route, services, environment, host_names

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        response = await self._respond(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        folder: list[Path] = []
        user: User | None = None
        try:
            if not is_known_host(request.headers, self._host_names):
                return self._error(request, None, 421, "wrong_host", "this console has another name; see --host-name")
            user = await run_in_threadpool(
                self._services.gate.identify, dict(request.headers), request.cookies.get(COOKIE, "")
            )
            self._require(request, user)
            call = await self._read(request, user or User("", "viewer"), folder)
            answer = await run_in_threadpool(self.route.handler, call)
            return await run_in_threadpool(self._response, answer, user)
        except Exception as error:  # noqa: BLE001  the one place where requests end
            return self._failure(request, user, error)
        finally:
            for one in folder:
                await run_in_threadpool(shutil.rmtree, one, ignore_errors=True)

    def _require(self, request: Request, user: User | None) -> None:
        """Refuse who may not."""
        if self.route.method != "GET" and "authorization" not in request.headers:
            origin = request.headers.get("origin")
            if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") or (
                origin is not None and origin.partition("://")[2] != request.headers.get("host", "")
            ):
                raise ConsoleError("denied", "a page of another server sent this; open the console at its own address")
        if self.route.access == "anyone":
            return
        if user is None:
            raise HTTPException(401)
        if not user.may(self.route.access):
            raise ConsoleError("denied", f"{user.name} is {user.role}; this needs the role {self.route.access}")

    async def _read(self, request: Request, user: User, folder: list[Path]) -> Call:
        path = dict(request.path_params)
        if any(isinstance(value, int) and value > _MAX_INT for value in path.values()):
            raise HTTPException(404)
        query = None
        if self.route.query is not None:
            query = _validated(self.route.query, _fields(request.query_params.multi_items(), self.route.query))
        elif request.query_params and self.route.is_api:
            raise ConsoleError("invalid", "this address takes no query")
        body: Any = None
        files: tuple[UploadedFile, ...] = ()
        if self.route.upload_bytes:
            fields, files = await _read_upload(request, self.route.upload_bytes, folder)
            if self.route.body is not None:
                body = _validated(self.route.body, _fields(fields, self.route.body))
        elif self.route.body is not None:
            body = _validated(self.route.body, _parse(request, await _read_body(request), self.route.body))
        client = request.client.host if request.client else ""
        secrets = {"cookie": request.cookies.get(COOKIE, ""), "client": client}
        return Call(self._services, user, path, query, body, files, secrets)

    def _response(self, answer: Answer, user: User | None) -> Response:  # noqa: PLR0911  one for each kind
        """Return the response of an answer."""
        match answer:
            case Html():
                return self._page(answer, user)
            case Values():
                values = answer.values
                tree = values.model_dump(mode="json") if isinstance(values, BaseModel) else dict(values)
                response: Response = JSONResponse({**tree, "says": answer.says, "go": answer.go}, answer.status)
                _set_cookie(response, answer.cookie)
                return response
            case Bytes():
                keep = f"private, max-age={answer.cache_s}" if answer.cache_s else "no-store"
                return Response(answer.data, media_type=answer.media_type, headers={"Cache-Control": keep})
            case Download():
                if isinstance(answer.data, Path):
                    return FileResponse(answer.data, media_type=answer.media_type, filename=answer.name)
                headers = {"Content-Disposition": f'attachment; filename="{answer.name}"'}
                return Response(answer.data, media_type=answer.media_type, headers=headers)
            case Events():
                stream = (_event_text(one) async for one in iterate_in_threadpool(answer.events))
                return StreamingResponse(
                    stream,
                    media_type="text/event-stream",
                    headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
                )
            case Redirect():
                redirect = RedirectResponse(answer.to, 303)
                _set_cookie(redirect, answer.cookie)
                return redirect

    def _page(self, answer: Html, user: User | None) -> Response:
        values = {**answer.values, "user": user, "settings": self._services.settings}
        text = render(self._environment, answer.template, values)
        return HTMLResponse(text, answer.status, headers={"Cache-Control": "no-store"})

    def _failure(self, request: Request, user: User | None, error: Exception) -> Response:  # noqa: PLR0911  likewise
        match error:
            case HTTPException(status_code=401):
                if not self.route.is_api and self.route.method == "GET":
                    return RedirectResponse("/login", 303)
                return self._error(request, user, 401, "no_token", "log in, or send Authorization: Bearer <token>")
            case HTTPException():
                return self._error(request, user, error.status_code, "not_found", "there is no such page")
            case ConsoleError():
                return self._error(request, user, _STATUS.get(error.reason, 400), error.reason, str(error))
            case BusyError():
                return self._error(request, user, 503, error.reason, str(error))
            case PictureError():
                return self._error(request, user, _PICTURE_STATUS.get(error.reason, 400), error.reason, str(error))
            case FinesightError():
                return self._error(request, user, 422, "failed", str(error))
        log.error("%s %s failed", request.method, request.url.path[:200], exc_info=error)
        return self._error(request, user, 500, "bug", "the console failed; its log says why")

    def _error(self, request: Request, user: User | None, status: int, reason: str, text: str) -> Response:
        if self.route.is_api or request.headers.get("accept", "").startswith("application/json"):
            return JSONResponse({"reason": reason, "error": text}, status)
        return self._page(Html("error.html", {"status_code": status, "reason": reason, "text": text}, status), user)


async def _read_body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise ConsoleError("too_large", f"the body is too long; send at most {MAX_BODY_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def _parse(request: Request, data: bytes, model: type[BaseModel]) -> Any:
    """Return the fields of a body, JSON or a form."""
    if request.headers.get("content-type", "").partition(";")[0].strip() == "application/x-www-form-urlencoded":
        return _fields(parse_qsl(data.decode("utf-8", "replace"), keep_blank_values=True), model)
    try:
        return json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise ConsoleError("invalid", "the body is no JSON") from error


def _fields(pairs: Iterable[tuple[str, str]], model: type[BaseModel]) -> dict[str, Any]:
    """Return the fields of a form or query: lists where the model has them; empty texts are absent."""
    lists = {
        name
        for name, one in model.model_fields.items()
        if "list[" in str(one.annotation).lower() or "tuple[" in str(one.annotation).lower()
    }
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in lists:
            found.setdefault(name, []).append(value)
        elif value != "" or (name in model.model_fields and model.model_fields[name].annotation is str):
            found[name] = value
    return found


def _validated(model: type[BaseModel], fields: Any) -> BaseModel:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise ConsoleError("invalid", first_validation_error(error)) from error
    except RecursionError as error:
        raise ConsoleError("invalid", "the body is nested too deeply") from error


async def _read_upload(
    request: Request, max_bytes: int, folder: list[Path]
) -> tuple[list[tuple[str, str]], tuple[UploadedFile, ...]]:
    """Read a form with files; they lie in a temporary folder."""
    if int(request.headers.get("content-length") or 0) > max_bytes:
        raise ConsoleError("too_large", f"the files are too large; send at most {max_bytes} bytes at once")
    folder.append(Path(tempfile.mkdtemp(prefix="finesight-console-")))
    try:
        form = await request.form(max_files=_MAX_FILES, max_fields=_MAX_FILES)
    except (HTTPException, MultiPartException) as error:
        raise ConsoleError("invalid", f"the form cannot be read: {getattr(error, 'detail', error)}") from error
    fields: list[tuple[str, str]] = []
    files: list[UploadedFile] = []
    for name, value in form.multi_items():
        if isinstance(value, str):
            fields.append((name, value))
            continue
        path = folder[0] / str(len(files))
        with path.open("wb") as file:
            while data := await value.read(1 << 20):
                file.write(data)
        files.append(UploadedFile(value.filename or "", path, path.stat().st_size))
    await form.close()
    return fields, tuple(files)


def _set_cookie(response: Response, cookie: str | None) -> None:
    if cookie is not None:
        response.set_cookie(COOKIE, cookie, httponly=True, samesite="strict", max_age=None if cookie else 0)


def _event_text(event: Event | None) -> str:
    if event is None:
        return ": alive\n\n"
    lines = "".join(f"data: {line}\n" for line in event.data.splitlines() or [""])
    return f"event: {event.name}\n{lines}\n"


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer where there is no such address, or it does not take this method."""
    status = error.status_code if isinstance(error, HTTPException) else 400
    text = {404: "there is no such page", 405: "this address does not take this method"}.get(
        status, "the request is wrong"
    )
    if request.url.path.startswith(API):
        return JSONResponse(
            {"reason": "not_found" if status == 404 else "method", "error": text}, status, headers=_HEADERS
        )
    return Response(text, status, headers=_HEADERS, media_type="text/plain")
