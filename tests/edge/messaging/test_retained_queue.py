"""What is said beside the events."""

import pytest

from edge.messaging.retained_queue import QueuedMessage, RetainedQueue


def birth(payload=b"1"):
    return QueuedMessage("t/birth", payload, retain=True)


HEALTH = QueuedMessage("t/health", b"{}")
REPLY = QueuedMessage("t/cmd/reply", b"{}", what="reply", correlation=b"7")


@pytest.fixture
def notices(counters):
    return RetainedQueue(counters)


def said(notices):
    return list(iter(notices.take, None))


def test_what_is_retained_is_said_on_every_connection_and_only_the_latest(notices):
    notices.put(birth())
    assert said(notices) == []
    notices.put(birth(b"2"))
    for _ in range(2):
        notices.begin()
        assert said(notices) == [birth(b"2")]
        assert said(notices) == []
        notices.end()


def test_a_newer_state_replaces_one_that_was_not_said_and_goes_before_what_is_said_once(notices):
    notices.begin()
    notices.put_once(REPLY)
    for state in (birth(), HEALTH, birth(b"2")):
        notices.put(state)
    assert said(notices) == [birth(b"2"), HEALTH, REPLY]


def test_without_a_connection_what_is_not_retained_is_dropped_and_counted(notices, counters):
    notices.put(HEALTH)
    notices.put_once(REPLY)
    notices.begin()
    assert said(notices) == []
    assert counters.total("announcements_dropped", reason="disconnected") == 1
    assert counters.total("messages_dropped", what="reply", reason="disconnected") == 1


def test_what_a_lost_connection_left_unsaid_is_dropped_and_counted_once(notices, counters):
    notices.begin()
    notices.put(HEALTH)
    notices.put(birth())
    notices.put_once(REPLY)
    for _ in range(2):  # the second attempt fails before anything can be said
        notices.end()
    notices.begin()
    assert said(notices) == [birth()]
    assert counters.total("announcements_dropped") == 1
    assert counters.total("messages_dropped") == 1


def test_too_much_to_be_said_once_is_dropped_and_counted(notices, counters):
    notices.begin()
    for _ in range(258):
        notices.put_once(REPLY)
    assert len(said(notices)) == 256
    assert counters.total("messages_dropped", what="reply", reason="full") == 2
