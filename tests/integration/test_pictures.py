"""Snapshots and the live view of a whole device, with a real broker."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.imaging.image import decode_image
from edge.messaging.connection import Connection
from tests.integration.mosquitto import Mosquitto, free_port
from tests.integration.mqtt_samples import settings
from tests.integration.test_device import DEMO, install
from tests.waiting import DEADLINE_S, until

TOKEN = "s3cret token"
BASE = "finesight/test/one"


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def folder(tmp_path):
    install(tmp_path / "state")
    return tmp_path


@contextlib.contextmanager
def device(folder: Path, broker: Mosquitto, more: str):
    """Run a device on the demo's stream, in a loop; yield the port of its health server."""
    port = free_port()
    config = folder / "device.yaml"
    config.write_text(
        f"site: test\ndevice: one\nstate_dir: {folder / 'state'}\n"
        f"mqtt: {{host: 127.0.0.1, port: {broker.port}, home_assistant: {{}}}}\n"
        f"health: {{port: {port}, token: '{TOKEN}'}}\n{more}"
        f"cameras:\n  shelf: {{source: 'file://{DEMO / 'stream.mp4'}?loop=1', pacing: every_frame}}\n"
    )
    command = [sys.executable, "-m", "edge", "run", "-c", str(config)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
        try:
            yield port
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(DEADLINE_S)


def wait_for(broker: Mosquitto, done, say: str | None = None) -> dict[str, bytes]:
    """Subscribe as a new client would, and publish on `say`, until the messages satisfy; return the latest by topic."""
    found: dict[str, bytes] = {}

    def note(message):
        found[message.topic.removeprefix(f"{BASE}/")] = message.payload

    with Connection(settings(broker, "test"), on_message=note) as connection:
        connection.subscribe("#")
        if say is not None:
            connection.publish(say, b"")
        deadline = time.monotonic() + DEADLINE_S
        while not done(found):
            assert time.monotonic() < deadline, sorted(found)
            connection.step(0.2)
    return found


def retained(broker: Mosquitto) -> dict[str, bytes]:
    """Return what the broker keeps: it sends that before a message of the subscriber's own."""
    return wait_for(broker, lambda messages: "the/end" in messages, "the/end")


def get(port: int, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def next_jpeg(stream: http.client.HTTPResponse) -> bytes:
    """Read one part of an MJPEG stream."""
    assert stream.readline() == b"--finesight\r\n"
    headers = http.client.parse_headers(stream)
    jpeg = stream.read(int(headers["Content-Length"]))
    assert stream.readline() == b"\r\n"
    return jpeg


def test_pictures_come_by_mqtt_and_http_and_leave_the_broker_when_off(folder, broker):
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    with device(folder, broker, "snapshots: {}\nlive: {max_clients: 1}\n") as port:
        found = wait_for(broker, lambda messages: messages.get("shelf/snapshot") and "shelf/in_view" in messages)
        assert decode_image(found["shelf/snapshot"], "snapshot").size
        assert json.loads(found["shelf/in_view"])["camera"] == "shelf"
        assert get(port, "/snapshot/shelf.jpg").status == 401
        assert decode_image(get(port, "/snapshot/shelf.jpg", **bearer).read(), "snapshot").size
        live = get(port, "/live/shelf", **bearer)
        first, second = next_jpeg(live), next_jpeg(live)
        assert decode_image(first, "live").shape == decode_image(second, "live").shape == (360, 640, 3)
        assert get(port, "/live/shelf", **bearer).status == 503
        live.close()
        metrics = get(port, "/metrics").read().decode()
        assert 'finesight_pictures_refused_total{reason="no_token"} 1.0' in metrics
        assert 'finesight_snapshots_total{camera="shelf"}' in metrics
    assert retained(broker)["shelf/snapshot"]
    file = folder / "state/retained_topics.json"
    with device(folder, broker, "") as port:
        until(lambda: f"{BASE}/shelf/snapshot" not in json.loads(file.read_text()), "the topic is not cleared")
        assert get(port, "/snapshot/shelf.jpg", **bearer).status == 404
    assert {"shelf/snapshot", "shelf/status", "birth"} & retained(broker).keys() == {"shelf/status", "birth"}
