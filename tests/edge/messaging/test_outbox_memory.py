"""What waits for the outbox's disk, and what goes when it is too much."""

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
    """Room for four."""
    return OutboxMemory(4 * SIZE)


def fill(memory, *priorities, first=1):
    """Put one of each priority; the sequences of those that had to go."""
    return [m.sequence for n, p in enumerate(priorities, first) for m in memory.put(a_message(n, p))]


def test_the_lowest_priority_goes_first_and_the_oldest_of_it(memory):
    assert fill(memory, 2, 0, 1, 0, 2, 1, 1, 2) == [2, 4, 3, 6]
    assert sequences(memory.start_writing()) == [1, 5, 7, 8]


def test_one_that_is_worth_the_least_goes_itself(memory):
    assert fill(memory, 1, 1, 1, 1, 0) == [5]


def test_what_is_being_written_is_never_dropped(memory):
    fill(memory, 0, 0, 1)
    assert sequences(memory.start_writing()) == [1, 2, 3]
    assert fill(memory, 1, 1, 1, 1, 1, first=4) == [4]
    assert (len(memory), memory.size) == (7, 7 * SIZE)
    memory.finish_writing()
    assert sequences(memory) == [5, 6, 7, 8]


def test_what_the_disk_refused_waits_again_before_what_came_since(memory):
    fill(memory, 1, 0, 1)
    memory.start_writing()
    fill(memory, 0, 1, first=4)
    assert sequences(memory.fail_writing()) == [2]
    assert sequences(memory.start_writing()) == [1, 3, 4, 5]


def test_what_is_forgotten_takes_no_room_and_is_not_put_back(memory):
    fill(memory, 1, 1)
    memory.start_writing()
    fill(memory, 1, first=3)
    for event_id in ("e1", "e3", "never seen"):
        memory.discard(event_id)
    assert memory.find("e1") is None
    assert memory.find("e2") == a_message(2)
    memory.fail_writing()
    assert (sequences(memory), memory.size) == ([2], SIZE)
