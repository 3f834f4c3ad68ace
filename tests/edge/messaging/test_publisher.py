"""The publisher with a scripted connection; tests/integration/test_mqtt.py uses real brokers."""

from __future__ import annotations

import json
import queue
import random
import threading

import pytest

from edge.errors import PublishError, RefusedError
from edge.messaging.publisher import Publisher, Subscriptions
from edge.messaging.settings import Acknowledgement, BrokerLimits, MqttSettings, backoff_s
from tests.waiting import DEADLINE_S

SETTINGS = MqttSettings("till", window=4, backoff_first_s=0.001, backoff_max_s=0.002, connect_timeout_s=1.0)


class FakeConnection:
    """A connection in memory that records messages and answers on demand."""

    def __init__(self, *, automatic=True, window=4, refusal=None, subscribable=True, disconnects=False):
        """Answer every message, or only the greeting; refuse events with a reason, if one is given."""
        self.window, self.limits = window, BrokerLimits()
        self._disconnects = disconnects
        self.subscribed, self.correlations = [], []
        self._subscribable = subscribable
        self.sent, self.closed = [], False
        self._automatic, self._refusal = automatic, refusal
        self._answers, self._lost = [], False
        self._changed = threading.Condition()

    def subscribe(self, *topics):
        assert not self.sent, "subscribe first: a reply may come before we listen"
        self.subscribed += topics
        if self._disconnects:
            raise PublishError("broker b:1: connection lost")
        if not self._subscribable:
            raise RefusedError("broker b:1: refused the subscription of t/cmd/+: Not authorized")

    def publish(self, topic, payload, *, retain=False, qos=1, correlation=None):
        with self._changed:
            self.sent.append((topic, payload, retain))
            self.correlations.append(correlation)
            number = len(self.sent)
            if self._automatic or number == 1:
                self._answers.append(Acknowledgement(number, self._refusal if b"{" in payload else None))
            self._changed.notify_all()
            return number

    def step(self, timeout_s):
        with self._changed:
            self._changed.wait_for(lambda: self._answers or self._lost or self._woken(), timeout_s)
            if self._lost and not self._answers:
                raise PublishError("broker: connection lost")
            answers, self._answers = self._answers, []
            return answers

    _awake = False

    def _woken(self):
        awake, self._awake = self._awake, False
        return awake

    def wake(self):
        with self._changed:
            self._awake = True
            self._changed.notify_all()

    def lose(self):
        with self._changed:
            self._lost = True
            self._changed.notify_all()

    def close(self):
        self.closed = True

    def wait_for(self, condition):
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.sent), DEADLINE_S), self.sent

    def events(self):
        return [json.loads(payload) for _, payload, _ in self.sent if payload.startswith(b"{")]


class FakeConnect:
    """Hands out the connections, or errors, put into it."""

    def __init__(self, *results):
        self.results = queue.SimpleQueue()
        for result in results:
            self.results.put(result)

    def __call__(self, settings, will, on_message):
        self.will, self.on_message = will, on_message
        result = self.results.get(timeout=DEADLINE_S)
        if isinstance(result, Exception):
            raise result
        return result


def put(outbox, *ids):
    for event_id in ids:
        outbox.put("t/events", b'{"id":"%s","historical":false}' % event_id.encode(), 1, event_id)


def started(connect, outbox, counters, subscriptions=None):
    return Publisher(
        SETTINGS, outbox, counters, "t/available", subscriptions=subscriptions, connect=connect, rng=random.Random(1)
    )


def test_message_leaves_the_outbox_only_when_acknowledged(outbox, counters):
    silent, second = FakeConnection(automatic=False), FakeConnection()
    put(outbox, "a", "b")
    with started(FakeConnect(silent, second), outbox, counters):
        silent.wait_for(lambda sent: len(sent) == 3)
        assert outbox.depth()[0] == 2
        silent.lose()
        second.wait_for(lambda sent: len(sent) >= 3)
    assert [event["id"] for event in second.events()] == ["a", "b"]
    assert outbox.depth()[0] == 0
    assert silent.closed
    assert second.closed
    assert counters.total("events_retried") == 2
    assert counters.total("events_published") == 2
    assert counters.total("mqtt_reconnects") == 1


def test_only_messages_that_waited_are_historical(outbox, counters):
    connection = FakeConnection()
    put(outbox, "late")
    with started(FakeConnect(connection), outbox, counters):
        connection.wait_for(lambda sent: len(sent) == 2)
        put(outbox, "live")
        connection.wait_for(lambda sent: len(sent) == 3)
    assert {event["id"]: event["historical"] for event in connection.events()} == {"late": True, "live": False}


def test_no_more_than_the_window_is_in_flight(outbox, counters):
    connection, last = FakeConnection(automatic=False, window=3), FakeConnection()
    put(outbox, *"abcdefgh")
    with started(FakeConnect(connection, last), outbox, counters):
        connection.wait_for(lambda sent: len(sent) == 4)  # the greeting, which is answered, and three events
        connection.wake()
        connection.lose()
        last.wait_for(lambda sent: len(sent) >= 9)
    assert len(connection.sent) == 4
    assert [event["id"] for event in last.events()] == list("abcdefgh")


def test_refused_connection_is_counted_logged_and_retried(outbox, counters, caplog):
    refused = RefusedError("broker b:1: refused the connection: Not authorized")
    connection = FakeConnection()
    with started(FakeConnect(refused, refused, PublishError("gone"), connection), outbox, counters) as publisher:
        connection.wait_for(lambda sent: len(sent) == 1)
        assert publisher.error is None
    assert counters.total("mqtt_failures", reason="refused") == 2
    assert counters.total("mqtt_failures", reason="unreachable") == 1
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["broker b:1: refused the connection: Not authorized; events wait", "gone; events wait"]


def test_refused_event_waits_for_the_next_connection(outbox, counters):
    refusing, accepting = FakeConnection(refusal="Quota exceeded"), FakeConnection()
    put(outbox, "a")
    with started(FakeConnect(refusing, accepting), outbox, counters):
        refusing.wait_for(lambda sent: len(sent) == 2)
        refusing.lose()
        accepting.wait_for(lambda sent: len(sent) >= 2)
    assert [event["id"] for event in accepting.events()] == ["a"]
    assert len(refusing.events()) == 1


def test_publishes_online_first_and_stopped_last(outbox, counters):
    connection = FakeConnection()
    connect = FakeConnect(connection)
    with started(connect, outbox, counters) as publisher:
        connection.wait_for(lambda sent: len(sent) == 1)
        publisher.publish_latest("t/door/status", b"online")
        connection.wait_for(lambda sent: len(sent) == 2)
    assert (connect.will.topic, connect.will.payload) == ("t/available", b"offline")
    assert connection.sent == [
        ("t/available", b"online", True),
        ("t/door/status", b"online", True),
        ("t/available", b"stopped", True),
    ]


def test_latest_status_is_sent_on_every_connection(outbox, counters):
    first, second = FakeConnection(), FakeConnection()
    publisher = started(FakeConnect(first, second), outbox, counters)
    publisher.publish_latest("t/door/status", b"stalled")
    publisher.publish_latest("t/door/status", b"online")
    publisher.publish_latest("t/health", b"alive", retain=False)
    with publisher:
        first.wait_for(lambda sent: len(sent) == 2)
        first.lose()
        second.wait_for(lambda sent: len(sent) == 2)
    assert first.sent[1] == second.sent[1] == ("t/door/status", b"online", True)
    assert counters.total("announcements_dropped", reason="disconnected") == 1


def test_subscribes_on_every_connection(outbox, counters):
    messages = []
    first, second = FakeConnection(), FakeConnection()
    connect = FakeConnect(first, second)
    with started(connect, outbox, counters, Subscriptions(("t/cmd/+", "ha/status"), messages.append)):
        first.wait_for(lambda sent: len(sent) == 1)
        connect.on_message("message")
        first.lose()
        second.wait_for(lambda sent: len(sent) == 1)
    assert first.subscribed == second.subscribed == ["t/cmd/+", "ha/status"]
    assert messages == ["message"]


def test_events_are_sent_despite_a_refused_subscription(outbox, counters):
    connection = FakeConnection(subscribable=False)
    put(outbox, "a")
    with started(FakeConnect(connection), outbox, counters, Subscriptions(("t/cmd/+",))):
        connection.wait_for(lambda sent: len(sent) == 2)
    assert [event["id"] for event in connection.events()] == ["a"]
    assert counters.total("subscriptions_refused") == 1


def test_events_are_sent_to_a_broker_that_disconnects_subscribers(outbox, counters):
    connections = [FakeConnection(disconnects=True) for _ in range(4)]
    put(outbox, "a")
    with started(FakeConnect(*connections), outbox, counters, Subscriptions(("t/cmd/+",))):
        connections[3].wait_for(lambda sent: len(sent) == 2)
    assert [event["id"] for event in connections[3].events()] == ["a"]
    assert [len(connection.subscribed) for connection in connections] == [1, 1, 1, 0]
    assert counters.total("subscriptions_refused") == 1


def test_one_time_messages_are_sent_while_connected_else_counted(outbox, counters):
    connection = FakeConnection()
    publisher = started(FakeConnect(connection), outbox, counters)
    publisher.publish_once("t/cmd/reply", b"early", "reply")
    with publisher:
        connection.wait_for(lambda sent: len(sent) == 1)
        publisher.publish_once("t/cmd/reply", b"one", "reply", b"\x01")
        publisher.publish_once("t/cmd/reply", b"two", "reply")
        connection.wait_for(lambda sent: len(sent) == 3)
    assert connection.sent[1:3] == [("t/cmd/reply", b"one", False), ("t/cmd/reply", b"two", False)]
    assert connection.correlations[1:3] == [b"\x01", None]
    assert counters.total("messages_dropped", what="reply", reason="disconnected") == 1


def test_one_time_messages_are_bounded_and_counted(outbox, counters):
    connection = FakeConnection(automatic=False, window=1)  # one event is never acknowledged, so nothing else fits
    put(outbox, "a")
    with started(FakeConnect(connection), outbox, counters) as publisher:
        connection.wait_for(lambda sent: len(sent) == 2)
        for number in range(300):
            publisher.publish_once("frigate/events", b"%d" % number, "frigate_event")
        assert counters.total("messages_dropped", what="frigate_event", reason="full") == 300 - 256
        connection.lose()
    assert counters.total("messages_dropped", what="frigate_event") == 300


def test_unexpected_error_is_counted_and_the_thread_goes_on(outbox, counters):
    connection = FakeConnection()
    with started(FakeConnect(ZeroDivisionError(), connection), outbox, counters):
        connection.wait_for(lambda sent: len(sent) == 1)
    assert counters.total("mqtt_errors") == 1


def test_backoff_doubles_to_a_bound_and_differs_between_devices():
    settings = MqttSettings("till", backoff_first_s=0.5, backoff_max_s=30.0)

    class Top(random.Random):
        def uniform(self, a, b):
            return b

    assert [backoff_s(settings, n, Top()) for n in (1, 2, 3, 7, 10_000)] == [0.5, 1.0, 2.0, 30.0, 30.0]
    assert len({backoff_s(settings, 3, random.Random(seed)) for seed in range(20)}) == 20


def test_backoff_grows_tenfold_while_another_client_has_the_same_id():
    class Top(random.Random):
        def uniform(self, a, b):
            return b

    settings = MqttSettings("till", backoff_first_s=0.5, backoff_max_s=30.0)
    waits = [backoff_s(settings, 1, Top(), clashes) for clashes in (0, 2, 3, 4, 5, 6, 7, 1000)]
    assert waits == [0.5, 0.5, 30.0, 60.0, 120.0, 240.0, 300.0, 300.0]


@pytest.mark.parametrize("limit", [30, 140, 1900, 16_500, 2_097_300])
@pytest.mark.parametrize("correlation", [None, b"x" * 10, b"x" * 1000])
def test_longest_payload_fills_the_packet_but_for_a_few_bytes(limit, correlation):
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    room = BrokerLimits(limit).max_payload_bytes("t/é", correlation)
    properties = Properties(PacketTypes.PUBLISH)
    if correlation is not None:
        properties.CorrelationData = correlation
    remaining = 2 + len("t/é".encode()) + 2 + len(properties.pack()) + room
    packet = 1 + next(n for n in range(1, 5) if remaining < 128**n) + remaining
    assert limit - 2 <= packet <= limit


def test_broker_that_states_nothing_sets_no_bound():
    assert BrokerLimits().max_payload_bytes("t") is None


def test_password_is_not_in_the_repr():
    assert "secret" not in repr(MqttSettings("till", username="u", password="secret"))
