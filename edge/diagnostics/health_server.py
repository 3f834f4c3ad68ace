"""The HTTP health server: `/healthz` (alive), `/readyz` (recognising), `/metrics` (Prometheus) and `/status`.

`/status` is the whole health report, as on MQTT (docs/health.schema.json). The pictures of `edge.pictures` come from
here, too, if they are on. The server answers from its construction, so a device that is still building engines shows as
starting, not as dead. Each request must name a host that is the device (edge.http_server.access). The only module that
imports http.server.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from edge.config.schema import HealthConfig
from edge.diagnostics.metrics import READY, Device, MetricsPage
from edge.errors import ConfigError
from edge.http_server.access import is_known_host, own_names, wrong_host_message
from edge.http_server.listener import HttpListener
from edge.messaging.payload import health_payload
from edge.pictures.routes import Answer, PictureRoutes
from edge.supervised_thread import SupervisedThread
from edge.telemetry.counters import Counters

log = logging.getLogger(__name__)

HUNG_S = 30.0  # a frame loop without an iteration for this long hangs; same as WatchdogSec in systemd/edge.service
_SEND_TIMEOUT_S = 5.0  # for all of an answer, or one part of a stream
_JSON = "application/json"


class HealthServer:
    """Serves the health of one device: `with HealthServer(config) as server: server.attach(device)`."""

    def __init__(self, config: HealthConfig) -> None:
        """Listen, and report "starting" until a device is attached.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        host, port = config.host, config.port
        self._device: Device | None = None
        self.waiting_for: str | None = None  # why the device cannot start yet
        self._names = own_names(host, config.host_names)
        self.counts = _Counts()
        self.pictures: PictureRoutes | None = None
        self._metrics = MetricsPage()
        try:
            self.listener = HttpListener(host, port, "health", self.counts)
        except OSError as error:
            raise ConfigError(f"health: cannot listen on {host}:{port}: {error.strerror}") from error
        self.port = self.listener.port
        self._http = _Http(self)
        self._thread = SupervisedThread("health", self._http.serve_forever, self.counts)
        self._thread.start()
        log.info("health: http://%s:%d/healthz, /readyz, /status and /metrics", host, self.port)

    def __enter__(self) -> HealthServer:  # noqa: PYI034  Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.stop()

    def attach(self, device: Device, pictures: PictureRoutes | None = None) -> None:
        """Report on a running device from now on, and show its pictures."""
        self.counts.forward_to(device.counters)
        self._device, self.pictures = device, pictures

    def answer(self, target: str, headers: Mapping[str, str]) -> Answer:
        """Return the answer to a GET request; headers by lower-case name."""
        path, _, query = target.partition("?")
        if not is_known_host(headers, self._names):
            self.counts.add("health_refused", reason="wrong_host")
            return Answer(421, _JSON, _json({"error": wrong_host_message(headers, "health")}))
        pictures = self.pictures.answer(path, query, headers) if self.pictures else None
        return pictures or Answer(*self.respond(path))

    def respond(self, path: str) -> tuple[int, str, bytes]:
        """Return HTTP status, content type and body for a path."""
        device = self._device
        if path == "/metrics":
            return 200, self._metrics.content_type, self._metrics.render(device)
        report = device.report() if device else None
        state = report.state if report else "starting"
        body: dict[str, Any] = {"state": state, "cameras": dict(report.cameras) if report else {}}
        if report is None and self.waiting_for is not None:
            body["waiting_for"] = self.waiting_for
        if path == "/healthz":
            age_s = device.loop_age_s() if device else 0.0
            return (200 if age_s < HUNG_S else 503), _JSON, _json(body | {"loop_age_s": round(age_s, 1)})
        if path == "/readyz":
            return (200 if state in READY else 503), _JSON, _json(body)
        if path == "/status":
            return 200, _JSON, health_payload(report) + b"\n" if report else _json(body)
        return 404, _JSON, _json({"error": f"unknown path {path}; use /healthz, /readyz, /status or /metrics"})


class _Counts:
    """The counts of the server: kept until there is a device, and then the device's."""

    def __init__(self) -> None:
        self._counters = Counters()

    def add(self, name: str, amount: int = 1, /, **labels: str) -> None:
        """Add to a count."""
        self._counters.add(name, amount, **labels)

    def forward_to(self, counters: Counters) -> None:
        """Add what was counted so far to a device's counters, and count there from now on."""
        early, self._counters = self._counters, counters
        if early is not counters:
            for name, labels, count in early.items():
                counters.add(name, count, **dict(labels))


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode() + b"\n"


class _Http(ThreadingMixIn, TCPServer):
    """A thread for each connection that the listener lets in."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, server: HealthServer) -> None:
        super().__init__(("", 0), _handler(server), bind_and_activate=False)
        self.socket.close()
        self.socket: HttpListener = server.listener

    def service_actions(self) -> None:
        """Look after the connections, every half a second."""
        self.socket.close_overdue()

    def handle_error(self, *_: object) -> None:
        """Count a client that left; log anything else."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self.socket.count_left()
        else:
            log.error("health: a request failed", exc_info=error)


def _handler(server: HealthServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _SEND_TIMEOUT_S
        server_version, sys_version = "finesight", ""

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            with server.listener.answering(self.client_address[:2]):
                self._send(server.answer(self.path, headers))

        do_HEAD = do_GET  # noqa: N815

        def _send(self, answer: Answer) -> None:
            body = answer.body
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if isinstance(body, bytes):
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)
                return
            with contextlib.closing(body), contextlib.suppress(OSError):  # a client that leaves or is too slow
                self.end_headers()
                if self.command != "HEAD":
                    for part in body:
                        self.wfile.write(part)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            log.debug("health: " + format, *args)  # noqa: G003

    return Handler
