"""Outgoing messages that are not events."""

import pytest

from edge.messaging.retained_queue import QueuedMessage, RetainedQueue


def birth(payload=b"1"):
    return QueuedMessage("t/birth", payload, retain=True)


HEALTH = QueuedMessage("t/health", b"{}")
REPLY = QueuedMessage("t/cmd/reply", b"{}", what="reply", correlation=b"7")


@pytest.fixture
def messages(counters):
    return RetainedQueue(counters)


def taken(messages):
    return list(iter(messages.take, None))


def test_latest_retained_message_is_sent_on_every_connection(messages):
    messages.put_latest(birth())
    assert taken(messages) == []
    messages.put_latest(birth(b"2"))
    for _ in range(2):
        messages.on_connect()
        assert taken(messages) == [birth(b"2")]
        assert taken(messages) == []
        messages.on_disconnect()


def test_newer_state_replaces_an_older_one_and_goes_first(messages):
    messages.on_connect()
    messages.put_once(REPLY)
    for state in (birth(), HEALTH, birth(b"2")):
        messages.put_latest(state)
    assert taken(messages) == [birth(b"2"), HEALTH, REPLY]


def test_other_messages_are_dropped_and_counted_when_offline(messages, counters):
    messages.put_latest(HEALTH)
    messages.put_once(REPLY)
    messages.on_connect()
    assert taken(messages) == []
    assert counters.total("announcements_dropped", reason="disconnected") == 1
    assert counters.total("messages_dropped", what="reply", reason="disconnected") == 1


def test_unsent_messages_of_a_lost_connection_are_counted_once(messages, counters):
    messages.on_connect()
    messages.put_latest(HEALTH)
    messages.put_latest(birth())
    messages.put_once(REPLY)
    for _ in range(2):  # the second connection fails before anything is sent
        messages.on_disconnect()
    messages.on_connect()
    assert taken(messages) == [birth()]
    assert counters.total("announcements_dropped") == 1
    assert counters.total("messages_dropped") == 1


def test_full_queue_drops_and_counts_messages(messages, counters):
    messages.on_connect()
    for _ in range(258):
        messages.put_once(REPLY)
    assert len(taken(messages)) == 256
    assert counters.total("messages_dropped", what="reply", reason="full") == 2


def test_message_that_clears_a_topic_is_sent_until_it_is_acknowledged(counters):
    cleared = []
    messages = RetainedQueue(counters, cleared.append)
    messages.put_latest(birth(b""))
    for _ in range(2):
        messages.on_connect()
        sent = taken(messages)
        assert sent == [birth(b"")]
        messages.on_disconnect()
    messages.on_acknowledged(sent[0])
    messages.on_connect()
    assert (taken(messages), cleared) == ([], ["t/birth"])


def test_acknowledged_state_and_a_topic_in_use_again_stay(counters):
    cleared = []
    messages = RetainedQueue(counters, cleared.append)
    clearing = birth(b"")
    messages.put_latest(clearing)
    messages.put_latest(birth(b"2"))
    messages.on_acknowledged(clearing)
    messages.on_acknowledged(birth(b"2"))
    messages.on_connect()
    assert (taken(messages), cleared) == ([birth(b"2")], [])


def test_topic_is_cleared_after_what_was_queued_since(messages):
    last = QueuedMessage("ha/device", b"handed over", retain=True, then_clear=True)
    messages.on_connect()
    messages.put_latest(last)
    messages.put_latest(birth())
    assert taken(messages) == [last, birth()]
    messages.put_latest(birth(b"2"))
    messages.on_acknowledged(last)
    second, cleared = taken(messages)
    assert (second, cleared) == (birth(b"2"), QueuedMessage("ha/device", b"", retain=True))
    messages.on_disconnect()
    messages.on_connect()
    assert cleared in taken(messages)  # until that, too, is acknowledged
    messages.on_acknowledged(cleared)
    messages.on_connect()
    assert taken(messages) == [birth(b"2")]


def test_retained_message_is_queued_again_on_demand(messages):
    messages.put_latest(birth())
    messages.on_connect()
    assert taken(messages) == [birth()]
    messages.requeue("t/birth")
    messages.requeue("t/unknown")
    assert taken(messages) == [birth()]
