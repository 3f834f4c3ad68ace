"""Connecting again: growing waits, a last will that asks for less, and a broker that disconnects subscribers."""

from __future__ import annotations

import random

import pytest

from edge.errors import PublishError, RefusedError
from edge.messaging.reconnect import STABLE_S, Backoff, Subscriber, failure_reason, lowered
from edge.messaging.settings import MqttSettings, Will


class Top(random.Random):
    """No jitter."""

    def uniform(self, a, b):
        return b


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self):
        self.s = 0.0

    def __call__(self):
        return self.s


def wait_after(backoff, clock, lasted_s):
    """Return the wait after a connection that lasted some seconds."""
    backoff.start()
    clock.s += lasted_s
    return backoff.next_s()


def test_wait_doubles_until_a_connection_lasted():
    clock = Clock()
    backoff = Backoff(MqttSettings("till", backoff_first_s=0.5), Top(), clock)
    lasting = (0.0, 1.0, STABLE_S, STABLE_S + 0.1, 0.0)
    assert [wait_after(backoff, clock, lasted_s) for lasted_s in lasting] == [0.5, 1.0, 2.0, 0.5, 1.0]


def test_connection_that_the_client_ended_is_no_failure():
    clock = Clock()
    backoff = Backoff(MqttSettings("till", backoff_first_s=0.5), Top(), clock)
    assert [wait_after(backoff, clock, 0.0) for _ in range(2)] == [0.5, 1.0]
    backoff.reset()
    assert wait_after(backoff, clock, 0.0) == 0.5


def test_clashes_lengthen_the_wait():
    backoff = Backoff(MqttSettings("till", backoff_max_s=30.0), Top(), Clock())
    assert backoff.next_s(clashes=4) == 60.0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PublishError("gone"), "unreachable"),
        (RefusedError("no"), "refused"),
        (RefusedError("no", 0x8E), "taken_over"),
        (PublishError("gone", 0x8E), "taken_over"),
    ],
)
def test_failure_has_a_reason(error, reason):
    assert failure_reason(error) == reason


@pytest.mark.parametrize(
    ("code", "qos", "retain"), [(None, 1, True), (0x80, 1, True), (0x9B, 0, True), (0x9A, 1, False)]
)
def test_will_asks_for_less_where_the_broker_refused_it(code, qos, retain):
    will = lowered(Will("t", b"offline"), RefusedError("no", code))
    assert (will.qos, will.retain) == (qos, retain)


def test_fourth_connection_does_not_subscribe():
    subscriber, calls = Subscriber(), []

    def lose():
        calls.append(1)
        raise PublishError("lost")

    for _ in range(3):
        with pytest.raises(PublishError):
            subscriber.run(lose)
    assert not subscriber.run(lose)
    assert len(calls) == 3
    with pytest.raises(PublishError):
        subscriber.run(lose)


def test_refused_subscription_is_no_lost_connection():
    subscriber = Subscriber()

    def refuse():
        raise RefusedError("no")

    for _ in range(5):
        with pytest.raises(RefusedError):
            subscriber.run(refuse)
    assert subscriber.run(lambda: None)
