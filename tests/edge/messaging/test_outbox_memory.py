"""Messages that wait for the disk, and which are dropped at the bound."""

import pytest

from edge.messaging.outbox_file import OutboxMessage
from edge.messaging.outbox_memory import OutboxMemory


def a_message(sequence, priority=1):
    return OutboxMessage(sequence, f"e{sequence}", "t/events", b"x" * 100, priority, 0.0)


SIZE = a_message(1).size


def sequences(messages):
    return [message.sequence for message in messages]


@pytest.fixture
def memory():
    """Has room for four messages."""
    return OutboxMemory(4 * SIZE)


def fill(memory, *priorities, first=1):
    """Put one message per priority; return the sequences of the dropped ones."""
    return [m.sequence for n, p in enumerate(priorities, first) for m in memory.put(a_message(n, p))]


def test_oldest_of_the_lowest_priority_is_dropped_first(memory):
    assert fill(memory, 2, 0, 1, 0, 2, 1, 1, 2) == [2, 4, 3, 6]
    assert sequences(memory.start_writing()) == [1, 5, 7, 8]


def test_new_message_of_the_lowest_priority_is_dropped_itself(memory):
    assert fill(memory, 1, 1, 1, 1, 0) == [5]


def test_message_being_written_is_never_dropped(memory):
    fill(memory, 0, 0, 1)
    assert sequences(memory.start_writing()) == [1, 2, 3]
    assert fill(memory, 1, 1, 1, 1, 1, first=4) == [4]
    assert (len(memory), memory.size) == (7, 7 * SIZE)
    memory.finish_writing()
    assert sequences(memory) == [5, 6, 7, 8]


def test_messages_of_a_failed_write_go_before_newer_ones(memory):
    fill(memory, 1, 0, 1)
    memory.start_writing()
    fill(memory, 0, 1, first=4)
    assert sequences(memory.fail_writing()) == [2]
    assert sequences(memory.start_writing()) == [1, 3, 4, 5]


def test_discarded_message_takes_no_room_and_does_not_return(memory):
    fill(memory, 1, 1)
    memory.start_writing()
    fill(memory, 1, first=3)
    for event_id in ("e1", "e3", "never seen"):
        memory.discard(event_id)
    assert memory.find("e1") is None
    assert memory.find("e2") == a_message(2)
    memory.fail_writing()
    assert (sequences(memory), memory.size) == ([2], SIZE)
