"""The HTTP health server: `/healthz` (alive), `/readyz` (recognising), `/metrics` (Prometheus) and `/status`.

`/status` is the whole health report, as on MQTT (docs/health.schema.json). The pictures of `edge.pictures` come from
here, too, if they are on. The server answers from its construction, so a device that is still building engines shows as
starting, not as dead. The only module that imports http.server and prometheus_client.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import isinf
from socketserver import TCPServer
from typing import Any, Protocol, get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from edge.errors import ConfigError
from edge.messaging.payload import health_payload
from edge.pictures.routes import Answer, PictureRoutes
from edge.telemetry.counters import COUNTER_HELP, Counters
from edge.telemetry.health_report import HealthReport, RuntimeState
from edge.telemetry.timing import StageTimer
from edge.types import CameraState

log = logging.getLogger(__name__)

HUNG_S = 30.0  # a frame loop without an iteration for this long hangs; same as WatchdogSec in systemd/edge.service
_REQUEST_TIMEOUT_S = 5.0
_PREFIX = "finesight"
_JSON = "application/json"
_READY: frozenset[RuntimeState] = frozenset({"running", "degraded"})


class Device(Protocol):
    """The part of a running device that the server threads use."""

    counters: Counters
    timer: StageTimer

    def report(self) -> HealthReport:
        """Return its current state."""

    def loop_age_s(self) -> float:
        """Return the seconds since the last iteration of its frame loop."""


class HealthServer:
    """Serves the health of one device: `with HealthServer(...) as server: server.attach(device)`."""

    def __init__(self, host: str, port: int) -> None:
        """Listen, and report "starting" until a device is attached.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        self._device: Device | None = None
        self.pictures: PictureRoutes | None = None
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        try:
            self._http = _Http((host, port), _handler(self))
        except OSError as error:
            raise ConfigError(f"health: cannot listen on {host}:{port}: {error.strerror}") from error
        self.port = self._http.server_port
        self._thread = threading.Thread(target=self._http.serve_forever, name="health", daemon=True)
        self._thread.start()
        log.info("health: http://%s:%d/healthz, /readyz, /status and /metrics", host, self.port)

    def __enter__(self) -> HealthServer:  # noqa: PYI034  Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def attach(self, device: Device, pictures: PictureRoutes | None = None) -> None:
        """Report on a running device from now on, and show its pictures."""
        self._device, self.pictures = device, pictures

    def respond(self, path: str) -> tuple[int, str, bytes]:
        """Return HTTP status, content type and body for a path."""
        device = self._device
        if path == "/metrics":
            text = generate_latest(self._process)
            if device is not None:
                text += generate_latest(_Families(device))
            return 200, CONTENT_TYPE_LATEST, text
        report = device.report() if device else None
        state = report.state if report else "starting"
        body: dict[str, Any] = {"state": state, "cameras": dict(report.cameras) if report else {}}
        if path == "/healthz":
            age_s = device.loop_age_s() if device else 0.0
            return (200 if age_s < HUNG_S else 503), _JSON, _json(body | {"loop_age_s": round(age_s, 1)})
        if path == "/readyz":
            return (200 if state in _READY else 503), _JSON, _json(body)
        if path == "/status":
            return 200, _JSON, health_payload(report) + b"\n" if report else _json(body)
        return 404, _JSON, _json({"error": f"unknown path {path}; use /healthz, /readyz, /status or /metrics"})


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without the library's reverse DNS look-up of the host, which blocks where no name server answers."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode() + b"\n"


def _handler(server: HealthServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_TIMEOUT_S  # a silent client does not hold a thread

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = server.pictures.answer(path, query, headers) if server.pictures else None
            self._send(answer or Answer(*server.respond(path)))

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


class _Families(Collector):
    """The device's counters, stage times and state as Prometheus families."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def collect(self) -> Iterable[Metric]:
        """Return every metric family with its current values."""
        yield from _counts(self._device.counters)
        stages = HistogramMetricFamily(f"{_PREFIX}_stage_seconds", "Seconds that each stage takes.", labels=["stage"])
        for stage, histogram in self._device.timer.histograms().items():
            buckets = [("+Inf" if isinf(bound_s) else str(bound_s), runs) for bound_s, runs in histogram.cumulative]
            stages.add_metric([stage], buckets, histogram.sum_s)
        yield stages
        yield from _gauges(self._device.report())


def _counts(counters: Counters) -> Iterable[Metric]:
    families: dict[str, Metric] = {}
    for name, labels, count in counters.items():
        full = f"{_PREFIX}_{name}"
        family = families.setdefault(name, Metric(full, COUNTER_HELP.get(name, name), "counter"))
        family.add_sample(f"{full}_total", dict(labels), count)
    return families.values()


def _gauges(report: HealthReport) -> Iterable[Metric]:
    for name, text, value in (
        ("ready", "1 while the device recognises.", report.state in _READY),
        ("uptime_seconds", "Seconds since the start.", report.uptime_s),
        ("outbox_events", "Messages that wait for the broker.", report.outbox_events),
        ("outbox_bytes", "Approximate bytes of the messages that wait.", report.outbox_bytes),
        ("mqtt_connected", "1 while connected to the broker.", report.mqtt_connected),
    ):
        family = GaugeMetricFamily(f"{_PREFIX}_{name}", text)
        family.add_metric([], float(value))
        yield family
    for name, text, measured in (
        ("gallery_age_seconds", "Seconds since the gallery was created.", report.gallery_age_s),
        (
            "gallery_drift",
            "Drift of the confidence of decisions since the gallery became active, 0..1.",
            report.gallery_drift,
        ),
        ("gallery_stale", "1 while the gallery should be updated.", float(bool(report.gallery_stale))),
    ):
        if measured is not None:
            family = GaugeMetricFamily(f"{_PREFIX}_{name}", text)
            family.add_metric([], measured)
            yield family
    degrees = GaugeMetricFamily(f"{_PREFIX}_temperature_celsius", "Temperature by sensor.", labels=["sensor"])
    for sensor, celsius in report.temperatures_c.items():
        degrees.add_metric([sensor], celsius)
    yield degrees
    if report.throttling is not None:
        slowed = GaugeMetricFamily(f"{_PREFIX}_throttling", "1 while the device is slowed down to keep cool.")
        slowed.add_metric([], float(report.throttling))
        yield slowed
    offsets = GaugeMetricFamily(
        f"{_PREFIX}_camera_clock_offset_seconds",
        "Clock of the camera minus the device's, for cameras that send their time.",
        labels=["camera"],
    )
    for camera, offset_s in report.clock_offsets_s.items():
        offsets.add_metric([camera], offset_s)
    yield offsets
    cameras = GaugeMetricFamily(
        f"{_PREFIX}_camera_state", "1 for the state a camera is in.", labels=["camera", "state"]
    )
    for camera, now in report.cameras.items():
        for state in get_args(CameraState):
            cameras.add_metric([camera, state], float(state == now))
    yield cameras
    in_view = GaugeMetricFamily(f"{_PREFIX}_objects_in_view", "Objects in view of a camera.", labels=["camera"])
    for camera, objects in report.in_view.items():
        in_view.add_metric([camera], objects)
    yield in_view
    info = GaugeMetricFamily(f"{_PREFIX}_info", "Versions; the value is always 1.", labels=list(report.versions))
    info.add_metric(list(report.versions.values()), 1.0)
    yield info
