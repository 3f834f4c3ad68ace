"""What the publisher does with a broker that does not take everything, or goes away; the broker is a fake."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.messaging.payload import event_payload
from tests.edge.messaging.fake_broker import Behaviour, FakeBroker, FakeOutbox
from tests.edge.messaging.test_payload import EVENT

LIMIT = 500
ANY_INPUT = settings(derandomize=True, max_examples=25, deadline=None)
LONG, SHORT = b"x" * 900, b"y" * 20
HOUR_S = 3600.0


@pytest.fixture
def box():
    return FakeOutbox()


@pytest.fixture
def broker(box):
    return FakeBroker(box)


def long_event():
    """Return an event with much that can be left out."""
    decision = replace(EVENT.decision, top=EVENT.decision.top * 5)
    stages = {f"stage number {number}": 1.0 for number in range(16)}
    return event_payload(replace(EVENT, decision=decision, latency_ms=stages), "shop", "till", "boot", 1)


def put(box, *names, topic="t/events", filling=b""):
    for name in names:
        box.put(topic, name.encode() + filling, 1, name)


def until_quiet(broker, behaviour, most=60):
    """Connect again and again until a connection stays, as the publisher does."""
    for number in range(most):
        if broker.run(behaviour, steps=8) is None:
            return number
    pytest.fail("no connection stays")


def test_message_longer_than_stated_is_set_aside_and_the_rest_goes(box, broker, caplog):
    put(box, "before")
    put(box, "long", filling=LONG)
    put(box, "after")
    assert broker.run(Behaviour(stated_bytes=LIMIT)) is None
    assert broker.ids() == [b"before", b"after"]
    assert list(box.aside) == ["long"]
    assert box.aside["long"].reason == "904 bytes, and the broker takes 484"
    assert not box.waiting
    assert broker.counters.total("events_set_aside", reason="too_long") == 1
    assert sum("long" in record.message for record in caplog.records) == 1


def test_event_is_shortened_to_what_the_broker_states(box, broker):
    payload = long_event()
    box.put("t/events", payload, 1, "a")
    broker.run(Behaviour(stated_bytes=len(payload) - 100))
    event = json.loads(broker.ids()[0])
    assert event["shortened"] is True
    assert event["match"]["item"] == EVENT.decision.match.item_id
    assert event["historical"] is True
    assert not box.aside
    assert broker.counters.total("messages_shortened") == 1


def test_state_longer_than_stated_is_dropped_said_and_sent_when_shorter(box, broker):
    broker.publisher.publish_latest("t/door/snapshot", LONG)
    put(box, "a")
    broker.run(Behaviour(stated_bytes=LIMIT))
    assert broker.ids() == [b"a"]
    assert broker.publisher.problems() == (
        "the message on t/door/snapshot is not sent: 900 bytes, and the broker takes 477",
    )
    broker.publisher.publish_latest("t/door/snapshot", SHORT)
    broker.run(Behaviour(stated_bytes=LIMIT))
    assert ("t/door/snapshot", SHORT) in broker.taken
    assert broker.publisher.problems() == ()


def test_broker_that_hangs_up_on_a_long_message_gets_everything_else(box, broker):
    put(box, *"abc")
    put(box, "long", filling=LONG)
    put(box, *"def")
    hang_ups = until_quiet(broker, Behaviour(enforced_bytes=LIMIT))
    assert hang_ups == 5  # two in company, three alone
    assert broker.ids() == [name.encode() for name in "abcdef"]
    assert list(box.aside) == ["long"]
    assert broker.counters.total("events_set_aside", reason="hangs_up") == 1


def test_event_on_which_the_broker_hangs_up_is_shortened_at_last(box, broker):
    payload = long_event()
    put(box, "short", filling=b"z" * (len(payload) - 150))
    box.put("t/events", payload, 1, "a")
    box.put("t/events", payload, 1, "b")
    until_quiet(broker, Behaviour(enforced_bytes=len(payload) - 100))
    assert not box.aside
    assert not box.waiting
    assert json.loads(broker.ids()[1])["shortened"] is True
    assert broker.doubled()[broker.ids()[1]] == 2  # both events
    assert broker.connections == 5  # no further hang-up for the second


def test_long_state_does_not_stop_the_events_and_is_tried_again_later(box, broker):
    broker.publisher.publish_latest("ha/config", LONG)
    put(box, *"abc")
    until_quiet(broker, Behaviour(enforced_bytes=LIMIT))
    assert broker.ids() == [b"a", b"b", b"c"]
    assert broker.publisher.problems() == ("nothing is sent on ha/config: the broker hangs up on it",)
    broker.now_s += 2 * HOUR_S
    until_quiet(broker, Behaviour())
    assert ("ha/config", LONG) in broker.taken
    assert broker.publisher.problems() == ()


@pytest.mark.parametrize("lasts_s", [0.01, 0.06, 0.11, 0.3, 4.9])
def test_broker_that_goes_away_by_itself_costs_no_event(box, broker, lasts_s):
    names = [f"e{number}" for number in range(40)]
    put(box, *names)
    for _ in range(60):
        broker.run(Behaviour(lasts_s=lasts_s))
    broker.run()
    assert broker.ids() == [name.encode() for name in names]
    assert not box.aside


def test_broker_that_never_answers_accuses_nobody(box, broker):
    put(box, *"abc")
    for _ in range(12):
        error = broker.run(Behaviour(silent=True))
        assert "in flight, and no answer in 3" in str(error)
    broker.run()
    assert not box.aside
    assert set(broker.ids()) == {b"a", b"b", b"c"}


@pytest.mark.parametrize("code", [0x8B, 0x89, 0x98, 0x9C])
def test_explained_end_accuses_nobody(box, broker, code):
    """0x8B: server shutting down, 0x89: busy, 0x98: administrative action, 0x9C: use another server."""
    put(box, *"abc")
    for _ in range(12):
        broker.run(Behaviour(ends_after=1, end_code=code))
    assert not box.aside
    broker.run()
    assert broker.ids() == [b"a", b"b", b"c"]
    assert broker.publisher._settings.host == "localhost"  # 0x9C may name another server: it is not followed


def test_greeting_on_which_the_broker_hangs_up_does_not_stop_events(box, broker):
    """As a broker of MQTT 3.1.1 does whose rules forbid the topic."""
    put(box, *"abc")
    until_quiet(broker, Behaviour(hangs_up_on=frozenset({"t/available"})))
    assert broker.ids() == [b"a", b"b", b"c"]
    assert broker.publisher.problems() == ("nothing is sent on t/available: the broker hangs up on it",)


def test_topic_on_which_the_broker_hangs_up_is_held_after_three_events(box, broker):
    forbidden, names = frozenset({"t/forbidden/events"}), [f"e{number}" for number in range(20)]
    put(box, *names, topic="t/forbidden/events")
    put(box, *"abc")
    until_quiet(broker, Behaviour(hangs_up_on=forbidden))
    put(box, *"def")
    assert broker.run(Behaviour(hangs_up_on=forbidden)) is None
    assert broker.ids() == [name.encode() for name in "abcdef"]
    assert list(box.aside) == names[:3]
    assert list(box.waiting) == names[3:]
    broker.now_s += 48 * HOUR_S
    until_quiet(broker, Behaviour())
    assert not box.waiting


def test_refused_topic_waits_and_is_released(box, broker, caplog):
    refusing = Behaviour(refuses={"t/forbidden/events": 0x87})
    put(box, *"abc", topic="t/forbidden/events")
    put(box, *"def")
    with caplog.at_level(logging.WARNING):
        broker.run(refusing, steps=600)  # ten minutes
    assert broker.ids() == [b"d", b"e", b"f"]
    assert list(box.waiting) == ["a", "b", "c"]
    assert broker.publisher.problems() == ("nothing is sent on t/forbidden/events: the broker refuses it: reason 0x87",)
    assert len(caplog.records) == 1
    tries = broker.counters.total("events_refused", reason="reason 0x87") - 3
    assert 2 <= tries <= 4  # after 1, 2 and 4 minutes
    broker.run()
    assert broker.ids()[3:] == [b"a", b"b", b"c"]
    assert broker.publisher.problems() == ()


def test_topic_is_released_on_the_same_connection(box, broker):
    behaviour = Behaviour(refuses={"t/events": 0x97})  # quota exceeded
    put(box, *"abc")
    assert broker.run(behaviour, steps=30) is None
    behaviour.refuses.clear()
    broker.run(behaviour, steps=600)
    assert broker.ids() == [b"a", b"b", b"c"]


@pytest.mark.parametrize("code", [0x90, 0x95, 0x99])
def test_refusal_of_the_message_itself_sets_it_aside(box, broker, code):
    put(box, "bad", topic="t/bad/events")
    put(box, "good")
    broker.run(Behaviour(refuses={"t/bad/events": code}))
    assert list(box.aside) == ["bad"]
    assert broker.ids() == [b"good"]
    assert broker.counters.total("events_set_aside", reason="refused") == 1


def test_refusal_that_says_nothing_ends_after_some_tries(box, broker):
    put(box, "bad", topic="t/bad/events")
    broker.run(Behaviour(refuses={"t/bad/events": 0x80}), steps=10_000)
    assert list(box.aside) == ["bad"]
    assert broker.counters.total("events_refused") == 5


def test_client_with_the_same_id_is_said_once_and_forgotten_in_time(box, broker, caplog):
    for number in range(4):
        put(box, f"e{number}")
        broker.run(Behaviour(ends_after=1, end_code=0x8E))
    assert "another client uses the client id 'till'" in broker.publisher.problems()[0]
    assert sum("client id" in record.message for record in caplog.records) == 1
    assert broker.counters.total("mqtt_clashes") == 4
    broker.run(steps=700)  # more than ten minutes
    assert broker.publisher.problems() == ()
    assert len(broker.ids()) == 4


def test_clash_without_a_reason_shows_by_its_pattern(broker):
    """MQTT 3.1.1: the connection ends soon, again and again, with nothing in flight."""
    for number in range(4):
        assert (broker.publisher.problems() == ()) == (number < 3)
        broker.run(Behaviour(idle_end=True))
    assert "another client seems to use the client id 'till'" in broker.publisher.problems()[0]
    broker.run(Behaviour(refuses_connection=True))  # the broker was down: that explains it
    assert broker.publisher.problems() == ()


TOPICS = ("t/door/events", "t/roof/events", "t/forbidden/events")
BEHAVIOURS = st.one_of(
    st.just(Behaviour()),
    st.just(Behaviour(refuses_connection=True)),
    st.just(Behaviour(silent=True)),
    st.just(Behaviour(hangs_up_on=frozenset({"t/available"}))),
    st.builds(Behaviour, lasts_s=st.floats(0.0, 3.0), end_code=st.sampled_from([None, 0x8B, 0x8E, 0x97])),
    st.builds(lambda code: Behaviour(refuses={TOPICS[2]: code}), st.sampled_from([0x87, 0x97])),
    st.builds(Behaviour, lasts_s=st.floats(0.0, 3.0), enforced_bytes=st.just(LIMIT)),
)
PUTS = st.tuples(st.sampled_from(TOPICS), st.sampled_from([SHORT, SHORT, LONG]), st.integers(1, 6))
ACTIONS = st.lists(st.one_of(BEHAVIOURS, PUTS), max_size=12)


LIMITS = (
    Behaviour(),
    Behaviour(stated_bytes=LIMIT),
    Behaviour(enforced_bytes=LIMIT),
    Behaviour(hangs_up_on=frozenset({"t/available"})),
)


def check_any_sequence(actions, limits):
    """Whatever the broker did: once it works, each event it can take arrives in order, and no other blocks it."""
    box = FakeOutbox()
    broker, put_events, long_ones = FakeBroker(box, window=4), {}, set()
    for action in actions:
        if isinstance(action, Behaviour):
            broker.run(action, steps=35)
            continue
        topic, filling, count = action
        for _ in range(count):
            name = f"e{len(put_events)}"
            put_events[name] = topic
            long_ones |= {name} if filling is LONG else set()
            put(box, name, topic=topic, filling=filling)
    for _ in range(40 + 6 * len(long_ones)):
        if broker.run(limits, steps=8) is None:
            broker.now_s += 24 * HOUR_S  # by then a held topic is tried
    found = [payload.rstrip(b"xy").decode() for payload in broker.ids()]
    assert set(box.waiting) <= long_ones, "stuck"  # those wait on a topic that never took anything
    # an event whose acknowledgement got lost may be both
    assert {*found, *box.aside, *box.waiting} == set(put_events), "lost"
    assert set(box.aside) <= long_ones, "an innocent event was set aside"
    return broker, found, put_events


@ANY_INPUT
@given(ACTIONS, st.sampled_from(LIMITS))
def test_no_event_is_lost_or_stuck_whatever_the_broker_did(actions, limits):
    check_any_sequence(actions, limits)


ENDS = st.builds(Behaviour, lasts_s=st.floats(0.0, 3.0), end_code=st.sampled_from([None, 0x8B]))


@ANY_INPUT
@given(st.lists(st.one_of(ENDS, st.tuples(st.sampled_from(TOPICS), st.just(SHORT), st.integers(1, 12))), max_size=25))
def test_events_of_a_topic_arrive_in_order_through_any_outages(actions):
    _, found, put_events = check_any_sequence(actions, Behaviour())
    for topic in TOPICS:
        of_topic = [name for name in found if put_events[name] == topic]
        assert of_topic == sorted(of_topic, key=lambda name: int(name[1:]))
