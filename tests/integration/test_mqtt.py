"""Events reach a subscriber through real brokers, whatever happens to the broker."""

from __future__ import annotations

import array
import fcntl
import gc
import socket
import subprocess
import sys
import termios
from collections import Counter

import pytest

from edge.demo.broker import EmbeddedBroker
from edge.demo.subscriber import Subscriber
from edge.messaging.outbox import Outbox
from edge.messaging.publisher import Publisher
from edge.telemetry.metrics import Counters
from tests.integration.mosquitto import Mosquitto
from tests.integration.mqtt_samples import AVAILABLE, CommandQueue, put, settings, until


@pytest.fixture
def mosquitto(tmp_path):
    broker = Mosquitto(tmp_path / "mosquitto")
    yield broker
    broker.stop()


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_events_arrive_live(mosquitto, outbox, counters, version):
    mosquitto.start()
    command_queue = CommandQueue()
    with (
        Subscriber(settings(mosquitto, "ear", version=version), "fs/#", command_queue),
        Publisher(settings(mosquitto, "mouth", version=version), outbox, counters, AVAILABLE) as publisher,
    ):
        until(lambda: publisher.connected, "connected")
        wanted = put(outbox, range(200))
        command_queue.wait_for_ids(wanted)
        until(lambda: outbox.depth()[0] == 0, "all acknowledged")
    assert not any(event["historical"] for event in command_queue.events())
    assert [event["id"] for event in command_queue.events()] == [f"e{number}" for number in range(200)]
    assert counters.total("events_published") == 200
    command_queue.wait_for(lambda got: got[-1].payload == b"stopped", "stopped said on close")


def test_the_embedded_broker_carries_events():
    """The same path, with nothing installed."""
    command_queue, counters = CommandQueue(), Counters()
    with EmbeddedBroker() as broker, Subscriber(settings(broker, "ear"), "fs/#", command_queue):
        publisher = Publisher(settings(broker, "mouth"), outbox := _MemoryOutbox(), counters, AVAILABLE)
        with publisher:
            command_queue.wait_for_ids(put(outbox, range(20)))
            until(lambda: counters.total("events_published") == 20, "acknowledged")
    assert Counter(event["id"] for event in command_queue.events()).most_common(1)[0][1] == 1


def test_the_embedded_broker_leaves_no_socket_open_behind_a_client_that_said_nothing():
    """A socket left open would be a ResourceWarning, which fails the tests."""
    with EmbeddedBroker() as broker:
        silent = [socket.create_connection((broker.host, broker.port)) for _ in range(3)]
    for client in silent:
        client.close()
    gc.collect()


class _MemoryOutbox:
    """The least that a publisher asks of an outbox."""

    def __init__(self):
        from edge.messaging.outbox_file import OutboxMessage

        self._waiting, self._make, self._listener = [], OutboxMessage, lambda: None
        self.last_sequence = 0

    def put(self, topic, payload, priority, event_id):
        self.last_sequence += 1
        self._waiting.append(self._make(self.last_sequence, event_id, topic, payload, priority, 0.0))
        self._listener()

    def pending(self, limit, after=0, priority=None):
        return [m for m in self._waiting if m.sequence > after and priority in (None, m.priority)][:limit]

    def acknowledge(self, event_ids):
        gone = set(event_ids)
        self._waiting = [message for message in self._waiting if message.event_id not in gone]

    def set_listener(self, listener):
        self._listener = listener

    def depth(self):
        return len(self._waiting), 0


def test_events_wait_for_a_broker_that_starts_later(mosquitto, outbox, counters):
    command_queue = CommandQueue()
    with Publisher(settings(mosquitto, "mouth"), outbox, counters, AVAILABLE) as publisher:
        wanted = put(outbox, range(150))
        until(lambda: counters.total("mqtt_failures", reason="unreachable") > 0, "a failed attempt")
        assert "Connection refused" in publisher.error
        mosquitto.start()
        with Subscriber(settings(mosquitto, "ear"), "fs/#", command_queue):
            wanted |= put(outbox, range(150, 160))
            until(lambda: publisher.connected, "connected")
            until(lambda: outbox.depth()[0] == 0, "all acknowledged")
    assert counters.total("events_published") == len(wanted)


def test_events_of_an_absent_broker_arrive_once_each_and_historical(mosquitto, outbox, counters):
    """The subscriber holds a session, so that the order in which the two come back does not matter."""
    mosquitto.start()
    command_queue = CommandQueue()
    with Subscriber(settings(mosquitto, "ear"), "fs/#", command_queue, resume=True):
        mosquitto.stop()
        wanted = put(outbox, range(150))
        with Publisher(settings(mosquitto, "mouth"), outbox, counters, AVAILABLE) as publisher:
            until(lambda: counters.total("mqtt_failures", reason="unreachable") > 0, "a failed attempt")
            mosquitto.start()
            command_queue.wait_for_ids(wanted)
            until(lambda: publisher.connected and outbox.depth()[0] == 0, "all acknowledged")
    assert {event["id"] for event in command_queue.events() if event["historical"]} == wanted
    assert Counter(event["id"] for event in command_queue.events()) == dict.fromkeys(wanted, 1)


def unread_bytes(subscriber):
    """What the kernel holds for a subscriber that it has not read."""
    count = array.array("i", [0])
    fcntl.ioctl(subscriber._connection._client.socket(), termios.FIONREAD, count)
    return count[0]


def restart(mosquitto, subscriber):
    mosquitto.stop()


def pull_the_plug(mosquitto, subscriber):
    """Frozen first: a subscriber whose answer meets a dead broker drops what it had not read, and a broker that was
    killed does not remember to send that again. The publisher, under test here, has no part in it."""
    mosquitto.freeze()
    until(lambda: unread_bytes(subscriber) == 0, "the subscriber read what was sent")
    mosquitto.kill()


@pytest.mark.parametrize("end", [restart, pull_the_plug])
def test_every_event_arrives_when_the_broker_goes_down_in_mid_stream(mosquitto, outbox, counters, end):
    mosquitto.start()
    command_queue = CommandQueue()
    with (
        Subscriber(settings(mosquitto, "ear"), "fs/#", command_queue, resume=True) as subscriber,
        Publisher(settings(mosquitto, "mouth", window=16), outbox, counters, AVAILABLE) as publisher,
    ):
        until(lambda: publisher.connected, "connected")
        wanted = put(outbox, range(300))
        command_queue.wait_for(lambda got: len(got) > 20, "some events before the broker goes")
        end(mosquitto, subscriber)
        until(lambda: not publisher.connected, "the loss noticed")
        wanted |= put(outbox, range(300, 400))
        mosquitto.start()
        command_queue.wait_for_ids(wanted)
        until(lambda: outbox.depth()[0] == 0, "all acknowledged")
    first = {event["id"]: event for event in reversed(command_queue.events())}
    assert set(first) == wanted
    assert all(first[f"e{number}"]["historical"] for number in range(300, 400))
    assert counters.total("mqtt_reconnects") >= 1


def test_events_of_an_earlier_process_are_historical(mosquitto, tmp_path):
    mosquitto.start()
    command_queue = CommandQueue()
    with Outbox(tmp_path / "o.sqlite", Counters()) as earlier:
        wanted = put(earlier, range(30))
    with (
        Outbox(tmp_path / "o.sqlite", Counters()) as outbox,
        Subscriber(settings(mosquitto, "ear"), "fs/#", command_queue),
        Publisher(settings(mosquitto, "mouth"), outbox, Counters(), AVAILABLE),
    ):
        command_queue.wait_for_ids(wanted)
    assert all(event["historical"] for event in command_queue.events())


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_wrong_password_is_counted_reported_and_tried_again(tmp_path, outbox, counters, version, caplog):
    with Mosquitto(tmp_path / "mosquitto", users={"till": "right"}) as broker:
        wrong = settings(broker, "mouth", username="till", password="wrong", version=version)
        with Publisher(wrong, outbox, counters, AVAILABLE) as publisher:
            until(lambda: counters.total("mqtt_failures", reason="refused") >= 2, "two refusals")
            assert not publisher.connected
            assert "refused the connection: Not authorized" in publisher.error
        right = settings(broker, "mouth", username="till", password="right", version=version)
        with Publisher(right, outbox, counters, AVAILABLE) as publisher:
            until(lambda: publisher.connected, "connected")
    assert "wrong" not in caplog.text
    assert "wrong" not in repr(wrong)


def test_the_broker_tells_of_a_device_that_died(mosquitto):
    mosquitto.start()
    command_queue = CommandQueue()
    program = (
        "import sys; from edge.messaging.connection import *; from edge.messaging.settings import *\n"
        f"link = Connection(MqttSettings('mouth', port={mosquitto.port}), Will({AVAILABLE!r}, b'offline'))\n"
        f"link.publish({AVAILABLE!r}, b'online', retain=True)\n"
        "while True: link.step(1.0)\n"
    )
    with Subscriber(settings(mosquitto, "ear"), AVAILABLE, command_queue):
        device = subprocess.Popen([sys.executable, "-c", program])
        command_queue.wait_for(lambda got: got and got[-1].payload == b"online", "online")
        device.kill()
        device.wait()
        command_queue.wait_for(lambda got: got[-1].payload == b"offline", "offline")
    late = CommandQueue()
    with Subscriber(settings(mosquitto, "late"), AVAILABLE, late):
        late.wait_for(bool, "the retained will")
    assert [(message.payload, message.retained) for message in late.received] == [(b"offline", True)]


def test_camera_status_is_told_again_after_a_restart_of_the_broker(mosquitto, outbox, counters):
    mosquitto.start()
    status = "fs/shop/till/door/status"
    with Publisher(settings(mosquitto, "mouth"), outbox, counters, AVAILABLE) as publisher:
        publisher.publish_latest(status, b"stalled")
        publisher.publish_latest(status, b"online")
        until(lambda: publisher.connected, "connected")
        mosquitto.kill()
        until(lambda: not publisher.connected, "the loss noticed")
        mosquitto.start()
        until(lambda: publisher.connected, "connected again")
        command_queue = CommandQueue()
        with Subscriber(settings(mosquitto, "ear"), "fs/#", command_queue):
            command_queue.wait_for(lambda got: {m.topic: m.payload for m in got}.get(status) == b"online", "the status")


def test_a_second_client_with_the_same_name_is_told_apart_from_a_crash(mosquitto, outbox, counters):
    """MQTT 5 says who took the connection; the log must, too."""
    mosquitto.start()
    with Publisher(settings(mosquitto, "twin", version="5"), outbox, counters, AVAILABLE) as publisher:
        until(lambda: publisher.connected, "connected")
        with Subscriber(settings(mosquitto, "twin", version="5", backoff_first_s=5, backoff_max_s=5), "fs/#"):
            until(lambda: publisher.error is not None or counters.total("mqtt_reconnects"), "the loss noticed")
    assert counters.total("mqtt_failures", reason="unreachable") >= 1
