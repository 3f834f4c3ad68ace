"""Builds a console from its settings, and runs it until it is stopped."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from console.access.gate import Gate
from console.background.tasks import Tasks
from console.models.models import Models
from console.services import Services
from console.settings import Settings
from console.storage.database import open_database
from console.tables import TABLES
from console.training.jobs import Jobs
from console.web.routes import ROUTES
from console.web.server import make_app
from edge.config.schema import TlsConfig
from edge.errors import ConfigError
from edge.http_server.access import own_names, verify_tls
from edge.http_server.listener import HttpListener
from edge.supervised_thread import SupervisedThread
from edge.telemetry.counters import Counters

_BUSY_S = 900.0  # the longest time to answer a request: an upload, or a stream of events, which browsers open again
_ACCEPTED_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the console listens."""

    host: str = "127.0.0.1"
    port: int = 8095  # 0: any free one
    host_names: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None


def open_services(settings: Settings, token: str | None) -> Services:
    """Open the data folder and build what handlers use.

    Raises:
        ConsoleError: the data folder cannot be used.
    """
    database = open_database(settings.data, TABLES)
    return Services(
        settings=settings,
        database=database,
        gate=Gate(database, token),
        models=Models(settings),
        jobs=Jobs(settings, database),
        tasks=Tasks(),
        clock=time.time,
    )


def close_services(services: Services) -> None:
    """Stop the tasks, and close the database. Jobs go on."""
    services.tasks.close()
    services.database.close()


class ConsoleServer:
    """Answers over HTTP: `with ConsoleServer(...) as server`."""

    def __init__(self, services: Services, listen: Listen, counters: Counters | None = None) -> None:
        """Open the listening socket.

        Raises:
            ConfigError: the address cannot be listened on, or the certificate cannot be loaded.
        """
        counters = counters or Counters()
        if listen.certificate is not None:
            try:
                verify_tls(TlsConfig(certificate=listen.certificate, key=listen.key or listen.certificate))
            except ConfigError as error:
                raise ConfigError(str(error).removeprefix("kiosk.tls: ")) from error
        try:
            self._listener = HttpListener(listen.host, listen.port, "console", counters, busy_s=_BUSY_S)
        except OSError as error:
            raise ConfigError(f"cannot listen on {listen.host}:{listen.port}: {error.strerror}") from error
        self.port = self._listener.port
        shown = f"[{listen.host}]" if ":" in listen.host else listen.host
        self.url = f"http{'s' if listen.certificate else ''}://{shown}:{self.port}"
        self._app = make_app(services, ROUTES, own_names(listen.host, listen.host_names))
        self._options = uvicorn.Config(
            self._guarded,
            interface="asgi3",
            loop="asyncio", http="h11", ws="none", lifespan="off", log_config=None, log_level="error",
            access_log=False, server_header=False, proxy_headers=False, timeout_graceful_shutdown=1,
            backlog=_ACCEPTED_AT_ONCE, callback_notify=self._look_after_connections, timeout_notify=1,
            ssl_certfile=listen.certificate, ssl_keyfile=listen.key,
        )  # fmt: skip
        self._uvicorn, self._stopping = uvicorn.Server(self._options), False
        self._thread = SupervisedThread("console-http", self._serve, counters)

    def __enter__(self) -> ConsoleServer:  # noqa: PYI034  Self is not in Python 3.10
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._uvicorn.should_exit = True
        self._thread.stop(5.0)
        self._listener.close()

    async def _guarded(self, scope: object, receive: object, send: object) -> None:
        with self._listener.answering(tuple(scope["client"] or ())):  # type: ignore[index]
            await self._app(scope, receive, send)  # type: ignore[arg-type]

    def _serve(self) -> None:
        self._uvicorn = uvicorn.Server(self._options)
        if not self._stopping:
            self._uvicorn.run(sockets=[self._listener])

    async def _look_after_connections(self) -> None:
        self._listener.close_overdue()


def serve(settings: Settings, listen: Listen, token: str | None = None) -> None:
    """Run the console until SIGTERM or SIGINT.

    Args:
        settings: what it works on.
        listen: where.
        token: that opens it on loopback; None: a new one.

    Raises:
        ConfigError: it cannot listen.
        ConsoleError: the data folder cannot be used.
    """
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    token = token or secrets.token_urlsafe(24)
    services = open_services(settings, token)
    try:
        with ConsoleServer(services, listen) as server:
            print(f"console: {server.url}/login?token={token}", flush=True)
            stopped.wait()
    finally:
        close_services(services)
