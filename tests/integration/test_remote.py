"""A whole device controlled over a real mosquitto: commands, switches and configuration reloads."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jsonschema
import pytest

from edge.demo.subscriber import Subscriber
from edge.messaging.connection import Connection
from tests.integration.mosquitto import Mosquitto
from tests.integration.mqtt_samples import settings
from tests.integration.test_device import DEMO, install
from tests.waiting import DEADLINE_S, until

ROOT = Path(__file__).parents[2]
BASE = "finesight/test/one"
LOOPED = f"{{source: 'file://{DEMO / 'stream.mp4'}?loop=1'}}"
SCHEMAS = {
    name: jsonschema.Draft202012Validator(json.loads((ROOT / f"docs/{name}.schema.json").read_text()))
    for name in ("event", "status", "health", "birth", "reply", "frigate_event")
}


def schema_of(topic: str) -> str | None:
    """Return the schema of a topic; None for plain text and Home Assistant topics."""
    if topic == "frigate/events":
        return "frigate_event"
    leaf = topic.rpartition("/")[2]
    if not topic.startswith(BASE) or ("/cmd/" in topic and leaf != "reply"):  # of Home Assistant, or sent by the test
        return None
    return {"events": "event", "status": "status", "health": "health", "birth": "birth", "reply": "reply"}.get(leaf)


class Watcher:
    """Receives every message of a broker and checks it against its schema."""

    def __init__(self, broker: Mosquitto) -> None:
        self._broker = broker
        self._arrived: queue.SimpleQueue = queue.SimpleQueue()
        self.messages: list[tuple[str, bytes]] = []
        self._read_up_to: dict[str, int] = {}  # by topic, index in messages

    def __enter__(self):
        self._subscriber = Subscriber(settings(self._broker, "watcher"), "#", self._arrived.put)
        self._subscriber.start()
        return self

    def __exit__(self, *_):
        self._subscriber.close()

    def wait_for(self, topic, condition=bool, *, fresh=False, within_s=DEADLINE_S):
        """Wait for the next message on a topic that meets a condition; fresh: ignore messages received before."""
        begin = len(self.messages) + self._arrived.qsize() if fresh else self._read_up_to.get(topic, 0)

        def next_message():
            while not self._arrived.empty():
                message = self._arrived.get()
                self._read(message.topic, message.payload)
                self.messages.append((message.topic, message.payload))
            for number, (found_topic, payload) in enumerate(self.messages[begin:], begin):
                if found_topic == topic and condition(found := self._read(found_topic, payload)):
                    self._read_up_to[topic] = number + 1
                    return [found]
            return []

        def missing():
            return f"no {topic}; received {[t for t, _ in self.messages if not t.endswith('/events')][-20:]}"

        return until(next_message, missing, within_s)[0]

    def send(self, topic, payload="", *, retain=False, correlation=None, **changes):
        with Connection(settings(self._broker, "operator", **changes)) as connection:
            message_id = connection.publish(topic, payload.encode(), retain=retain, correlation=correlation)
            while not any(answer.message_id == message_id for answer in connection.step(1.0)):
                pass

    def command(self, verb, payload="{}"):
        self.send(f"{BASE}/cmd/{verb}", payload)
        return self.wait_for(f"{BASE}/cmd/reply")

    def _read(self, topic, payload):
        schema = schema_of(topic)
        if schema is None or not payload:
            return payload
        assert len(payload) < 8192 or schema == "health", topic
        message = json.loads(payload)
        SCHEMAS[schema].validate(message)
        return message


class Device:
    """`edge run` with a configuration that the test can change."""

    def __init__(self, folder: Path, port: int) -> None:
        self.path = folder / "device.yaml"
        self._state, self._port = folder / "state", port
        install(self._state)

    def configure(self, cameras: str, more: str = "") -> None:
        self.path.write_text(
            f"site: test\ndevice: one\nstate_dir: {self._state}\n"
            f"mqtt: {{host: 127.0.0.1, port: {self._port}, home_assistant: {{}}, frigate_mirror: true}}\n"
            f"cameras: {{{cameras}}}\n{more}"
        )

    def __enter__(self):
        command = [sys.executable, "-m", "edge", "run", "-c", self.path, "--safe", "--state-dir", self._state]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        self.log = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self._reader.join(60)
            self.process.stderr.close()

    def _read(self):
        for line in self.process.stderr:
            self.log += line


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


def test_messages_fit_their_schemas_and_commands_are_answered(tmp_path, broker):
    device = Device(tmp_path, broker.port)
    device.configure(f"shelf: {LOOPED}, spare: {LOOPED}")
    with Watcher(broker) as watcher:
        watcher.send(f"{BASE}/shelf/enabled/set", "OFF", retain=True)  # the broker would repeat it on every connection
        with device:
            birth = watcher.wait_for(f"{BASE}/birth")
            assert (set(birth["cameras"]), birth["safe_mode"]) == ({"shelf", "spare"}, False)
            assert watcher.wait_for(f"{BASE}/spare/enabled/state") == b"ON"
            found = json.loads(watcher.wait_for("homeassistant/sensor/finesight-test-one/shelf_status/config"))
            assert found["stat_t"] == f"{BASE}/shelf/status"
            watcher.wait_for(f"{BASE}/shelf/events")
            watcher.wait_for("frigate/events", lambda event: event["after"]["camera"] == "shelf")

            assert watcher.command("health", '{"id": "a1"}')["id"] == "a1"
            ignored = 'commands_ignored{reason="retained"}'
            watcher.wait_for(f"{BASE}/health", lambda report: report["counters"].get(ignored) == 1)
            for verb, payload, first_word in (
                ("reboot", "{}", "unknown"),
                ("health", "no json", "the"),
                ("camera/enable", '{"camera": "x"}', "unknown"),
            ):
                refused = watcher.command(verb, payload)
                assert (refused["ok"], refused["verb"], refused["error"].split()[0]) == (False, verb, first_word)

            watcher.send(f"{BASE}/spare/enabled/set", "OFF")
            watcher.wait_for(f"{BASE}/spare/status", lambda status: status["state"] == "disabled")
            watcher.wait_for(f"{BASE}/shelf/events", fresh=True)  # the other camera goes on
            refused = watcher.command("restart_camera", '{"camera": "spare"}')
            assert "disabled" in refused["error"]
            assert watcher.command("camera/enable", '{"camera": "spare"}')["result"] == {
                "camera": "spare",
                "enabled": True,
            }
            watcher.wait_for(f"{BASE}/spare/status", lambda status: status["state"] == "online")
            assert watcher.command("restart_camera", '{"camera": "spare"}')["ok"]
            watcher.wait_for(f"{BASE}/spare/status", lambda status: status["state"] == "online")

            watcher.send("homeassistant/status", "online")
            watcher.wait_for("homeassistant/sensor/finesight-test-one/shelf_status/config")
        watcher.wait_for(f"{BASE}/available", lambda word: word == b"stopped")
    assert device.process.returncode == 0
    assert "Traceback" not in device.log


def test_reload_leaves_unchanged_cameras_running(tmp_path, broker):
    device = Device(tmp_path, broker.port)
    device.configure(f"shelf: {LOOPED}, old: {LOOPED}")
    with Watcher(broker) as watcher, device:
        boot_id = watcher.wait_for(f"{BASE}/birth")["boot_id"]
        watcher.wait_for(f"{BASE}/shelf/status", lambda status: status["state"] == "online")
        watcher.wait_for(f"{BASE}/shelf/events")

        device.configure(f"shelf: {LOOPED}, new: {LOOPED}", "recognition: {min_looks: 2}\nengine: {threads: 2}\n")
        assert watcher.command("reload")["result"] == {
            "removed": ["old"], "added": ["new"], "changed": [], "recognition": True,
            "needs_restart": ["engine.threads"],
        }  # fmt: skip
        watcher.wait_for(f"{BASE}/new/status", lambda status: status["state"] == "online")

        device.configure(f"shelf: {LOOPED}", "recogniton: {min_looks: 3}\n")
        refused = watcher.command("reload")
        assert "unknown key 'recogniton'; did you mean 'recognition'?" in refused["error"]
        assert "recogniton" in watcher.wait_for(f"{BASE}/birth", lambda birth: birth["config_error"])["config_error"]
        watcher.wait_for(f"{BASE}/new/events", fresh=True)

        device.configure(f"shelf: {LOOPED}")
        device.process.send_signal(signal.SIGHUP)
        birth = watcher.wait_for(f"{BASE}/birth", lambda birth: set(birth["cameras"]) == {"shelf"})
        assert (birth["boot_id"], birth["config_error"]) == (boot_id, None)
        watcher.wait_for(f"{BASE}/shelf/events", fresh=True)
    states = [json.loads(payload)["state"] for topic, payload in watcher.messages if topic == f"{BASE}/shelf/status"]
    assert states == ["online"]  # the unchanged camera was not interrupted
    assert (f"{BASE}/old/status", b"") in watcher.messages  # its retained status is cleared
    assert device.process.returncode == 0
    assert "Traceback" not in device.log


def test_safe_mode_starts_with_the_last_good_configuration(tmp_path, broker):
    device = Device(tmp_path, broker.port)
    device.configure(f"shelf: {LOOPED}")
    with Watcher(broker) as watcher:
        with device:
            assert not watcher.wait_for(f"{BASE}/birth")["safe_mode"]
        watcher.wait_for(f"{BASE}/available", lambda word: word == b"stopped")
        good = device.path.read_text()
        device.path.write_text(good + "sitte: x\n")
        with device:
            birth = watcher.wait_for(f"{BASE}/birth", lambda birth: birth["safe_mode"])
            assert "unknown key 'sitte'" in birth["config_error"]
            assert watcher.wait_for(f"{BASE}/health", lambda health: health["safe_mode"])["state"] == "degraded"
            device.path.write_text(good)
            assert watcher.command("reload")["ok"]
            watcher.wait_for(f"{BASE}/birth", lambda birth: not birth["safe_mode"])
        assert "safe mode: running with" in device.log


def test_late_broker_gets_a_health_report_at_once(tmp_path, broker):
    """Health is published every minute, longer than this test waits for it."""
    broker.stop()
    device = Device(tmp_path, broker.port)
    device.configure(f"shelf: {LOOPED}")
    with device:
        until(lambda: "failed" in device.log or "refused" in device.log, "the broker is missed")
        broker.start()
        with Watcher(broker) as watcher:
            assert watcher.wait_for(f"{BASE}/health", within_s=30.0)["mqtt_connected"]


@pytest.mark.parametrize(
    ("wished", "answered_on"),
    [(f"{BASE}/cmd/reply/operators/7", f"{BASE}/cmd/reply/operators/7"),
     # a topic of another device: the answer could be a command there
     ("finesight/test/two/cmd/reload", f"{BASE}/cmd/reply")],
)  # fmt: skip
def test_mqtt_5_reply_goes_to_the_response_topic_of_this_device(tmp_path, broker, wished, answered_on):
    """A request made with paho carries a response topic and correlation data."""
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    device = Device(tmp_path, broker.port)
    device.configure(f"shelf: {LOOPED}")
    device.path.write_text(device.path.read_text().replace("mqtt: {", "mqtt: {version: '5', "))
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic, properties.CorrelationData = wished, b"\x01\x02"
    received: queue.SimpleQueue = queue.SimpleQueue()
    with Watcher(broker) as watcher, device:
        watcher.wait_for(f"{BASE}/birth")
        with (
            Subscriber(settings(broker, "requester", version="5"), answered_on, received.put),
            Connection(settings(broker, "operator", version="5")) as connection,
        ):
            connection._client.publish(f"{BASE}/cmd/health", b"{}", qos=1, properties=properties)
            connection.step(1.0)
            answer = received.get(timeout=DEADLINE_S)
    SCHEMAS["reply"].validate(json.loads(answer.payload))
    assert answer.correlation == b"\x01\x02"
    assert wished == answered_on or wished not in {topic for topic, _ in watcher.messages}
