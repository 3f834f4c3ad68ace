"""The HTTP server of the fleet: the JSON API, metrics and the inbox. With collector.http the only user of starlette.

The server has one thread of its own; the database is read in a thread pool.
"""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge.errors import CommandError, FinesightError, PictureError
from edge.http_server.access import own_names, tls_files
from edge.http_server.uvicorn_server import UvicornServer
from edge.kiosk.http import Uploads
from edge.strict_json import parse_json
from edge.telemetry.counters import Counters
from gallery_sync.collector import api, inbox, queries
from gallery_sync.collector.broker_link import BrokerLink
from gallery_sync.collector.commands import Commands, NotSentError, UnknownDeviceError, read_order
from gallery_sync.collector.database import Database
from gallery_sync.collector.http import Guard, RequestError, error_response, http_error
from gallery_sync.collector.inflow import Inflow
from gallery_sync.collector.metrics import metrics_text
from gallery_sync.collector.wakeups import WakeUps
from gallery_sync.formats.reports import LARGEST_REQUEST_BYTES

log = logging.getLogger(__name__)

_BUSY_S = 120.0  # the longest time to answer a request
_STOP_S = 5.0
_MOST_COUNTS = 200  # of one kind in a summary
_COMMAND = re.compile(r"[A-Za-z0-9._-]{1,80}")
_UPLOAD_STATUS = {"name": 400, "not_that": 415, "full": 507}
_BODY_STATUS = {"slow": 408, "too_large": 413}
Answer = Callable[[Request], Awaitable[Response]]
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the server answers from."""

    database: Database
    inflow: Inflow
    link: BrokerLink
    commands: Commands
    counters: Counters
    wakeups: tuple[WakeUps, ...] = ()  # of each repository that is watched
    inbox: inbox.Inbox | None = None


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the server listens, and who may ask."""

    host: str = "127.0.0.1"
    port: int = 8090  # 0: any free one
    token: str | None = None
    inbox_token: str | None = None
    host_names: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None


class FleetServer:
    """Answers over HTTP: `with FleetServer(...) as server`."""

    def __init__(self, parts: Parts, listen: Listen) -> None:
        """Open the listening socket.

        Raises:
            ConfigError: the address cannot be listened on, or the certificate cannot be loaded.
        """
        self._parts, self._uploads = parts, Uploads()
        tls = tls_files(listen.certificate, listen.key)
        self._server = UvicornServer("fleet", listen.host, listen.port, tls, parts.counters, busy_s=_BUSY_S)
        self.port, self.url = self._server.port, self._server.url
        names, tokens = own_names(listen.host, listen.host_names), (listen.token, listen.inbox_token)
        self._guarded = Guard(self._app(), self._server.listener, names, tokens, parts.counters)

    def __enter__(self) -> FleetServer:  # noqa: PYI034  Self is not in Python 3.10
        self._server.start(self._guarded)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(_STOP_S)

    def _app(self) -> Starlette:
        routes = [
            Route("/healthz", self._answering(self._health)),
            Route("/openapi.json", self._answering(self._openapi)),
            Route("/metrics", self._answering(self._metrics)),
            Route("/v1/devices", self._answering(self._devices)),
            Route("/v1/devices/{device}", self._answering(self._device)),
            Route("/v1/devices/{device}/commands", self._answering(self._send), methods=["POST"]),
            Route("/v1/commands", self._answering(self._kept)),
            Route("/v1/commands/{command}", self._answering(self._command)),
            Route("/v1/commands/{command}", self._answering(self._withdraw), methods=["DELETE"]),
            Route("/v1/summary", self._answering(self._summary)),
            Route("/inbox/{device}/{name}", self._answering(self._upload), methods=["PUT"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: http_error})

    def _answering(self, answer: Answer) -> Answer:
        """Turn our errors into responses."""

        async def guarded(request: Request) -> Response:
            try:
                return await answer(request)
            except FinesightError as error:
                status, reason = _status_of(error)
                if reason != "failed":
                    return self._refused(status, reason, str(error))
                self._parts.counters.add("http_failures")
                log.warning("a request failed: %s", error)
                return error_response(status, reason, str(error))

        return guarded

    def _refused(self, status: int, reason: str, text: str) -> Response:
        self._parts.counters.add("http_refused", reason=reason)
        return error_response(status, reason, text)

    async def _health(self, _: Request) -> Response:
        problem = self._parts.link.problem
        return JSONResponse({"broker": problem is None, "problem": problem})

    async def _openapi(self, request: Request) -> Response:
        api.read_no_query(_pairs(request))
        return JSONResponse(api.openapi())

    async def _metrics(self, request: Request) -> Response:
        api.read_no_query(_pairs(request))
        text = await run_in_threadpool(self._read_metrics)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _devices(self, request: Request) -> Response:
        query = api.read_device_query(_pairs(request))
        return Response(await run_in_threadpool(self._read_page, query), media_type="application/json")

    async def _device(self, request: Request) -> Response:
        api.read_no_query(_pairs(request))
        device = request.path_params["device"]
        found = await run_in_threadpool(self._read, lambda db: queries.find_device(db, device))
        if found is None:
            raise UnknownDeviceError(f"no device {device[:80]!r} has reported")
        return JSONResponse(found)

    async def _send(self, request: Request) -> Response:
        api.read_no_query(_pairs(request))
        body = await self._uploads.read(request, LARGEST_REQUEST_BYTES)
        try:
            order = read_order(parse_json(body, LARGEST_REQUEST_BYTES))
        except ValueError as error:
            raise CommandError(f"the body is not JSON: {error}") from error
        device = request.path_params["device"]
        done = await run_in_threadpool(self._parts.commands.send, device, order)
        state = "sent" if done.is_sent else "waiting"
        return JSONResponse({"id": done.id, "state": state, "until": done.until}, status_code=202)

    async def _kept(self, request: Request) -> Response:
        api.read_no_query(_pairs(request))
        return JSONResponse({"commands": await run_in_threadpool(self._read, queries.find_kept_commands)})

    async def _withdraw(self, request: Request) -> Response:
        by, command = api.read_by_query(_pairs(request)), request.path_params["command"]
        if not await run_in_threadpool(self._parts.commands.withdraw, command, by):
            raise RequestError(409, "not_waiting", f"command {command[:80]!r} does not wait: it was sent, or ended")
        return JSONResponse({"withdrawn": True})

    async def _command(self, request: Request) -> Response:
        api.read_no_query(_pairs(request))
        command = request.path_params["command"]
        if _COMMAND.fullmatch(command):
            found = await run_in_threadpool(self._read, lambda db: queries.find_command(db, command))
            if found is not None:
                return JSONResponse(found)
        raise RequestError(404, "not_found", f"there is no command {command[:80]!r}")

    async def _summary(self, request: Request) -> Response:
        line = api.read_line_query(_pairs(request))
        fleet = await run_in_threadpool(self._read, lambda db: queries.count_fleet(db, time.time(), line))
        counts = {f"by_{name}": queries.bounded(fleet.by(name), _MOST_COUNTS) for name in queries.COUNTED_BY}
        return JSONResponse(
            {
                "devices": fleet.devices,
                "silent": fleet.silent,
                "failed": fleet.failed,
                "oldest_report": fleet.oldest_report,
                **counts,
                "waiting_for_turn": self._held(),
            }
        )

    async def _upload(self, request: Request) -> Response:
        api.read_no_query(_pairs(request))
        box, counters = self._parts.inbox, self._parts.counters
        if box is None:
            raise RequestError(404, "not_found", "this server has no inbox; start it with --inbox FOLDER")
        device, name = request.path_params["device"], request.path_params["name"]
        try:
            box.check(device, name)
            body = await self._uploads.read(request, inbox.LARGEST_BYTES)
            is_new = await run_in_threadpool(box.put, device, name, body)
        except inbox.RefusedUploadError as error:
            counters.add("uploads", result=error.reason)
            raise RequestError(_UPLOAD_STATUS[error.reason], error.reason, str(error)) from error
        counters.add("uploads", result="stored")
        return JSONResponse({"new": is_new}, status_code=201)

    def _held(self) -> dict[str, int]:
        """Return how many devices wait for a turn, by the value of the label that their group shares."""
        held: Counter[str] = Counter()
        for one in self._parts.wakeups:
            held.update(one.held)
        return dict(held)

    def _read(self, find: Callable[[sqlite3.Connection], _Found]) -> _Found:
        with self._parts.database.reading() as db:
            return find(db)

    def _read_page(self, query: queries.DeviceQuery) -> str:
        page = self._read(lambda db: queries.find_devices(db, query, time.time()))
        return f'{{"devices": [{", ".join(page.rows)}], "next": {json.dumps(page.next_device)}}}'

    def _read_metrics(self) -> str:
        parts, now = self._parts, time.time()
        fleet = self._read(lambda db: queries.count_fleet(db, now))
        oldest = 0.0 if fleet.oldest_report is None else max(0.0, now - fleet.oldest_report)
        gauges = {
            "oldest_report_seconds": ("Age of the oldest last report of a device.", oldest),
            "database_bytes": ("Size of the database.", float(parts.database.size())),
            "inflow_messages": ("Messages that wait for the database.", float(parts.inflow.depth())),
            "broker_connected": ("Whether there is a connection to the broker.", float(parts.link.connected)),
            "waiting_for_turn": (
                "Devices that wait for a turn because others of their group are unavailable.",
                float(sum(self._held().values())),
            ),
        }
        return metrics_text(fleet, parts.counters, gauges)


def _status_of(error: FinesightError) -> tuple[int, str]:
    """Return the status and the reason code of the response to an error."""
    if isinstance(error, RequestError):
        return error.status, error.reason
    if isinstance(error, UnknownDeviceError):
        return 404, "not_found"
    if isinstance(error, NotSentError):
        return 503, "not_sent"
    if isinstance(error, CommandError):
        return 400, "wrong_request"
    if isinstance(error, PictureError):  # of a body that is received
        return _BODY_STATUS.get(error.reason, 400), error.reason
    return 503, "failed"


def _pairs(request: Request) -> list[tuple[str, str]]:
    return list(request.query_params.multi_items())
