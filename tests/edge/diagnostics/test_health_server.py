"""The HTTP health endpoints."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
import struct
import threading
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from edge.cli import main
from edge.config.schema import HealthConfig
from edge.diagnostics.health_server import HUNG_S, HealthServer
from edge.errors import ConfigError
from edge.http_server.listener import MAX_OPEN, HttpListener
from edge.pictures.routes import Answer
from edge.telemetry.counters import Counters
from edge.telemetry.health_report import AgentReport, HealthReport, ServedRelease, TaughtCounts, WaitingUnknowns
from edge.telemetry.timing import StageTimer
from tests.fakes import health_report

SCHEMA = Path(__file__).parents[3] / "docs/health.schema.json"


class FakeDevice:
    def __init__(self) -> None:
        self.counters = Counters()
        self.timer = StageTimer()
        self.age_s = 0.2
        self.now = health_report(
            cameras={"door": "online", "yard": "stalled"},
            outbox_events=3,
            versions={"edge": "0.1.0", "bundle": "b1", "gallery": "g1"},
        )

    def report(self) -> HealthReport:
        return self.now

    def loop_age_s(self) -> float:
        return self.age_s


@pytest.fixture
def server():
    with HealthServer(HealthConfig(port=0)) as running:
        yield running


def get(server: HealthServer, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(method, path)
    response = connection.getresponse()
    status, body = response.status, response.read()
    connection.close()
    return status, body


def samples(server: HealthServer) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    _, body = get(server, "/metrics")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_metrics_hold_the_release_the_update_agent_and_the_taught_items(server):
    device = FakeDevice()
    update = AgentReport("trial", written_at=device.now.at - 3, expires_at=device.now.at + 60, warn_at=device.now.at)
    release, taught = ServedRelease("shop", 4, 9), TaughtCounts(3, 2, 0, 1)
    device.now = replace(device.now, update=update, release=release, trial="t-4", taught=taught)
    device.now = replace(device.now, unknowns=WaitingUnknowns(2, 90_000))
    server.attach(device)
    found = samples(server)
    assert found["finesight_release_sequence", (("line", "shop"),)] == 4
    assert found["finesight_release_gallery_sequence", (("line", "shop"),)] == 9
    assert found["finesight_on_trial", ()] == 1
    assert found["finesight_update_state", (("state", "trial"),)] == 1
    assert found["finesight_metadata_expiry_seconds", ()] == 60
    assert found["finesight_metadata_half_life", ()] == 1
    assert found["finesight_update_report_age_seconds", ()] == 3
    assert found["finesight_taught_items", (("state", "waiting"),)] == 1
    assert (found["finesight_unknowns_waiting", ()], found["finesight_unknowns_bytes", ()]) == (2, 90_000)
    device.now = replace(device.now, update=None, release=None, trial=None, taught=None)
    left = {name for name, _ in samples(server)}
    assert not left & {"finesight_update_state", "finesight_release_sequence", "finesight_metadata_half_life"}


def test_starting_device_is_alive_but_not_ready(server):
    status, body = get(server, "/healthz")
    assert (status, json.loads(body)["state"]) == (200, "starting")
    assert get(server, "/readyz")[0] == 503
    assert get(server, "/metrics")[0] == 200


def test_running_device_is_ready_and_lists_its_cameras(server):
    server.attach(FakeDevice())
    status, body = get(server, "/readyz")
    assert status == 200
    assert json.loads(body) == {"state": "running", "cameras": {"door": "online", "yard": "stalled"}}


def test_stopping_device_is_not_ready(server):
    device = FakeDevice()
    device.now = replace(device.now, state="stopping")
    server.attach(device)
    assert get(server, "/readyz")[0] == 503
    assert get(server, "/healthz")[0] == 200


def test_hanging_frame_loop_is_not_alive(server):
    device = FakeDevice()
    server.attach(device)
    device.age_s = HUNG_S + 1
    status, body = get(server, "/healthz")
    assert (status, json.loads(body)["loop_age_s"]) == (503, HUNG_S + 1)


def test_metrics_hold_counters_histograms_and_states(server):
    device = FakeDevice()
    device.counters.add("frames_dropped", 4, camera="door", reason="superseded")
    device.counters.add("frames_dropped", 1, camera="yard", reason="stale")
    for elapsed_ms in (0.4, 3.0, 3.0, 9000.0):
        device.timer.add({"detect": elapsed_ms})
    server.attach(device)
    found = samples(server)
    dropped = "finesight_frames_dropped_total"
    assert found[dropped, (("camera", "door"), ("reason", "superseded"))] == 4
    assert found[dropped, (("camera", "yard"), ("reason", "stale"))] == 1
    buckets = {
        float(labels[0][1]): value
        for (name, labels), value in found.items()
        if name == "finesight_stage_seconds_bucket" and ("stage", "detect") in labels
    }
    assert (buckets[0.0005], buckets[0.002], buckets[0.005], buckets[5.0], buckets[math.inf]) == (1, 1, 3, 3, 4)
    assert found["finesight_stage_seconds_sum", (("stage", "detect"),)] == pytest.approx(9.0064)
    assert found["finesight_camera_state", (("camera", "yard"), ("state", "stalled"))] == 1
    assert found["finesight_camera_state", (("camera", "yard"), ("state", "online"))] == 0
    assert (found["finesight_ready", ()], found["finesight_outbox_events", ()]) == (1, 3)
    assert found["finesight_info", (("bundle", "b1"), ("edge", "0.1.0"), ("gallery", "g1"))] == 1
    assert found["process_resident_memory_bytes", ()] > 1e6


def test_unknown_path_is_named_and_head_has_no_body(server):
    status, body = get(server, "/secrets?x=1")
    assert status == 404
    assert json.loads(body) == {"error": "unknown path /secrets; use /healthz, /readyz, /status or /metrics"}
    assert get(server, "/healthz", "HEAD") == (200, b"")


def test_address_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"health: cannot listen on 127.0.0.1:{port}: Address already in use"):
            HealthServer(HealthConfig(port=port))


def test_temperature_and_throttling_are_reported_if_known(server):
    device = FakeDevice()
    server.attach(device)
    assert ("finesight_throttling", ()) not in samples(server)
    device.now = replace(device.now, temperatures_c={"CPU-therm": 61.5}, throttling=True)
    found = samples(server)
    assert found["finesight_temperature_celsius", (("sensor", "CPU-therm"),)] == 61.5
    assert found["finesight_throttling", ()] == 1.0


def test_wrong_camera_clock_is_reported(server, tmp_path, capsys):
    device = FakeDevice()
    server.attach(device)
    offset = "finesight_camera_clock_offset_seconds"
    assert (offset, (("camera", "door"),)) not in samples(server)
    device.now = replace(device.now, clock_offsets_s={"door": -3.25, "yard": 0.1}, clocks_off=("door",))
    found = samples(server)
    assert (found[offset, (("camera", "door"),)], found[offset, (("camera", "yard"),)]) == (-3.25, 0.1)
    config = tmp_path / "device.yaml"
    config.write_text(f"cameras: {{door: {{source: 'rtsp://h/a'}}}}\nhealth: {{port: {server.port}}}\n")
    assert main(["status", "-c", str(config)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "camera door: online, its clock -3.2 s from the device's" in printed
    assert "camera yard: stalled" in printed


def test_status_fits_the_health_schema(server):
    assert json.loads(get(server, "/status")[1]) == {"state": "starting", "cameras": {}}
    server.attach(FakeDevice())
    jsonschema.validate(json.loads(get(server, "/status")[1]), json.loads(SCHEMA.read_text()))


def test_edge_status_prints_the_running_device(server, tmp_path, capsys):
    device = FakeDevice()
    device.counters.add("frames_recognised", 7, camera="door")
    server.attach(device)
    config = tmp_path / "device.yaml"
    config.write_text(f"cameras: {{door: {{source: 'rtsp://h/a'}}}}\nhealth: {{port: {server.port}}}\n")
    assert main(["status", "-c", str(config)]) == 0
    printed = capsys.readouterr().out
    assert "camera yard: stalled" in printed
    assert "3 events wait" in printed
    assert main(["status", "--json", "-c", str(config)]) == 0
    assert json.loads(capsys.readouterr().out)["outbox_events"] == 3


def test_edge_status_without_a_running_device_is_an_error(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = tmp_path / "device.yaml"
    config.write_text(f"cameras: {{door: {{source: 'rtsp://h/a'}}}}\nhealth: {{port: {port}}}\n")
    assert main(["status", "-c", str(config)]) == 1
    assert f"127.0.0.1:{port}/status: no answer" in capsys.readouterr().err


def test_edge_status_without_a_health_section_is_an_error(tmp_path, capsys):
    config = tmp_path / "device.yaml"
    config.write_text("cameras: {door: {source: 'rtsp://h/a'}}\n")
    assert main(["status", "-c", str(config)]) == 1
    assert "has no health section" in capsys.readouterr().err


def test_engines_that_are_built_are_reported(server):
    device = FakeDevice()
    server.attach(device)
    found = samples(server)
    assert (found["finesight_engines_building", ()], found["finesight_gpu_fallback", ()]) == (0.0, 0.0)
    assert ("finesight_engines_left_seconds", ()) not in found
    device.now = replace(
        device.now,
        state="degraded",
        gpu_fallback="building engine 2 of 7",
        engines_building=6,
        engines_left_s=540.0,
    )
    found = samples(server)
    names = ("engines_building", "engines_left_seconds", "gpu_fallback")
    assert [found[f"finesight_{name}", ()] for name in names] == [6.0, 540.0, 1.0]
    jsonschema.validate(json.loads(get(server, "/status")[1]), json.loads(SCHEMA.read_text()))


def test_stale_gallery_is_reported_with_age_and_drift(server, tmp_path, capsys):
    device = FakeDevice()
    server.attach(device)
    found = samples(server)
    assert found["finesight_gallery_stale", ()] == 0.0
    assert ("finesight_gallery_drift", ()) not in found
    device.now = replace(
        device.now,
        gallery_age_s=36 * 86400.0,
        gallery_drift=0.4,
        gallery_stale=("it is 36 days old, more than 30",),
    )
    found = samples(server)
    names = ("age_seconds", "drift", "stale")
    assert [found[f"finesight_gallery_{name}", ()] for name in names] == [36 * 86400.0, 0.4, 1.0]
    jsonschema.validate(json.loads(get(server, "/status")[1]), json.loads(SCHEMA.read_text()))
    config = tmp_path / "device.yaml"
    config.write_text(f"cameras: {{door: {{source: 'rtsp://h/a'}}}}\nhealth: {{port: {server.port}}}\n")
    assert main(["status", "-c", str(config)]) == 0
    assert "gallery is stale: it is 36 days old, more than 30" in capsys.readouterr().out.splitlines()


@settings(derandomize=True, max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=30) | st.sampled_from(["/healthz", "/readyz", "/status", "/metrics", "/"]))
def test_any_path_gets_a_response(server, path):
    status, _, body = server.respond(path)
    assert status in {200, 404, 503}
    assert body


class Pictures:
    """Answers like edge.pictures.routes; a body of parts ends after two, or when the client leaves."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def answer(self, path: str, query: str, headers: dict[str, str]) -> Answer | None:
        if path == "/snapshot/door.jpg":
            text = json.dumps([query, headers["x-test"]]).encode()
            return Answer(200, "image/jpeg", text, {"X-Event-Id": "e1"})
        return Answer(200, "multipart/x-mixed-replace", self) if path == "/live/door" else None

    def __iter__(self):
        yield b"one"
        yield b"two"

    def close(self) -> None:
        self.closed.set()


def test_pictures_are_answered_with_query_headers_and_all_parts(server):
    pictures = Pictures()
    server.attach(FakeDevice(), pictures)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/snapshot/door.jpg?a=b", headers={"X-Test": "yes"})
    response = connection.getresponse()
    assert (response.headers["X-Event-Id"], json.loads(response.read())) == ("e1", ["a=b", "yes"])
    assert get(server, "/live/door") == (200, b"onetwo")
    assert pictures.closed.wait(60)
    assert get(server, "/healthz")[0] == 200


def test_stream_is_closed_also_if_nothing_of_it_is_sent(server):
    pictures = Pictures()
    server.attach(FakeDevice(), pictures)
    assert get(server, "/live/door", "HEAD") == (200, b"")
    assert pictures.closed.wait(60)


def test_objects_in_view_are_a_metric(server):
    device = FakeDevice()
    device.now = replace(device.now, in_view={"door": 3})
    server.attach(device)
    assert samples(server)["finesight_objects_in_view", (("camera", "door"),)] == 3.0


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/status", "/metrics", "/live", "/snapshot/door.jpg", "/none"])
def test_other_host_names_are_refused_on_every_path(path):
    """Another website may have pointed a name of its own at this device."""
    with HealthServer(HealthConfig(port=0, host_names=["shelf-1.lan"])) as server:
        server.attach(device := FakeDevice(), Pictures())
        refused = server.answer(path, {"host": "evil.example:9464"})
        assert refused.status == 421
        assert "add the name to health.host_names" in json.loads(refused.body)["error"]
        assert device.counters.total("health_refused", reason="wrong_host") == 1
        for host in ("shelf-1.lan:9464", "192.0.2.31:9464", "localhost"):
            assert server.answer(path, {"host": host, "x-test": "yes"}).status in {200, 404}


def read_all(client: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionResetError):
        return b"".join(iter(lambda: client.recv(65536), b""))
    return b""


def test_silent_connections_keep_nobody_out(server):
    with contextlib.ExitStack() as stack:
        for _ in range(2 * MAX_OPEN):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))
            client.sendall(b"GET /")
        assert get(server, "/healthz")[0] == 200
    server.attach(device := FakeDevice())  # what was counted before there was a device is not lost
    assert device.counters.total("connections_closed", server="health", reason="evicted") > MAX_OPEN / 2


def test_client_that_leaves_is_counted_without_a_traceback(server, capfd, caplog, monkeypatch):
    done = threading.Event()

    def respond(path: str) -> tuple[int, str, bytes]:
        return 200, "text/plain", bytes(20_000_000)

    def count_left() -> None:
        HttpListener.count_left(server.listener)
        done.set()

    monkeypatch.setattr(server, "respond", respond)
    monkeypatch.setattr(server.listener, "count_left", count_left)
    server.attach(device := FakeDevice())
    with socket.create_connection(("127.0.0.1", server.port), 5) as client:
        client.sendall(b"GET /status HTTP/1.0\r\n\r\n")
        client.recv(1000)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert done.wait(60)
    assert device.counters.total("connections_closed", server="health", reason="left") == 1
    assert (capfd.readouterr().err, caplog.records) == ("", [])


@pytest.mark.parametrize(
    "request_bytes",
    [b"\0\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"x" * 70_000 + b" HTTP/1.0\r\n\r\n",
     b"GET / HTTP/1.0\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"POST /status HTTP/1.0\r\n\r\n"],
)  # fmt: skip
def test_bad_request_is_one_refusal_without_a_traceback(server, request_bytes, capfd):
    with socket.create_connection(("127.0.0.1", server.port), 5) as client:
        client.sendall(request_bytes)
        client.shutdown(socket.SHUT_WR)
        answer = read_all(client)
    # a reset, for what the server left unread, may destroy the answer
    assert b"Error code: " in answer or (not answer and len(request_bytes) > 65536)
    assert get(server, "/healthz")[0] == 200
    assert capfd.readouterr().err == ""


def test_thread_that_dies_is_restarted(server, monkeypatch, caplog):
    server._thread._wait = lambda _: False
    died = threading.Event()

    def close_overdue() -> None:
        monkeypatch.undo()
        died.set()
        raise ValueError("unexpected")

    server.attach(device := FakeDevice())
    monkeypatch.setattr(server.listener, "close_overdue", close_overdue)
    assert died.wait(60)
    assert get(server, "/healthz")[0] == 200
    assert device.counters.total("thread_restarts", thread="health") == 1
    assert "thread health: ValueError at test_health_server.py:" in caplog.text
