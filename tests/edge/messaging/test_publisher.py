"""The publisher against a link that answers as told; real brokers are in tests/integration/test_mqtt.py."""

from __future__ import annotations

import json
import queue
import random
import threading

from edge.errors import PublishError, RefusedError
from edge.messaging.connection import Acknowledgement
from edge.messaging.publisher import Publisher, Subscriptions
from edge.messaging.settings import MqttSettings, backoff_s

SETTINGS = MqttSettings("till", window=4, backoff_first_s=0.001, backoff_max_s=0.002, connect_timeout_s=1.0)
DEADLINE_S = 10.0


class FakeLink:
    """A broker's end in memory: what was sent, and answers on demand."""

    def __init__(self, *, automatic=True, window=4, refusal=None, subscribable=True, hangs_up=False):
        self.window = window
        self._hangs_up = hangs_up
        self.subscribed, self.correlations = [], []
        self._subscribable = subscribable
        self.sent, self.closed = [], False
        self._automatic, self._refusal = automatic, refusal
        self._answers, self._lost = [], False
        self._changed = threading.Condition()

    def subscribe(self, *topics):
        assert not self.sent, "what is said first may be answered before we listen"
        self.subscribed += topics
        if self._hangs_up:
            raise PublishError("broker b:1: connection lost")
        if not self._subscribable:
            raise RefusedError("broker b:1: refused the subscription of t/cmd/+: Not authorized")

    def publish(self, topic, payload, *, retain=False, qos=1, correlation=None):
        with self._changed:
            self.sent.append((topic, payload, retain))
            self.correlations.append(correlation)
            number = len(self.sent)
            if self._automatic:
                self._answers.append(Acknowledgement(number, self._refusal if b"{" in payload else None))
            self._changed.notify_all()
            return number

    def step(self, timeout_s):
        with self._changed:
            self._changed.wait_for(lambda: self._answers or self._lost or self._woken(), timeout_s)
            if self._lost:
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


class Dialled:
    """Hands out the links, or errors, put into it."""

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


def test_a_message_leaves_the_outbox_only_when_acknowledged(outbox, counters):
    silent, second = FakeLink(automatic=False), FakeLink()
    put(outbox, "a", "b")
    with started(Dialled(silent, second), outbox, counters):
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


def test_what_waited_for_the_connection_is_historical_and_the_rest_is_not(outbox, counters):
    link = FakeLink()
    put(outbox, "late")
    with started(Dialled(link), outbox, counters):
        link.wait_for(lambda sent: len(sent) == 2)
        put(outbox, "live")
        link.wait_for(lambda sent: len(sent) == 3)
    assert {event["id"]: event["historical"] for event in link.events()} == {"late": True, "live": False}


def test_no_more_than_the_window_is_on_its_way(outbox, counters):
    link, last = FakeLink(automatic=False, window=3), FakeLink()
    put(outbox, *"abcdefgh")
    with started(Dialled(link, last), outbox, counters):
        link.wait_for(lambda sent: len(sent) == 3)
        link.wake()
        link.lose()
        last.wait_for(lambda sent: len(sent) >= 9)
    assert len(link.sent) == 3
    assert [event["id"] for event in last.events()] == list("abcdefgh")


def test_a_refused_connection_is_counted_told_and_tried_again(outbox, counters, caplog):
    refused = RefusedError("broker b:1: refused the connection: Not authorized")
    link = FakeLink()
    with started(Dialled(refused, refused, PublishError("gone"), link), outbox, counters) as publisher:
        link.wait_for(lambda sent: len(sent) == 1)
        assert publisher.error is None
    assert counters.total("mqtt_failures", reason="refused") == 2
    assert counters.total("mqtt_failures", reason="unreachable") == 1
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["broker b:1: refused the connection: Not authorized; events wait", "gone; events wait"]


def test_an_event_the_broker_refuses_waits_for_the_next_connection(outbox, counters):
    refusing, accepting = FakeLink(refusal="Quota exceeded"), FakeLink()
    put(outbox, "a")
    with started(Dialled(refusing, accepting), outbox, counters):
        refusing.wait_for(lambda sent: len(sent) == 2)
        refusing.lose()
        accepting.wait_for(lambda sent: len(sent) >= 2)
    assert [event["id"] for event in accepting.events()] == ["a"]
    assert len(refusing.events()) == 1


def test_the_device_says_online_at_first_and_stopped_at_last(outbox, counters):
    link = FakeLink()
    connect = Dialled(link)
    with started(connect, outbox, counters) as publisher:
        link.wait_for(lambda sent: len(sent) == 1)
        publisher.publish_latest("t/door/status", b"online")
        link.wait_for(lambda sent: len(sent) == 2)
    assert (connect.will.topic, connect.will.payload) == ("t/available", b"offline")
    assert link.sent == [
        ("t/available", b"online", True),
        ("t/door/status", b"online", True),
        ("t/available", b"stopped", True),
    ]


def test_only_the_latest_status_is_told_on_every_connection(outbox, counters):
    first, second = FakeLink(), FakeLink()
    publisher = started(Dialled(first, second), outbox, counters)
    publisher.publish_latest("t/door/status", b"stalled")
    publisher.publish_latest("t/door/status", b"online")
    publisher.publish_latest("t/health", b"alive", retain=False)
    with publisher:
        first.wait_for(lambda sent: len(sent) == 2)
        first.lose()
        second.wait_for(lambda sent: len(sent) == 2)
    assert first.sent[1] == second.sent[1] == ("t/door/status", b"online", True)
    assert counters.total("announcements_dropped", reason="disconnected") == 1


def test_it_listens_anew_on_every_connection(outbox, counters):
    heard = []
    first, second = FakeLink(), FakeLink()
    connect = Dialled(first, second)
    with started(connect, outbox, counters, Subscriptions(("t/cmd/+", "ha/status"), heard.append)):
        first.wait_for(lambda sent: len(sent) == 1)
        connect.on_message("message")
        first.lose()
        second.wait_for(lambda sent: len(sent) == 1)
    assert first.subscribed == second.subscribed == ["t/cmd/+", "ha/status"]
    assert heard == ["message"]


def test_a_refused_subscription_is_counted_and_events_are_told_all_the_same(outbox, counters):
    link = FakeLink(subscribable=False)
    put(outbox, "a")
    with started(Dialled(link), outbox, counters, Subscriptions(("t/cmd/+",))):
        link.wait_for(lambda sent: len(sent) == 2)
    assert [event["id"] for event in link.events()] == ["a"]
    assert counters.total("subscriptions_refused") == 1


def test_a_broker_that_hangs_up_on_subscriptions_gets_events_all_the_same(outbox, counters):
    links = [FakeLink(hangs_up=True) for _ in range(4)]
    put(outbox, "a")
    with started(Dialled(*links), outbox, counters, Subscriptions(("t/cmd/+",))):
        links[3].wait_for(lambda sent: len(sent) == 2)
    assert [event["id"] for event in links[3].events()] == ["a"]
    assert [len(link.subscribed) for link in links] == [1, 1, 1, 0]
    assert counters.total("subscriptions_refused") == 1


def test_what_is_told_once_is_said_each_while_connected_and_dropped_and_counted_else(outbox, counters):
    link = FakeLink()
    publisher = started(Dialled(link), outbox, counters)
    publisher.publish_once("t/cmd/reply", b"early", "reply")
    with publisher:
        link.wait_for(lambda sent: len(sent) == 1)
        publisher.publish_once("t/cmd/reply", b"one", "reply", b"\x01")
        publisher.publish_once("t/cmd/reply", b"two", "reply")
        link.wait_for(lambda sent: len(sent) == 3)
    assert link.sent[1:3] == [("t/cmd/reply", b"one", False), ("t/cmd/reply", b"two", False)]
    assert link.correlations[1:3] == [b"\x01", None]
    assert counters.total("messages_dropped", what="reply", reason="disconnected") == 1


def test_what_is_told_faster_than_it_can_be_said_is_bounded_and_counted(outbox, counters):
    link = FakeLink(automatic=False, window=1)  # the word online is never acknowledged: nothing else fits
    with started(Dialled(link), outbox, counters) as publisher:
        link.wait_for(lambda sent: len(sent) == 1)
        for number in range(300):
            publisher.publish_once("frigate/events", b"%d" % number, "frigate_event")
        assert counters.total("messages_dropped", what="frigate_event", reason="full") == 300 - 256
        link.lose()
    assert counters.total("messages_dropped", what="frigate_event") == 300


def test_a_stumble_is_counted_and_does_not_end_the_thread(outbox, counters):
    link = FakeLink()
    with started(Dialled(ZeroDivisionError(), link), outbox, counters):
        link.wait_for(lambda sent: len(sent) == 1)
    assert counters.total("mqtt_errors") == 1


def test_back_off_doubles_to_a_bound_and_differs_between_devices():
    settings = MqttSettings("till", backoff_first_s=0.5, backoff_max_s=30.0)

    class Top(random.Random):
        def uniform(self, a, b):
            return b

    assert [backoff_s(settings, n, Top()) for n in (1, 2, 3, 7, 10_000)] == [0.5, 1.0, 2.0, 30.0, 30.0]
    assert len({backoff_s(settings, 3, random.Random(seed)) for seed in range(20)}) == 20


def test_a_password_is_never_shown():
    assert "secret" not in repr(MqttSettings("till", username="u", password="secret"))
