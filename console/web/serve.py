"""Builds a console from its settings, and runs it until it is stopped."""

from __future__ import annotations

import secrets
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from console.access.gate import Gate
from console.access.listening import decide_access
from console.background.tasks import Tasks
from console.boxes.label_jobs import follow_jobs
from console.fleet.fleet import Fleet
from console.galleries.repository import SignedGallery
from console.models.models import Models
from console.review.review import Review
from console.search.turns import Turns
from console.services import Services
from console.sets.file_store import FileStore
from console.settings import Settings
from console.storage.database import open_database
from console.storage.folder_lock import locked_folder
from console.tables import TABLES
from console.training.jobs import Jobs
from console.web.routes import ROUTES
from console.web.routing import Route
from console.web.server import make_app
from console.web.site import Site
from console.web.streams import Streams
from edge.http_server.access import own_names, tls_files
from edge.http_server.uvicorn_server import UvicornServer
from edge.telemetry.systemd import notify_systemd

_BUSY_S = 900.0  # the longest time to answer a request: an upload, or a stream of events, which browsers open again
_STOP_S = 5.0
_SIGNAL_S = 0.5  # the kernel may give a signal to another thread; Python handles it when this one runs


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the console listens."""

    host: str = "127.0.0.1"
    port: int = 8095  # 0: any free one
    host_names: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    proxy_https: bool = False  # a proxy in front of it ends TLS


def open_services(settings: Settings, token: str | None) -> Services:
    """Open the data folder and build what handlers use.

    Raises:
        ConsoleError: the data folder cannot be used.
    """
    database = open_database(settings.data, TABLES)
    FileStore(settings, database).clean_up()
    models, tasks = Models(settings), Tasks()
    services = Services(
        settings=settings,
        database=database,
        gate=Gate(database, token),
        gallery=SignedGallery(settings),
        models=models,
        turns=Turns(),
        review=Review(database, models, tasks),
        jobs=Jobs(settings, database),
        tasks=tasks,
        fleet=Fleet(settings),
        clock=time.time,
    )
    follow_jobs(services.jobs, database, settings, services.clock)
    services.jobs.run()  # after everything that calls jobs.when_done
    return services


def close_services(services: Services) -> None:
    """Stop the tasks, and close the database. Jobs go on."""
    services.tasks.close()
    services.jobs.close()
    services.database.close()


class ConsoleServer:
    """Answers over HTTP: `with ConsoleServer(...) as server`."""

    def __init__(
        self,
        services: Services,
        listen: Listen,
        routes: Iterable[Route] = ROUTES,
    ) -> None:
        """Open the listening socket.

        Raises:
            ConfigError: the address cannot be listened on, or the certificate cannot be loaded.
        """
        tls = tls_files(listen.certificate, listen.key)
        counters = services.gate.counters
        self._server = UvicornServer("console", listen.host, listen.port, tls, counters, busy_s=_BUSY_S)
        self.url = self._server.url
        self._streams = Streams()
        names = own_names(listen.host, listen.host_names)
        site = Site(names, has_tls=tls is not None, proxy_https=listen.proxy_https)
        self._app = make_app(services, routes, site, self._streams)

    def __enter__(self) -> ConsoleServer:  # noqa: PYI034  Self is not in Python 3.10
        self._server.start(self._app)
        return self

    def __exit__(self, *_: object) -> None:
        self._streams.end_all()
        self._server.stop(_STOP_S)


def serve(
    settings: Settings, listen: Listen, prepare: Callable[[Services], None] | None = None, token: str | None = None
) -> None:
    """Run the console until SIGTERM or SIGINT.

    Args:
        settings: what it works on.
        listen: where.
        prepare: is called before it listens; None: nothing to do.
        token: that opens it on loopback; None: a new one.

    Raises:
        ConfigError: it cannot listen, or may not where it should.
        ConsoleError: another console runs on the data folder, or it cannot be used.
    """
    stopped = threading.Event()
    token = token or secrets.token_urlsafe(24)
    with locked_folder(settings.data):
        shutil.rmtree(settings.incoming, ignore_errors=True)  # of a console that was killed
        services = open_services(settings, token)
        try:
            opened_by = _opened_by(services, listen)
            if prepare is not None:
                prepare(services)
            with ConsoleServer(services, listen) as server:
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, lambda *_: stopped.set())
                more = f"?token={token}" if opened_by == "token" else ""
                print(f"console: {server.url}/login{more}", flush=True)
                notify_systemd("READY=1")
                while not stopped.wait(_SIGNAL_S):
                    pass
                notify_systemd("STOPPING=1")
        finally:
            close_services(services)


def _opened_by(services: Services, listen: Listen) -> Literal["token", "login"]:
    """Return what opens the console, and let nothing else open it."""
    opened_by = decide_access(
        listen.host,
        users=services.gate.count_users(),
        has_tls=listen.certificate is not None,
        proxy_https=listen.proxy_https,
    )
    if opened_by == "login":
        services.gate.withdraw_token()
    return opened_by
