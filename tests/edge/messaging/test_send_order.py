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


def given(backlog, outbox, limit=2, *, acknowledge=True):
    found = []
    while messages := backlog.next(limit):
        found += [message.event_id for message in messages]
        if acknowledge:
            outbox.acknowledge([message.event_id for message in messages])
    return found


@pytest.mark.parametrize("stored", [False, True])
def test_of_a_backlog_new_and_end_events_go_before_updates(outbox, put, stored):
    for event_id in ("new1", "update1", "end1", "update2", "new2"):
        put(event_id, priority_of(event_id[:-1]))
    assert not stored or outbox.flush()
    backlog = SendOrder(outbox, outbox.last_sequence)
    assert given(backlog, outbox) == ["new1", "end1", "new2", "update1", "update2"]


def test_what_comes_in_live_keeps_its_order(outbox, put):
    backlog = SendOrder(outbox, outbox.last_sequence)
    for event_id in ("new1", "update1", "end1"):
        put(event_id, priority_of(event_id[:-1]))
    assert given(backlog, outbox, limit=10) == ["new1", "update1", "end1"]


def test_a_live_end_does_not_wait_for_old_updates_but_a_live_update_does(outbox, put):
    put("old1", 0)
    put("old2", 0)
    put("old3", 0)
    backlog = SendOrder(outbox, outbox.last_sequence)
    assert [m.event_id for m in backlog.next(1)] == ["old1"]
    put("live update", 0)
    put("end")
    assert given(backlog, outbox, limit=1) == ["end", "old2", "old3", "live update"]


def test_each_message_is_given_out_once_whatever_the_order(outbox, put):
    rng = random.Random(7)
    for number in range(60):
        put(f"e{number}", rng.choice([0, 1]))
    backlog, found = SendOrder(outbox, outbox.last_sequence), []
    for number in range(60, 120):  # as many come in while the backlog is sent, half of it not yet acknowledged
        put(f"e{number}", rng.choice([0, 1]))
        messages = backlog.next(3)
        found += [message.event_id for message in messages]
        outbox.acknowledge([message.event_id for message in messages[:1]])
    found += given(backlog, outbox, limit=200, acknowledge=False)
    assert sorted(found) == sorted(f"e{number}" for number in range(120))
