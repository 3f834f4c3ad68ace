"""Any message gives a value or a reason: nothing that arrives raises."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.messaging.settings import ReceivedMessage
from gallery_sync.formats.reports import Request
from gallery_sync.mailbox.messages import CommandMessage, Ignored, Ring, Topics, TurnChange, read_message
from gallery_sync.remote_hands.judge import Now, Refused, read_request, why_not
from gallery_sync.remote_hands.permission import VERBS, Commands
from tests.gallery_sync.remote_hands.samples import Device

ANY_INPUT = settings(derandomize=True, max_examples=100, deadline=None)
TOPICS = Topics("cam-1", "shop")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def documents(*names):
    fields = st.fixed_dictionaries({}, optional=dict.fromkeys(names, VALUES))
    return (fields | VALUES).map(lambda one: json.dumps(one).encode()) | st.binary(max_size=60)


PLACES = [TOPICS.doorbell, TOPICS.turn, TOPICS.commands.replace("+", "sync"), TOPICS.commands.replace("+", ""), "x"]


@ANY_INPUT
@given(st.sampled_from(PLACES), documents("line", "revision", "device", "release", "plan", "schema"), st.booleans())
def test_any_message_is_read_or_ignored(topic, payload, retained):
    found = read_message(ReceivedMessage(topic, payload, retained, 0), TOPICS)
    assert isinstance(found, Ring | TurnChange | CommandMessage | Ignored)


@ANY_INPUT
@given(documents("id", "by", "at", "arguments"), st.sampled_from([*VERBS, "x", "\x1b[2J"]), st.floats())
def test_any_command_is_read_or_refused_in_one_line(payload, verb, now):
    found = read_request(payload)
    assert isinstance(found, Request | Refused)
    if isinstance(found, Request):
        why = why_not(verb, found, Commands(allow=VERBS), Now(now, 0.0))
        assert why is None or why.isprintable()
    else:
        assert found.why.isprintable()


@settings(derandomize=True, max_examples=30, deadline=None)
@given(documents("id", "by", "at"), st.text(max_size=20))
def test_any_command_gets_an_answer(tmp_path_factory, payload, verb):
    device = Device(tmp_path_factory.mktemp("device"))
    device.ledger._connection.execute("PRAGMA synchronous = OFF")
    assert device.send(verb, payload)["state"] in {"refused", "done", "accepted"}
