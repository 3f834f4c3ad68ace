"""The fleet's server as a process, with a real broker and a repository: nothing is lost when either is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.messaging.connection import Connection
from edge.messaging.settings import MqttSettings
from tests.gallery_sync.collector.collector_samples import ask, report
from tests.integration.mosquitto import Mosquitto, free_port
from tests.waiting import until

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-operators"
USERS = {"fleet": "secret of the fleet", "devices": "secret of devices"}


class Server:
    """`edge-sync fleet serve` as a process."""

    def __init__(self, folder: Path, broker: Mosquitto) -> None:
        self.port, self._folder = free_port(), folder
        (folder / "token").write_text(TOKEN)
        options = {
            "database": folder / "fleet.sqlite",
            "broker": f"mqtt://127.0.0.1:{broker.port}",
            "listen": f"127.0.0.1:{self.port}",
            "token-file": folder / "token",
            "repository": folder / "repo",
        }
        flat = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        self._command = [sys.executable, "-m", "gallery_sync.cli", "fleet", "serve", *flat]
        self.start()

    def start(self) -> None:
        account = {"FINESIGHT_MQTT_USERNAME": "fleet", "FINESIGHT_MQTT_PASSWORD": USERS["fleet"]}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env={**os.environ, **account}, stdout=log, stderr=log
            )

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        self._process.send_signal(how)
        return self._process.wait(60)

    def ask(self, method: str, path: str, body: object = None):
        """The JSON of an answer; None: there is none now."""
        sent = None if body is None else json.dumps(body)
        with contextlib.suppress(OSError):
            return ask(self.port, method, path, sent, Authorization=f"Bearer {TOKEN}")[1]
        return None

    def states(self) -> dict[str, str]:
        found = self.ask("GET", "/v1/devices") or {"devices": []}
        return {one["device"]: one["reported"]["state"] for one in found["devices"]}

    def log(self) -> str:
        return (self._folder / "server.log").read_text()


@contextlib.contextmanager
def device(broker: Mosquitto, received: list):
    """One connection that speaks for all devices."""
    user = {"username": "devices", "password": USERS["devices"]}
    with Connection(MqttSettings("d", port=broker.port, **user), None, received.append) as connection:
        yield connection


def publish(connection: Connection, topic: str, tree: dict, *, retain: bool = True) -> None:
    number = connection.publish(topic, json.dumps(tree).encode(), retain=retain)
    until(lambda: number in [one.message_id for one in connection.step(0.1)], "the broker has it")


def tell(connection: Connection, name: str, revision: int, state: str) -> None:
    fields = report(name, revision, state=state, at=time.time())
    publish(connection, f"fleet/v1/device/{name}/reported", fields)


def write_timestamp(folder: Path, version: int) -> None:
    (folder / "repo/metadata").mkdir(parents=True, exist_ok=True)
    (folder / "repo/repository.json").write_text(json.dumps({"line": "shop"}))
    timestamp = {"signed": {"version": version, "meta": {"snapshot.json": {"version": 1}}}}
    (folder / "repo/metadata/timestamp.json.new").write_text(json.dumps(timestamp))
    (folder / "repo/metadata/timestamp.json.new").replace(folder / "repo/metadata/timestamp.json")


@pytest.fixture
def scene(tmp_path):
    write_timestamp(tmp_path, 7)
    with Mosquitto(tmp_path / "broker", USERS) as broker:
        server = Server(tmp_path, broker)
        try:
            yield tmp_path, broker, server
        finally:
            assert server.end() == 0, server.log()


def test_nothing_is_lost_when_broker_and_server_are_killed(scene):
    folder, broker, server = scene
    received: list = []
    with device(broker, received) as connection:
        connection.subscribe("fleet/v1/device/cam-1/cmd/+", "fleet/v1/line/shop/desired")
        too_long = {"device": "cam-0", "text": "x" * 300_000}  # the broker keeps it back from the server
        publish(connection, "fleet/v1/device/cam-0/reported", too_long)
        tell(connection, "cam-1", 1, "idle")
        tell(connection, "cam-2", 1, "idle")
        until(lambda: server.states() == {"cam-1": "idle", "cam-2": "idle"}, server.log())

        order = {"verb": "sync", "arguments": {}, "by": "ann"}
        until(lambda: (server.ask("GET", "/healthz") or {}).get("broker"), server.log())
        command = server.ask("POST", "/v1/devices/cam-1/commands", order)["id"]

        def got(topic: str) -> list[dict]:
            connection.step(0.02)
            return [json.loads(one.payload) for one in received if one.topic == topic]

        until(lambda: got("fleet/v1/device/cam-1/cmd/sync"), "the device has the command")
        until(lambda: got("fleet/v1/line/shop/desired"), "the bell rang")
        answer = {"device": "cam-1", "id": command, "verb": "sync", "by": "ann", "state": "done", "at": 1.0}
        publish(connection, "fleet/v1/device/cam-1/answer", answer, retain=False)
        until(lambda: server.ask("GET", f"/v1/commands/{command}")["answers"], server.log())
        write_timestamp(folder, 8)
        until(lambda: [one["revision"] for one in got("fleet/v1/line/shop/desired")] == [7, 8], server.log())

    server.end(signal.SIGKILL)
    with device(broker, received) as connection:
        tell(connection, "cam-2", 2, "fetch")
        tell(connection, "cam-3", 1, "idle")
    server.start()
    until(lambda: server.states() == {"cam-1": "idle", "cam-2": "fetch", "cam-3": "idle"}, server.log())
    assert server.ask("GET", f"/v1/commands/{command}")["answers"][0]["state"] == "done"

    broker.kill()
    until(lambda: server.ask("GET", "/healthz") and not server.ask("GET", "/healthz")["broker"], server.log())
    assert server.ask("POST", "/v1/devices/cam-1/commands", order | {"keep_s": 0})["reason"] == "not_sent"
    kept = server.ask("POST", "/v1/devices/cam-1/commands", order)
    assert kept["state"] == "waiting"
    server.end(signal.SIGKILL)
    server.start()
    broker.start()
    received.clear()
    with device(broker, received) as connection:
        connection.subscribe("fleet/v1/device/cam-1/cmd/+")
        connection.publish("fleet/v1/device/cam-1/available", b"online", retain=True)

        def ids() -> list[str]:
            connection.step(0.02)
            return [json.loads(one.payload)["id"] for one in received if one.topic.endswith("/cmd/sync")]

        until(lambda: kept["id"] in ids(), server.log())
        until(lambda: server.ask("GET", f"/v1/commands/{kept['id']}")["state"] == "sent", server.log())
        tell(connection, "cam-1", 2, "trial")
        until(lambda: server.states()["cam-1"] == "trial", server.log())
