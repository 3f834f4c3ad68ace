"""The HTTP server of the console: turns requests into calls of handlers, and their answers into responses.

Rules this module keeps:
1. Who may do what is declared by the route and decided by console.access. Nothing is answered before that.
2. A request that changes something must come from one of the console's own pages, or carry a token.
3. No request ends in a traceback for its sender: our errors say what is wrong; others are counted and logged, once, and
   answer 500.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from jinja2 import Environment
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount
from starlette.routing import Route as StarletteRoute

from console.access.gate import COOKIE, User
from console.access.login_limits import TooManyAttemptsError
from console.access.origin import is_foreign
from console.services import Services
from console.web import responses
from console.web.bodies import LARGEST_NUMBER, check_values, fields_of, read_fields, read_upload, validated
from console.web.rendering import make_environment, render
from console.web.routing import API, Answer, Bytes, Call, Download, Events, Html, Redirect, Route, UploadedFile, Values
from console.web.site import Site
from console.web.static_files import static_files
from console.web.streams import Streams
from edge.errors import BusyError, ConsoleError, FinesightError, PictureError
from edge.http_server.access import is_known_host

log = logging.getLogger(__name__)

_BUSY_S = 5  # after which somebody who found the console busy may try again

_STATUS = {
    "not_found": 404, "conflict": 409, "invalid": 422, "denied": 403, "too_large": 413, "busy": 503, "missing": 503,
    "limited": 429, "storage": 507, "wrong_password": 401, "another_user": 401, "slow": 408, "unsupported": 415,
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
_FAILED = "the console failed; its log says why"


def make_app(services: Services, routes: Iterable[Route], site: Site, streams: Streams) -> Starlette:
    """Return the ASGI application of a console."""
    environment = make_environment()
    by_path: dict[str, list[Route]] = defaultdict(list)
    for one in routes:
        by_path[one.path].append(one)
    endpoints = [
        StarletteRoute(
            path,
            _ByMethod({one.method: _Endpoint(one, services, environment, site, streams) for one in of_path}),
            methods=[one.method for one in of_path],
        )
        for path, of_path in by_path.items()
    ]

    def unknown(request: Request, error: Exception) -> Response:
        return _unknown(request, error, environment, services)

    return Starlette(
        routes=[*endpoints, Mount("/static", static_files(_HEADERS))], exception_handlers={HTTPException: unknown}
    )


class _ByMethod:
    """Answers the requests of one address."""

    def __init__(self, endpoints: dict[str, _Endpoint]) -> None:
        self._endpoints = endpoints

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        method = scope["method"]
        await self._endpoints["GET" if method == "HEAD" else method](scope, receive, send)


class _Endpoint:
    """Answers the requests of one route."""

    def __init__(
        self, route: Route, services: Services, environment: Environment, site: Site, streams: Streams
    ) -> None:
        self.route, self._services, self._environment, self._site = route, services, environment, site
        self._streams = streams

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        begun = False

        async def send_once_begun(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            response = await self._respond(request)
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            await response(scope, receive, send_once_begun)
        except ClientDisconnect:
            self._services.gate.counters.add("http_left")
        except Exception as error:  # noqa: BLE001  such as a file that vanished after the handler named it
            failure = self._bug(request, None, error)
            if not begun:
                await failure(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        folders: list[Path] = []
        user: User | None = None
        try:
            if not is_known_host(request.headers, self._site.host_names):
                return self._error(request, None, 421, "wrong_host", "this console has another name; see --host-name")
            cookie = request.cookies.get(COOKIE, "")
            user = await run_in_threadpool(self._services.gate.identify, dict(request.headers), cookie)
            self._require(request, user)
            call = await self._read(request, user or User("", "viewer"), folders)
            answer = await run_in_threadpool(self.route.handler, call)
            return await run_in_threadpool(self._response, request, answer, user)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001  the one place where requests end
            return await run_in_threadpool(self._failure, request, user, error)
        finally:
            for one in folders:
                await run_in_threadpool(shutil.rmtree, one, ignore_errors=True)

    def _require(self, request: Request, user: User | None) -> None:
        """Refuse who may not."""
        if self.route.method != "GET":
            has_cookie = "authorization" not in request.headers and COOKIE in request.cookies
            if is_foreign(request.headers, self._site.schemes, has_cookie=has_cookie):
                raise ConsoleError("denied", "a page of another server sent this; open the console at its own address")
        if self.route.access == "anyone":
            return
        if user is None:
            raise HTTPException(401)
        if not user.may(self.route.access):
            raise ConsoleError("denied", f"{user.name} is {user.role}; this needs the role {self.route.access}")

    async def _read(self, request: Request, user: User, folders: list[Path]) -> Call:
        route, path, query, body = self.route, dict(request.path_params), None, None
        for value in path.values():
            if (isinstance(value, int) and value > LARGEST_NUMBER) or (isinstance(value, str) and "\0" in value):
                raise HTTPException(404)
        files: tuple[UploadedFile, ...] = ()
        pairs = request.query_params.multi_items()
        if route.query is not None:
            query = validated(route.query, fields_of(pairs, route.query))
        elif pairs and route.method == "DELETE" and route.body is not None:  # where htmx puts the fields of a form
            body = validated(route.body, fields_of(pairs, route.body))
        elif pairs and route.is_api:
            raise ConsoleError("invalid", "this address takes no query")
        if route.upload_bytes:
            folders.append(await run_in_threadpool(_new_folder, self._services.settings.incoming))
            fields, files = await read_upload(request, route.upload_bytes, folders[0], self._site.pace)
            check_values(fields)
            if route.body is not None:
                body = validated(route.body, fields_of(fields, route.body))
        elif route.body is not None and body is None:
            body = await read_fields(request, route.body, self._site.pace)
        return Call(self._services, user, path, query, body, files, self._site.client_of(request))

    def _response(self, request: Request, answer: Answer, user: User | None) -> Response:
        """Return the response of an answer."""
        secure = self._site.is_secure
        match answer:
            case Html():
                response = self._page(answer, user)
            case Values():
                response = responses.values_response(answer, secure=secure)
            case Bytes():
                response = responses.bytes_response(answer, request)
            case Download():
                response = responses.download_response(answer)
            case Events():
                client = self._site.client_of(request).address
                session = f"session {user.session}" if user and user.session else f"{user and user.name} {client}"
                response = self._streams.open(session, answer.events)
            case Redirect():
                response = responses.redirect_response(answer, secure=secure)
        if responses.is_text(response):
            responses.compress(response, request)
        return response

    def _page(self, answer: Html, user: User | None) -> Response:
        values = {**answer.values, "user": user, "settings": self._services.settings}
        text = render(self._environment, answer.template, values)
        return HTMLResponse(text, answer.status, headers={"Cache-Control": "no-store"})

    def _failure(self, request: Request, user: User | None, error: Exception) -> Response:
        match error:
            case HTTPException(status_code=401):
                return self._log_in_first(request)
            case HTTPException():
                found = error.status_code, "not_found", "there is no such page"
            case TooManyAttemptsError():
                response = self._error(request, user, 429, error.reason, str(error))
                response.headers["Retry-After"] = str(int(error.wait_s) + 1)
                return response
            case ConsoleError():
                found = _STATUS.get(error.reason, 400), error.reason, str(error)
            case BusyError():
                found = 503, error.reason, str(error)
            case PictureError():
                found = _PICTURE_STATUS.get(error.reason, 400), error.reason, str(error)
            case FinesightError():
                found = 422, "failed", str(error)
            case _:
                return self._bug(request, user, error)
        response = self._error(request, user, *found)
        if found[0] == 408:
            response.headers["Connection"] = "close"
        if found[1] == "busy":
            response.headers["Retry-After"] = str(getattr(error, "retry_after_s", _BUSY_S))
        return response

    def _bug(self, request: Request, user: User | None, error: Exception) -> Response:
        self._services.gate.counters.add("http_failures")
        log.error("%s %s failed", request.method, request.url.path[:200], exc_info=error)
        try:
            return self._error(request, user, 500, "bug", _FAILED)
        except Exception:  # noqa: BLE001  the template of errors has the bug, which is logged
            return PlainTextResponse(_FAILED, 500, headers=_HEADERS)

    def _log_in_first(self, request: Request) -> Response:
        """Show the page to log in, and come back afterwards; a program gets an error."""
        text = "log in, or send Authorization: Bearer <token>"
        if "hx-request" in request.headers and not self.route.is_api:  # a part of a page: it goes to the log-in whole
            headers = {"HX-Redirect": _login_from(request.headers.get("hx-current-url", ""))}
        elif not self.route.is_api and self.route.method == "GET":
            return RedirectResponse(_login_from(str(request.url)), 303, headers={"Cache-Control": "no-store"})
        else:
            headers = {"WWW-Authenticate": "Bearer"}
        return JSONResponse(responses.error_body("no_token", text), 401, headers=headers)

    def _error(self, request: Request, user: User | None, status: int, reason: str, text: str) -> Response:
        if self.route.is_api or request.headers.get("accept", "").startswith("application/json"):
            return JSONResponse(responses.error_body(reason, text), status, headers={"Cache-Control": "no-store"})
        return self._page(Html("error.html", {"status_code": status, "reason": reason, "text": text}, status), user)


def _login_from(url: str) -> str:
    """Return the address to log in, which leads back to a page."""
    try:
        parts = urlsplit(url)
    except ValueError:  # a client may send anything
        return "/login"
    wanted = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return f"/login?next={quote(wanted, safe='/')}" if wanted.strip("/") else "/login"


def _new_folder(incoming: Path) -> Path:
    try:
        incoming.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=incoming))
    except OSError as error:
        raise ConsoleError("storage", f"{incoming}: cannot be written: {error.strerror}") from error


def _unknown(request: Request, error: Exception, environment: Environment, services: Services) -> Response:
    """Answer where there is no such address, or it does not take this method."""
    status = error.status_code if isinstance(error, HTTPException) else 400
    headers = {**_HEADERS, **(dict(error.headers or {}) if isinstance(error, HTTPException) else {})}
    reason, text = {
        404: ("not_found", "there is no such page"),
        405: ("method", "this address does not take this method"),
    }.get(status, ("invalid", "the request is wrong"))
    if request.url.path.startswith(API) or "text/html" not in request.headers.get("accept", ""):
        return JSONResponse(responses.error_body(reason, text), status, headers=headers)
    values = {"status_code": status, "reason": reason, "text": text, "user": None, "settings": services.settings}
    return HTMLResponse(render(environment, "error.html", values), status, headers=headers)
