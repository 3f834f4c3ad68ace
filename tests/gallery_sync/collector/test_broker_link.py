"""The connection to the broker: what is sent again, what is not, and what its senders learn."""

from __future__ import annotations

import contextlib
import random
import threading

import pytest

from edge.errors import MessageError, PublishError, RefusedError
from edge.messaging.settings import Acknowledgement, MqttSettings, ReceivedMessage
from edge.telemetry.counters import Counters
from gallery_sync.collector.broker_link import BrokerLink
from tests.waiting import until


class FakeConnection:
    """A connection in memory; the broker ends it when a test says so."""

    def __init__(self, broker):
        self.broker, self.published, self.subscribed = broker, [], []
        self.unanswered, self.ended, self.event = [], False, threading.Event()

    def publish(self, topic, payload, *, retain=False):
        if topic == "wrong":
            raise MessageError("topic 'wrong': not allowed")
        self.published.append((topic, payload, retain))
        if topic not in self.broker.silent:
            self.unanswered.append(Acknowledgement(len(self.published), self.broker.refused.get(topic)))
        return len(self.published)

    def subscribe(self, *topics):
        if self.broker.forbidden in topics:
            raise RefusedError("broker: refused the subscription")
        self.subscribed += topics

    def step(self, timeout_s):
        if not self.unanswered:
            self.event.wait(timeout_s)
            self.event.clear()
        if self.ended:
            raise PublishError("broker b: connection lost")
        answers, self.unanswered = self.unanswered, []
        return answers

    def wake(self):
        self.event.set()

    def close(self):
        self.ended = True

    def end(self):
        self.ended = True
        self.wake()


class FakeBroker:
    """Lets connections in, or not."""

    def __init__(self):
        self.connections, self.down, self.forbidden = [], False, None
        self.silent, self.refused = set(), {}

    def connect(self, _settings, on_message):
        self.on_message = on_message
        if self.down:
            raise PublishError("broker localhost:1883: cannot connect")
        self.connections.append(FakeConnection(self))
        return self.connections[-1]


@contextlib.contextmanager
def linked(broker, **options):
    settings = MqttSettings("fleet", backoff_first_s=0.01, backoff_max_s=0.02)
    link = BrokerLink(
        *(settings, ("t/+",), lambda _: None, Counters()), connect=broker.connect, rng=random.Random(0), **options
    )
    thread = threading.Thread(target=link.run)
    thread.start()
    try:
        yield link
    finally:
        link.stop()
        thread.join()


def test_retained_messages_are_published_on_every_connection():
    broker = FakeBroker()
    with linked(broker) as link:
        link.retain("a", b"1")
        until(lambda: ("a", b"1", True) in broker.connections[-1].published, "published")
        link.retain("a", b"2")
        link.retain("b", b"")
        until(lambda: len(broker.connections[0].published) == 3, "all published")
        broker.connections[0].end()
        until(lambda: len(broker.connections) == 2 and broker.connections[1].published, "published again")
        until(lambda: link.connected, "connected")
        assert broker.connections[1].published == [("a", b"2", True)]
        assert broker.connections[1].subscribed == ["t/+"]


def test_sender_learns_whether_the_broker_has_it():
    broker = FakeBroker()
    broker.refused["r"] = "not authorised"
    with linked(broker) as link:
        until(lambda: link.connected, "connected")
        link.send("a", b"1")
        assert broker.connections[0].published == [("a", b"1", False)]
        with pytest.raises(PublishError, match="refused the message: not authorised"):
            link.send("r", b"1")
        with pytest.raises(PublishError, match="not allowed"):
            link.send("wrong", b"1")
        broker.silent.add("s")
        with pytest.raises(PublishError, match="no answer in 0 s"):
            link.send("s", b"1", wait_s=0.0)
        assert len(broker.connections) == 1


def test_nothing_is_sent_later_without_a_connection():
    broker = FakeBroker()
    broker.down = True
    with linked(broker) as link:
        until(lambda: link.problem == "cannot connect", "refused")
        with pytest.raises(PublishError, match="cannot connect"):
            link.send("a", b"1")
        broker.down = False
        until(lambda: link.connected, "connected")
        assert broker.connections[0].published == []


def test_senders_that_wait_learn_of_a_lost_connection():
    broker = FakeBroker()
    broker.silent.add("a")
    problems = []
    with linked(broker) as link:
        until(lambda: link.connected, "connected")

        def send():
            try:
                link.send("a", b"1", wait_s=20.0)
            except PublishError as error:
                problems.append(str(error))

        sender = threading.Thread(target=send)
        sender.start()
        until(lambda: broker.connections[0].published, "published")
        broker.connections[0].end()
        sender.join()
    assert "connection was lost before the broker answered" in problems[0]


def test_optional_topic_that_is_refused_does_not_end_the_connection(caplog):
    broker = FakeBroker()
    broker.forbidden = "finesight/+/+/cmd/reply"
    with linked(broker, optional_topics=(broker.forbidden,)) as link:
        until(lambda: link.connected, "connected")
    assert len(broker.connections) == 1
    assert "restart_camera will not arrive" in caplog.text


def test_retained_messages_are_counted_on_each_connection():
    broker, counts = FakeBroker(), []
    with linked(broker, on_settled=counts.append, settled_s=0.0) as link:
        until(lambda: counts == [0], "settled")
        for retained in (True, True, False):
            broker.on_message(ReceivedMessage("t/a", b"", retained, 0))
        assert link._retained == 2
        link.reconnect()
        until(lambda: counts == [0, 0], "settled again")


def test_reconnect_lets_the_broker_send_all_again():
    broker = FakeBroker()
    with linked(broker) as link:
        until(lambda: link.connected, "connected")
        link.reconnect()
        until(lambda: len(broker.connections) == 2, "connected again")
