from __future__ import annotations

import json
import random

import pytest

from edge.messaging.payload import priority_of
from edge.messaging.send_order import SendOrder


@pytest.fixture
def put(outbox):
    def put(event_id, priority=1):
        outbox.put("t/events", json.dumps({"id": event_id}).encode(), priority, event_id)

    return put


def send_all(order, outbox, limit=2, *, acknowledge=True):
    sent = []
    while messages := order.next_messages(limit):
        sent += [message.event_id for message in messages]
        if acknowledge:
            outbox.acknowledge([message.event_id for message in messages])
    return sent


@pytest.mark.parametrize("stored", [False, True])
def test_new_and_end_events_of_the_backlog_go_before_updates(outbox, put, stored):
    for event_id in ("new1", "update1", "end1", "update2", "new2"):
        put(event_id, priority_of(event_id[:-1]))
    assert not stored or outbox.flush()
    order = SendOrder(outbox, outbox.last_sequence)
    assert send_all(order, outbox) == ["new1", "end1", "new2", "update1", "update2"]


def test_live_messages_keep_their_order(outbox, put):
    order = SendOrder(outbox, outbox.last_sequence)
    for event_id in ("new1", "update1", "end1"):
        put(event_id, priority_of(event_id[:-1]))
    assert send_all(order, outbox, limit=10) == ["new1", "update1", "end1"]


def test_live_end_overtakes_old_updates_and_a_live_update_does_not(outbox, put):
    put("old1", 0)
    put("old2", 0)
    put("old3", 0)
    order = SendOrder(outbox, outbox.last_sequence)
    assert [m.event_id for m in order.next_messages(1)] == ["old1"]
    put("live update", 0)
    put("end")
    assert send_all(order, outbox, limit=1) == ["end", "old2", "old3", "live update"]


def test_each_message_is_returned_once(outbox, put):
    rng = random.Random(7)
    for number in range(60):
        put(f"e{number}", rng.choice([0, 1]))
    order, sent = SendOrder(outbox, outbox.last_sequence), []
    for number in range(60, 120):  # as many are put while the backlog is sent, most of it not yet acknowledged
        put(f"e{number}", rng.choice([0, 1]))
        messages = order.next_messages(3)
        sent += [message.event_id for message in messages]
        outbox.acknowledge([message.event_id for message in messages[:1]])
    sent += send_all(order, outbox, limit=200, acknowledge=False)
    assert sorted(sent) == sorted(f"e{number}" for number in range(120))


def test_at_most_limit_messages_of_the_backlog_are_returned_at_once(outbox, put):
    for number in range(5):
        for event_id in (f"new{number}", f"end{number}", f"update{number}"):
            put(event_id, priority_of(event_id[:-1]))
    order, sizes = SendOrder(outbox, outbox.last_sequence), []
    while messages := order.next_messages(3):
        sizes.append(len(messages))
        outbox.acknowledge([message.event_id for message in messages])
    assert sizes == [3, 3, 3, 1, 3, 2]  # ten new and end events, then five updates


def test_live_update_follows_urgent_messages_that_are_not_acknowledged(outbox, put):
    put("old", 0)
    order = SendOrder(outbox, outbox.last_sequence)
    for event_id in ("end1", "end2", "live update"):
        put(event_id, priority_of(event_id.rstrip("12").split()[-1]))
    assert send_all(order, outbox, limit=2, acknowledge=False) == ["end1", "end2", "old", "live update"]
