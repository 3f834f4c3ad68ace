"""Real brokers that do not take everything: short packets, QoS 0 alone, nothing retained, forbidden topics, clashes."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading

import pytest

from edge.config.schema import CameraConfig, DeviceConfig, MqttConfig
from edge.demo.subscriber import Subscriber
from edge.errors import PublishError
from edge.messaging.connection import Connection
from edge.messaging.device_publisher import DevicePublisher, PublishLatency
from edge.messaging.publisher import Publisher
from edge.messaging.settings import MqttSettings
from edge.telemetry.timing import StageTimer
from tests.edge.messaging.test_delivery import long_event
from tests.edge.messaging.test_payload import EVENT
from tests.fakes import health_report
from tests.integration.mosquitto import Mosquitto
from tests.integration.mqtt_samples import AVAILABLE, EVENTS, ReceivedMessages, put, settings
from tests.waiting import until


@contextlib.contextmanager
def broker_of(folder, *lines):
    with Mosquitto(folder / "mosquitto", lines=lines) as broker:
        yield broker


def put_long(outbox, event_id, size=3000):
    payload = json.dumps({"id": event_id, "filling": "x" * size, "historical": False}, separators=(",", ":")).encode()
    outbox.put(EVENTS, payload, 1, event_id)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_one_long_event_does_not_block_the_others(tmp_path, outbox, counters, version):
    """MQTT 5 brokers state the limit; those of MQTT 3.1.1 hang up."""
    received = ReceivedMessages()
    with (
        broker_of(tmp_path, "max_packet_size 1900") as broker,
        Subscriber(settings(broker, "subscriber"), "fs/#", received),
        Publisher(settings(broker, "device", version=version), outbox, counters, AVAILABLE),
    ):
        wanted = put(outbox, range(20))
        put_long(outbox, "long")
        wanted |= put(outbox, range(20, 40))
        received.wait_for_ids(wanted)
        until(lambda: outbox.depth()[0] == 0, "the long one set aside")
    first = dict.fromkeys(event["id"] for event in received.events())  # a hang-up may take acknowledgements with it
    assert list(first) == [f"e{number}" for number in range(40)]
    reason = "the broker hangs up on it" if version == "3.1.1" else "the broker takes 1868"
    assert reason in str(outbox.newest_set_aside()[0])
    assert counters.total("events_set_aside") == 1
    assert counters.total("mqtt_reconnects") == (5 if version == "3.1.1" else 0)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_long_events_arrive_shortened(tmp_path, outbox, counters, version):
    received = ReceivedMessages()
    with (
        broker_of(tmp_path, f"max_packet_size {len(long_event()) - 100}") as broker,
        Subscriber(settings(broker, "subscriber"), "fs/#", received),
        Publisher(settings(broker, "device", version=version), outbox, counters, AVAILABLE),
    ):
        put(outbox, range(5))
        for number in range(5):
            outbox.put(EVENTS, long_event(), 1, f"long{number}")
        until(lambda: counters.total("events_published") == 10, "all acknowledged")
        until(lambda: sum(event.get("shortened", False) for event in received.events()) >= 5, "all arrived")
    # a hang-up may take acknowledgements with it, so short ones may arrive again
    assert all(event.get("shortened", event["id"].startswith("e")) for event in received.events())
    assert counters.total("messages_shortened") >= 5


@pytest.mark.parametrize(("limit", "version"), [(1900, "5"), (1900, "3.1.1"), (8092, "5")])
def test_device_with_eight_cameras_is_discovered_and_sends_events(tmp_path, outbox, counters, limit, version):
    received, names = ReceivedMessages(), [f"cam{number}" for number in range(1, 9)]
    cameras = {name: CameraConfig(source="rtsp://h/1") for name in names}
    with (
        broker_of(tmp_path, f"max_packet_size {limit}") as broker,
        Subscriber(settings(broker, "subscriber"), "#", received),
    ):
        mqtt = MqttConfig(host=broker.host, port=broker.port, version=version, home_assistant={})
        config = DeviceConfig(site="shop", device="till", state_dir=tmp_path, cameras=cameras, mqtt=mqtt)
        device = DevicePublisher(config, "boot", outbox, PublishLatency(StageTimer(), lambda: 0), counters)
        device.start()
        until(lambda: device.connected, "connected")
        report = health_report(counters={f"count_{number}": 1 for number in range(300)})
        device.publish_birth(report, cameras, dict.fromkeys(names, True))
        device.publish_health(report)
        device.publish_event(EVENT)
        until(lambda: outbox.depth()[0] == 0 and counters.total("events_published") == 1, "the event acknowledged")
        topics = {f"homeassistant/event/finesight-shop-till/{name}_event/config" for name in names}
        received.wait_for(lambda got: topics <= {message.topic for message in got}, "the discovery of every camera")
        if version == "5":
            received.wait_for(lambda got: any(m.topic.endswith("/health") for m in got), "health")
        device.close()
    health = [json.loads(m.payload) for m in received.messages if m.topic.endswith("/till/health")]
    assert all(message["shortened"] for message in health if limit == 1900)
    assert not device.publisher.problems() or version == "3.1.1"


def test_broker_without_qos_1_and_retained_messages(tmp_path, outbox, counters, caplog):
    received = ReceivedMessages()
    with (
        broker_of(tmp_path, "max_qos 0", "retain_available false") as broker,
        Subscriber(settings(broker, "subscriber"), "fs/#", received),
        Publisher(settings(broker, "device", version="5"), outbox, counters, AVAILABLE) as publisher,
    ):
        publisher.publish_latest("fs/shop/till/birth", b"birth")
        received.wait_for_ids(put(outbox, range(20)))
        until(lambda: outbox.depth()[0] == 0, "all sent")
        problems = publisher.problems()
    assert [problem.partition(":")[0] for problem in problems] == [
        "the broker takes QoS 0 only",
        "the broker keeps no retained messages",
    ]
    assert sum("QoS 0 only" in record.message for record in caplog.records) == 1


def test_forbidden_topic_waits_while_the_others_go(tmp_path, outbox, counters):
    """With MQTT 3.1.1 mosquitto acknowledges what it forbids, and throws it away."""
    rules = tmp_path / "rules"
    rules.write_text("topic readwrite fs/#\n")
    forbidden = "forbidden/shop/till/door/events"
    received = ReceivedMessages()
    lines = (f"acl_file {rules}", "max_inflight_messages 64")  # without a bound, mosquitto 2.0.11 hangs up after it
    with broker_of(tmp_path, *lines) as broker, Subscriber(settings(broker, "s"), "fs/#", received):
        with Publisher(settings(broker, "device", version="5"), outbox, counters, AVAILABLE) as publisher:
            for number in range(100):
                outbox.put(forbidden, b"{}", 1, f"f{number}")
            received.wait_for_ids(put(outbox, range(50)))
            until(lambda: outbox.depth()[0] == 100, "only the forbidden ones wait")
            assert publisher.problems() == (f"nothing is sent on {forbidden}: the broker refuses it: Not authorized",)
            assert counters.total("events_refused") <= 64
        broker.stop()
        rules.write_text("topic readwrite #\n")
        broker.start()
        with Publisher(settings(broker, "device", version="5"), outbox, counters, AVAILABLE):
            until(lambda: outbox.depth()[0] == 0, "all acknowledged once it is allowed")
    assert counters.total("events_set_aside") == 0


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_two_devices_with_one_client_id_back_off_and_say_it(tmp_path, outbox, counters, caplog, version):
    with (
        broker_of(tmp_path) as broker,
        Publisher(settings(broker, "twin", version=version), outbox, counters, AVAILABLE) as one,
        Publisher(settings(broker, "twin", version=version), outbox, counters, AVAILABLE) as other,
    ):
        until(lambda: one.problems() and other.problems(), "both say it")
        assert "the client id 'twin'" in one.problems()[0]
    assert sum("client id" in record.message for record in caplog.records) == 2
    assert counters.total("mqtt_clashes") >= 2


def test_broker_that_stops_answering_is_left(tmp_path, outbox, counters):
    with (
        broker_of(tmp_path) as broker,
        Publisher(settings(broker, "device", acknowledge_timeout_s=0.3), outbox, counters, AVAILABLE) as publisher,
    ):
        until(lambda: publisher.connected, "connected")
        broker.freeze()
        put(outbox, range(5))
        until(lambda: "no answer" in str(publisher.error), "the silence noticed")
        broker.kill()
        broker.start()
        until(lambda: outbox.depth()[0] == 0, "all acknowledged")
    assert counters.total("events_set_aside") == 0


def serve(*answers):
    """Return the port of a server that sends one answer to each client that said something, and then hangs up."""
    server = socket.create_server(("127.0.0.1", 0))

    def run():
        with server:
            for answer in answers:
                client, _ = server.accept()
                with client:
                    client.recv(1000)
                    client.sendall(answer)
                    client.settimeout(5.0)
                    with contextlib.suppress(OSError):
                        while client.recv(1000):
                            pass

    thread = threading.Thread(target=run)
    thread.start()
    return server.getsockname()[1], thread


CONNACK = {"3.1.1": b"\x20\x02\x00\x00", "5": b"\x20\x03\x00\x00\x00"}


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_garbage_of_a_broker_is_our_error(version):
    rng = random.Random(1)
    starts = (b"", CONNACK[version])
    kinds = (0x20, 0x30, 0x32, 0x40, 0x90, 0xE0)
    answers = [starts[n % 2] + rng.randbytes(rng.randint(1, 60)) for n in range(60)]
    for kind in kinds:
        for _ in range(15):
            body = rng.randbytes(rng.randint(0, 30))
            answers.append(CONNACK[version] + bytes((kind, len(body))) + body)
    port, thread = serve(*answers)
    quick = MqttSettings("device", port=port, version=version, connect_timeout_s=0.2)
    for _ in answers:
        with contextlib.suppress(PublishError), Connection(quick) as connection:
            connection.publish("t", b"x")
            for _ in range(3):
                connection.step(0.05)
    thread.join()


def test_packet_without_end_is_not_collected():
    """A broker announces 200 MB, and sends them; the device stops after what it is willing to hold."""
    port, thread = serve(CONNACK["3.1.1"] + b"\x30\xff\xff\xff\x5f" + b"x" * 400_000)
    with Connection(MqttSettings("d", port=port)) as connection:
        message = "stays"
        while message == "stays":
            try:
                connection.step(1.0)
            except PublishError as error:
                message = str(error)
    assert "it sent a packet above 262144 bytes" in message
    thread.join()


def test_reply_wished_on_a_topic_of_another_device_stays_here(tmp_path, outbox, counters):
    """A command asks for its reply on a topic that the sender itself may not write to."""
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    received, victim = ReceivedMessages(), "finesight/shop/other/door/enabled/set"
    camera = CameraConfig(source="rtsp://h/1")
    with broker_of(tmp_path) as broker, Subscriber(settings(broker, "s"), "finesight/#", received):
        mqtt = MqttConfig(host=broker.host, port=broker.port, version="5")
        config = DeviceConfig(site="shop", device="till", state_dir=tmp_path, cameras={"door": camera}, mqtt=mqtt)
        device = DevicePublisher(config, "boot", outbox, PublishLatency(StageTimer(), lambda: 0), counters)
        device.start()
        until(lambda: device.connected, "connected")
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic, properties.CorrelationData = victim, b"7"
        with Connection(settings(broker, "sender", version="5")) as sender:
            sender._client.publish("finesight/shop/till/cmd/health", b"{}", qos=1, properties=properties)
            sender.step(1.0)
        commands = []
        until(lambda: commands.extend(device.take_commands()) or commands, "the command")
        device.publish_reply(commands[0], {"state": "running"})
        received.wait_for(lambda got: any(m.topic == "finesight/shop/till/cmd/reply" for m in got), "the reply")
        device.close()
    assert not any(message.topic == victim for message in received.messages)
    assert counters.total("reply_wishes_unmet", reason="foreign") == 1
