"""A whole device that is watched, commanded and configured anew while it runs, over a real mosquitto."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jsonschema
import pytest

from edge.demo.subscriber import Subscriber
from edge.messaging.connection import Connection
from tests.integration.mosquitto import Mosquitto
from tests.integration.mqtt_samples import settings
from tests.integration.test_device import DEMO, install

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0
BASE = "finesight/test/one"
LOOPED = f"{{source: 'file://{DEMO / 'stream.mp4'}?loop=1'}}"
SCHEMAS = {
    name: jsonschema.Draft202012Validator(json.loads((ROOT / f"docs/{name}.schema.json").read_text()))
    for name in ("event", "status", "health", "birth", "reply", "frigate_event")
}


def schema_of(topic: str) -> str | None:
    """The schema of what is sent on a topic; None: plain text, or Home Assistant's own."""
    if topic == "frigate/events":
        return "frigate_event"
    leaf = topic.rpartition("/")[2]
    if not topic.startswith(BASE) or ("/cmd/" in topic and leaf != "reply"):  # Home Assistant's, or sent by the test
        return None
    return {"events": "event", "status": "status", "health": "health", "birth": "birth", "reply": "reply"}.get(leaf)


class Watcher:
    """Hears everything that a broker carries, and checks each message against its schema."""

    def __init__(self, broker: Mosquitto) -> None:
        self._broker = broker
        self._messages: queue.SimpleQueue = queue.SimpleQueue()
        self.heard: list[tuple[str, bytes]] = []
        self._looked_at: dict[str, int] = {}  # by topic, up to where in heard

    def __enter__(self):
        self._subscriber = Subscriber(settings(self._broker, "watcher"), "#", self._messages.put)
        self._subscriber.start()
        return self

    def __exit__(self, *_):
        self._subscriber.close()

    def wait_for(self, topic, condition=bool, *, fresh=False):
        """The next message on a topic for which something holds; fresh: of those that come from now on."""
        deadline = time.monotonic() + DEADLINE_S
        begin = len(self.heard) + self._messages.qsize() if fresh else self._looked_at.get(topic, 0)
        while time.monotonic() < deadline:
            while not self._messages.empty():
                message = self._messages.get()
                self._read(message.topic, message.payload)
                self.heard.append((message.topic, message.payload))
            for number, (heard, payload) in enumerate(self.heard[begin:], begin):
                if heard == topic and condition(found := self._read(heard, payload)):
                    self._looked_at[topic] = number + 1
                    return found
            time.sleep(0.02)
        pytest.fail(f"no {topic}; heard {[t for t, _ in self.heard if not t.endswith('/events')][-20:]}")

    def send(self, topic, payload="", *, retain=False, correlation=None, **changes):
        with Connection(settings(self._broker, "operator", **changes)) as link:
            number = link.publish(topic, payload.encode(), retain=retain, correlation=correlation)
            while not any(answer.message == number for answer in link.step(1.0)):
                pass

    def ask(self, verb, payload="{}"):
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
    """`edge run`, with its configuration in the test's hands."""

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
            self.process.wait(30)
        finally:
            self.process.kill()
            self._reader.join(5)
            self.process.stderr.close()

    def _read(self):
        for line in self.process.stderr:
            self.log += line


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


def test_all_that_a_device_says_reads_as_its_schemas_say_and_commands_are_answered(tmp_path, broker):
    device = Device(tmp_path, broker.port)
    device.configure(f"shelf: {LOOPED}, spare: {LOOPED}")
    with Watcher(broker) as watcher:
        watcher.send(f"{BASE}/shelf/enabled/set", "OFF", retain=True)  # would repeat itself on every connection
        with device:
            birth = watcher.wait_for(f"{BASE}/birth")
            assert (set(birth["cameras"]), birth["safe_mode"]) == ({"shelf", "spare"}, False)
            assert watcher.wait_for(f"{BASE}/spare/enabled/state") == b"ON"
            found = json.loads(watcher.wait_for("homeassistant/device/finesight-test-one/config"))
            assert found["cmps"]["shelf_status"]["stat_t"] == f"{BASE}/shelf/status"
            watcher.wait_for(f"{BASE}/shelf/events")
            watcher.wait_for("frigate/events", lambda event: event["after"]["camera"] == "shelf")

            assert watcher.ask("health", '{"id": "a1"}')["id"] == "a1"
            ignored = 'commands_ignored{reason="retained"}'
            watcher.wait_for(f"{BASE}/health", lambda report: report["counters"].get(ignored) == 1)
            for verb, payload in (("reboot", "{}"), ("health", "no json"), ("camera/enable", '{"camera": "x"}')):
                refused = watcher.ask(verb, payload)
                assert (refused["ok"], refused["verb"], refused["error"][:5]) == (False, verb, "found")

            watcher.send(f"{BASE}/spare/enabled/set", "OFF")
            watcher.wait_for(f"{BASE}/spare/status", lambda status: status["state"] == "disabled")
            watcher.wait_for(f"{BASE}/shelf/events", fresh=True)  # the other goes on
            refused = watcher.ask("restart_camera", '{"camera": "spare"}')
            assert "disabled" in refused["error"]
            assert watcher.ask("camera/enable", '{"camera": "spare"}')["result"] == {"camera": "spare", "enabled": True}
            watcher.wait_for(f"{BASE}/spare/status", lambda status: status["state"] == "online")
            assert watcher.ask("restart_camera", '{"camera": "spare"}')["ok"]
            watcher.wait_for(f"{BASE}/spare/status", lambda status: status["state"] == "online")

            watcher.send("homeassistant/status", "online")
            watcher.wait_for("homeassistant/device/finesight-test-one/config")
        watcher.wait_for(f"{BASE}/available", lambda word: word == b"stopped")
    assert device.process.returncode == 0
    assert "Traceback" not in device.log


def test_the_configuration_is_read_again_while_the_other_cameras_go_on(tmp_path, broker):
    device = Device(tmp_path, broker.port)
    device.configure(f"shelf: {LOOPED}, old: {LOOPED}")
    with Watcher(broker) as watcher, device:
        boot_id = watcher.wait_for(f"{BASE}/birth")["boot_id"]
        watcher.wait_for(f"{BASE}/shelf/status", lambda status: status["state"] == "online")
        watcher.wait_for(f"{BASE}/shelf/events")

        device.configure(f"shelf: {LOOPED}, new: {LOOPED}", "recognition: {min_looks: 2}\nengine: {threads: 2}\n")
        assert watcher.ask("reload")["result"] == {
            "removed": ["old"], "added": ["new"], "changed": [], "recognition": True,
            "needs_restart": ["engine.threads"],
        }  # fmt: skip
        watcher.wait_for(f"{BASE}/new/status", lambda status: status["state"] == "online")

        device.configure(f"shelf: {LOOPED}", "recogniton: {min_looks: 3}\n")
        refused = watcher.ask("reload")
        assert "found unknown key 'recogniton', expected 'recognition'" in refused["error"]
        assert "recogniton" in watcher.wait_for(f"{BASE}/birth", lambda birth: birth["config_error"])["config_error"]
        watcher.wait_for(f"{BASE}/new/events", fresh=True)

        device.configure(f"shelf: {LOOPED}")
        device.process.send_signal(signal.SIGHUP)
        birth = watcher.wait_for(f"{BASE}/birth", lambda birth: set(birth["cameras"]) == {"shelf"})
        assert (birth["boot_id"], birth["config_error"]) == (boot_id, None)
        watcher.wait_for(f"{BASE}/shelf/events", fresh=True)
    states = [json.loads(payload)["state"] for topic, payload in watcher.heard if topic == f"{BASE}/shelf/status"]
    assert states == ["online"]  # it never noticed
    assert (f"{BASE}/old/status", b"") in watcher.heard  # what was retained of it is taken back
    assert device.process.returncode == 0
    assert "Traceback" not in device.log


def test_a_device_whose_file_went_bad_starts_by_the_last_good_one_and_says_so(tmp_path, broker):
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
            assert "found unknown key 'sitte'" in birth["config_error"]
            assert watcher.wait_for(f"{BASE}/health", lambda health: health["safe_mode"])["state"] == "degraded"
            device.path.write_text(good)
            assert watcher.ask("reload")["ok"]
            watcher.wait_for(f"{BASE}/birth", lambda birth: not birth["safe_mode"])
        assert "safe mode: running by" in device.log


def test_a_broker_that_comes_late_is_told_at_once_how_the_device_is(tmp_path, broker):
    """Health is told every minute, longer than this test waits."""
    broker.stop()
    device = Device(tmp_path, broker.port)
    device.configure(f"shelf: {LOOPED}")
    with device:
        deadline = time.monotonic() + DEADLINE_S
        while "failed" not in device.log and "refused" not in device.log and time.monotonic() < deadline:
            time.sleep(0.02)
        broker.start()
        with Watcher(broker) as watcher:
            assert watcher.wait_for(f"{BASE}/health")["mqtt_connected"]


def test_mqtt_5_replies_go_where_the_sender_wants_them(tmp_path, broker):
    """Response topic and correlation data, as a requester that paho makes sends them."""
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    device = Device(tmp_path, broker.port)
    device.configure(f"shelf: {LOOPED}")
    device.path.write_text(device.path.read_text().replace("mqtt: {", "mqtt: {version: '5', "))
    asked = Properties(PacketTypes.PUBLISH)
    asked.ResponseTopic, asked.CorrelationData = "operators/7", b"\x01\x02"
    received: queue.SimpleQueue = queue.SimpleQueue()
    with Watcher(broker) as watcher, device:
        watcher.wait_for(f"{BASE}/birth")
        with (
            Subscriber(settings(broker, "asker", version="5"), "operators/7", received.put),
            Connection(settings(broker, "operator", version="5")) as link,
        ):
            link._client.publish(f"{BASE}/cmd/health", b"{}", qos=1, properties=asked)
            link.step(1.0)
            answer = received.get(timeout=DEADLINE_S)
    SCHEMAS["reply"].validate(json.loads(answer.payload))
    assert answer.correlation == b"\x01\x02"
