"""Suspects and held topics by themselves; test_delivery.py has them at work."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.messaging.refusals import HeldTopics, Suspects


def end(suspects, *keys, answered=True, code=None):
    suspects.connection_ended(keys, answered=answered, code=code)


def test_message_in_flight_at_two_ends_is_a_suspect():
    suspects = Suspects()
    end(suspects, "a", "b")
    assert not suspects
    end(suspects, "b", "c")
    assert "b" in suspects
    assert "a" not in suspects
    assert "c" not in suspects


def test_suspect_is_guilty_after_three_ends_alone():
    suspects = Suspects()
    end(suspects, "a")
    end(suspects, "a")
    verdicts = []
    for _ in range(3):
        verdicts.append((suspects.is_last_try("a"), suspects.is_guilty("a")))
        end(suspects, "a")
    assert verdicts == [(False, False), (False, False), (True, False)]
    assert suspects.is_guilty("a")


def test_connection_that_ends_without_the_suspect_clears_it():
    suspects = Suspects()
    for _ in range(4):
        end(suspects, "a")
    assert suspects.is_last_try("a")
    suspects.connection_ended(["b"], answered=True, lasted_s=4.9)
    assert "a" in suspects
    assert not suspects.is_last_try("a")


@pytest.mark.parametrize("how", [{"answered": False}, {"code": 0x8B}, {"code": 0x8E}])
def test_end_that_is_explained_accuses_nobody(how):
    suspects = Suspects()
    for _ in range(10):
        end(suspects, "a", **how)
    assert not suspects


def test_end_that_names_the_message_accuses_it():
    suspects = Suspects()
    end(suspects, "a", code=0x95)  # packet too large
    end(suspects, "a", code=0x95)
    assert "a" in suspects


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_message_acknowledged_in_between_is_never_guilty(history):
    suspects, in_a_row = Suspects(), dict.fromkeys("abc", 0)
    for key, acknowledged in history:
        if acknowledged:
            suspects.clear(key)
        else:
            end(suspects, key)
        in_a_row[key] = 0 if acknowledged else in_a_row[key] + 1
        assert not suspects.is_guilty(key) or in_a_row[key] >= 5


def test_what_is_noted_is_bounded():
    suspects = Suspects()
    for number in range(5000):
        end(suspects, str(number))
    assert len(suspects._noted) == 1000


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def held(now):
    return HeldTopics(lambda: now[0])


def test_held_topic_is_tried_ever_more_rarely(held, now):
    assert held.hold("t", "no")
    waits = []
    for _ in range(8):
        since = now[0]
        while held.blocks("t"):
            now[0] += 10.0
        waits.append(now[0] - since)
        held.start_try("t")
        assert held.blocks("t")  # one message at a time
        assert not held.hold("t", "no")
    assert waits == [60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0]
    assert held.release("t")
    assert not held.release("t")
    assert not held.blocks("t")


def test_refusals_of_messages_that_were_in_flight_do_not_prolong_it(held, now):
    for _ in range(64):
        held.hold("t", "no")
    now[0] = 60.0
    assert held.take_due() == {"t": False}
    assert held.take_due() == {}
    assert not held.blocks("t")


def test_new_connection_tries_refused_topics_but_not_those_it_hangs_up_on(held, now):
    held.hold("refused", "no")
    held.start_try("refused")
    held.hold("refused", "no")
    held.hold("hung up", "no", hangs_up=True)
    held.on_connect()
    assert held.blocks("refused")  # not more than once a minute
    now[0] = 60.0
    held.on_connect()
    assert (held.blocks("refused"), held.blocks("hung up")) == (False, True)


def test_try_without_an_answer_holds_the_topic_longer(held, now):
    held.hold("t", "no", hangs_up=True)
    now[0] = 3600.0
    held.start_try("t")
    held.on_disconnect()
    now[0] += 7199.0
    assert held.blocks("t")
    now[0] += 1.0
    assert held.take_due() == {"t": True}
