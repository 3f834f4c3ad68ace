"""Events reach a subscriber through real brokers, even when the broker restarts or dies."""

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
from edge.telemetry.counters import Counters
from tests.integration.mosquitto import Mosquitto
from tests.integration.mqtt_samples import AVAILABLE, ReceivedMessages, put, settings
from tests.waiting import until


@pytest.fixture
def mosquitto(tmp_path):
    broker = Mosquitto(tmp_path / "mosquitto")
    yield broker
    broker.stop()


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_events_arrive_live(mosquitto, outbox, counters, version):
    mosquitto.start()
    received = ReceivedMessages()
    with (
        Subscriber(settings(mosquitto, "subscriber", version=version), "fs/#", received),
        Publisher(settings(mosquitto, "device", version=version), outbox, counters, AVAILABLE) as publisher,
    ):
        until(lambda: publisher.connected, "connected")
        wanted = put(outbox, range(200))
        received.wait_for_ids(wanted)
        until(lambda: outbox.depth()[0] == 0, "all acknowledged")
    assert not any(event["historical"] for event in received.events())
    assert [event["id"] for event in received.events()] == [f"e{number}" for number in range(200)]
    assert counters.total("events_published") == 200
    received.wait_for(lambda got: got[-1].payload == b"stopped", "stopped on close")


def test_embedded_broker_delivers_events(outbox, counters):
    """The same path, without mosquitto."""
    received = ReceivedMessages()
    with (
        EmbeddedBroker() as broker,
        Subscriber(settings(broker, "subscriber"), "fs/#", received),
        Publisher(settings(broker, "device"), outbox, counters, AVAILABLE),
    ):
        received.wait_for_ids(put(outbox, range(20)))
        until(lambda: counters.total("events_published") == 20, "acknowledged")
    assert Counter(event["id"] for event in received.events()).most_common(1)[0][1] == 1


def test_embedded_broker_closes_sockets_of_silent_clients():
    """An open socket would raise a ResourceWarning, which fails the test."""
    with EmbeddedBroker() as broker:
        silent = [socket.create_connection((broker.host, broker.port)) for _ in range(3)]
    for client in silent:
        client.close()
    gc.collect()


def test_events_wait_for_a_broker_that_starts_later(mosquitto, outbox, counters):
    received = ReceivedMessages()
    with Publisher(settings(mosquitto, "device"), outbox, counters, AVAILABLE) as publisher:
        wanted = put(outbox, range(150))
        until(lambda: counters.total("mqtt_failures", reason="unreachable") > 0, "a failed attempt")
        assert "Connection refused" in publisher.error
        mosquitto.start()
        with Subscriber(settings(mosquitto, "subscriber"), "fs/#", received):
            wanted |= put(outbox, range(150, 160))
            until(lambda: publisher.connected, "connected")
            until(lambda: outbox.depth()[0] == 0, "all acknowledged")
    assert counters.total("events_published") == len(wanted)


def test_events_of_an_outage_arrive_once_and_historical(mosquitto, outbox, counters):
    """The subscriber keeps a session, so it does not matter which of the two reconnects first."""
    mosquitto.start()
    received = ReceivedMessages()
    with Subscriber(settings(mosquitto, "subscriber"), "fs/#", received, resume=True):
        mosquitto.stop()
        wanted = put(outbox, range(150))
        with Publisher(settings(mosquitto, "device"), outbox, counters, AVAILABLE) as publisher:
            until(lambda: counters.total("mqtt_failures", reason="unreachable") > 0, "a failed attempt")
            mosquitto.start()
            received.wait_for_ids(wanted)
            until(lambda: publisher.connected and outbox.depth()[0] == 0, "all acknowledged")
    assert {event["id"] for event in received.events() if event["historical"]} == wanted
    assert Counter(event["id"] for event in received.events()) == dict.fromkeys(wanted, 1)


def unread_bytes(subscriber):
    """Bytes that the kernel holds for a subscriber."""
    count = array.array("i", [0])
    fcntl.ioctl(subscriber._connection._client.socket(), termios.FIONREAD, count)
    return count[0]


def restart(mosquitto, subscriber):
    mosquitto.stop()


def kill_broker(mosquitto, subscriber):
    """Freeze the broker first, so that the subscriber reads everything sent to it.

    Otherwise the subscriber drops unread messages when its answer meets a dead broker, and a killed broker does not
    send them again. The publisher, which is under test, has no part in that.
    """
    mosquitto.freeze()
    until(lambda: unread_bytes(subscriber) == 0, "the subscriber read what was sent")
    mosquitto.kill()


@pytest.mark.parametrize("end", [restart, kill_broker])
def test_every_event_arrives_when_the_broker_goes_down(mosquitto, outbox, counters, end):
    mosquitto.start()
    received = ReceivedMessages()
    with (
        Subscriber(settings(mosquitto, "subscriber"), "fs/#", received, resume=True) as subscriber,
        Publisher(settings(mosquitto, "device", window=16), outbox, counters, AVAILABLE) as publisher,
    ):
        until(lambda: publisher.connected, "connected")
        wanted = put(outbox, range(300))
        received.wait_for(lambda got: len(got) > 20, "some events before the broker goes")
        end(mosquitto, subscriber)
        until(lambda: not publisher.connected, "the loss noticed")
        wanted |= put(outbox, range(300, 400))
        mosquitto.start()
        received.wait_for_ids(wanted)
        until(lambda: outbox.depth()[0] == 0, "all acknowledged")
    first = {event["id"]: event for event in reversed(received.events())}
    assert set(first) == wanted
    assert all(first[f"e{number}"]["historical"] for number in range(300, 400))
    assert counters.total("mqtt_reconnects") >= 1


def test_events_of_an_earlier_process_are_historical(mosquitto, tmp_path):
    mosquitto.start()
    received = ReceivedMessages()
    with Outbox(tmp_path / "o.sqlite", Counters()) as earlier:
        wanted = put(earlier, range(30))
    with (
        Outbox(tmp_path / "o.sqlite", Counters()) as outbox,
        Subscriber(settings(mosquitto, "subscriber"), "fs/#", received),
        Publisher(settings(mosquitto, "device"), outbox, Counters(), AVAILABLE),
    ):
        received.wait_for_ids(wanted)
    assert all(event["historical"] for event in received.events())


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_wrong_password_is_counted_reported_and_retried(tmp_path, outbox, counters, version, caplog):
    with Mosquitto(tmp_path / "mosquitto", users={"till": "right"}) as broker:
        wrong = settings(broker, "device", username="till", password="wrong", version=version)
        with Publisher(wrong, outbox, counters, AVAILABLE) as publisher:
            until(lambda: counters.total("mqtt_failures", reason="refused") >= 2, "two refusals")
            assert not publisher.connected
            assert "refused the connection: Not authorized" in publisher.error
        right = settings(broker, "device", username="till", password="right", version=version)
        with Publisher(right, outbox, counters, AVAILABLE) as publisher:
            until(lambda: publisher.connected, "connected")
    assert "wrong" not in caplog.text
    assert "wrong" not in repr(wrong)


def test_broker_publishes_the_will_of_a_killed_device(mosquitto):
    mosquitto.start()
    received = ReceivedMessages()
    program = (
        "import sys; from edge.messaging.connection import *; from edge.messaging.settings import *\n"
        f"connection = Connection(MqttSettings('device', port={mosquitto.port}), Will({AVAILABLE!r}, b'offline'))\n"
        f"connection.publish({AVAILABLE!r}, b'online', retain=True)\n"
        "while True: connection.step(1.0)\n"
    )
    with Subscriber(settings(mosquitto, "subscriber"), AVAILABLE, received):
        device = subprocess.Popen([sys.executable, "-c", program])
        received.wait_for(lambda got: got and got[-1].payload == b"online", "online")
        device.kill()
        device.wait()
        received.wait_for(lambda got: got[-1].payload == b"offline", "offline")
    late = ReceivedMessages()
    with Subscriber(settings(mosquitto, "late"), AVAILABLE, late):
        late.wait_for(bool, "the retained will")
    assert [(message.payload, message.retained) for message in late.messages] == [(b"offline", True)]


def test_camera_status_is_sent_again_after_a_broker_restart(mosquitto, outbox, counters):
    mosquitto.start()
    status = "fs/shop/till/door/status"
    with Publisher(settings(mosquitto, "device"), outbox, counters, AVAILABLE) as publisher:
        publisher.publish_latest(status, b"stalled")
        publisher.publish_latest(status, b"online")
        until(lambda: publisher.connected, "connected")
        mosquitto.kill()
        until(lambda: not publisher.connected, "the loss noticed")
        mosquitto.start()
        until(lambda: publisher.connected, "connected again")
        received = ReceivedMessages()
        with Subscriber(settings(mosquitto, "subscriber"), "fs/#", received):
            received.wait_for(lambda got: {m.topic: m.payload for m in got}.get(status) == b"online", "the status")


def test_second_client_with_the_same_id_disconnects_the_first(mosquitto, outbox, counters):
    mosquitto.start()
    with Publisher(settings(mosquitto, "twin", version="5"), outbox, counters, AVAILABLE) as publisher:
        until(lambda: publisher.connected, "connected")
        with Subscriber(settings(mosquitto, "twin", version="5", backoff_first_s=5, backoff_max_s=5), "fs/#"):
            until(lambda: publisher.error is not None or counters.total("mqtt_reconnects"), "the loss noticed")
    assert counters.total("mqtt_failures", reason="unreachable") >= 1
