from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import CommandError
from edge.messaging.command import Command
from edge.messaging.command_queue import CommandQueue
from edge.messaging.settings import ReceivedMessage
from edge.telemetry.counters import Counters

CAMERAS = {"door": object()}


@pytest.fixture
def command_queue(counters):
    return CommandQueue("fs/shop/till", "homeassistant", counters)


def message(topic, payload=b"{}", *, retained=False):
    return ReceivedMessage(topic, payload, retained, 0)


def test_topics_are_commands_and_switches_only(command_queue):
    assert command_queue.topics(commands=True) == (
        "fs/shop/till/cmd/+",
        "fs/shop/till/cmd/camera/+",
        "fs/shop/till/+/enabled/set",
        "homeassistant/status",
    )
    assert command_queue.topics(commands=False) == ("homeassistant/status",)


def test_commands_and_switches_are_distinguished(command_queue):
    command_queue.on_message(message("fs/shop/till/cmd/health", b'{"id": "7"}'))
    command_queue.on_message(message("fs/shop/till/cmd/camera/enable", b'{"camera": "door"}'))
    command_queue.on_message(message("fs/shop/till/door/enabled/set", b"OFF"))
    first, second, third = command_queue.take_commands()
    assert (first.command(CAMERAS), first.command_id) == (Command("health"), "7")
    assert second.command(CAMERAS) == Command("camera/enable", "door")
    assert third.command(CAMERAS) == Command("camera/disable", "door")
    assert command_queue.take_commands() == []


def test_retained_command_is_ignored_and_counted(command_queue, counters):
    command_queue.on_message(message("fs/shop/till/cmd/reload", retained=True))
    command_queue.on_message(message("fs/shop/till/door/enabled/set", b"OFF", retained=True))
    assert command_queue.take_commands() == []
    assert counters.total("commands_ignored", reason="retained") == 2


def test_own_replies_are_not_commands(command_queue, counters):
    command_queue.on_message(message("fs/shop/till/cmd/reply"))
    assert command_queue.take_commands() == []
    assert counters.items() == []


def test_flood_of_commands_is_bounded_and_counted(command_queue, counters):
    for _ in range(100):
        command_queue.on_message(message("fs/shop/till/cmd/health"))
    assert len(command_queue.take_commands()) == 32
    assert counters.total("commands_ignored", reason="too_many") == 68


def test_only_the_online_message_of_home_assistant_is_taken(command_queue):
    command_queue.on_message(message("homeassistant/status", b"offline"))
    command_queue.on_message(message("homeassistant/status", b"online", retained=True))
    assert [received.kind for received in command_queue.take_commands()] == ["home_assistant"]


def test_flood_of_home_assistant_starts_is_one_answer(command_queue):
    for _ in range(100):
        command_queue.on_message(message("homeassistant/status", b"online"))
    command_queue.on_message(message("fs/shop/till/cmd/health"))
    assert [received.kind for received in command_queue.take_commands()] == ["home_assistant", "command"]
    assert command_queue.take_commands() == []


@pytest.mark.parametrize("topic", ["", "other/shop/till/cmd/health", "fs/shop/till/door/status", "cmd/reload"])
def test_message_that_was_not_subscribed_to_is_ignored(command_queue, counters, topic):
    command_queue.on_message(message(topic, b"ON"))
    assert command_queue.take_commands() == []
    assert counters.total("commands_ignored", reason="topic") == 1


LEVELS = st.sampled_from(["cmd", "camera", "health", "reply", "door", "enabled", "set"]) | st.text(max_size=10)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    st.lists(LEVELS, max_size=4).map("/".join) | st.sampled_from(["door/enabled/set", "cmd/health"]),
    st.booleans(),
    st.binary(max_size=50) | st.sampled_from([b"ON", b"{}"]),
    st.booleans(),
)
def test_any_message_is_a_command_our_error_or_ignored(topic, own, payload, retained):
    command_queue = CommandQueue("fs/shop/till", "homeassistant", Counters())
    command_queue.on_message(message(f"fs/shop/till/{topic}" if own else topic, payload, retained=retained))
    for received in command_queue.take_commands():
        with contextlib.suppress(CommandError):
            assert isinstance(received.command(CAMERAS), Command)
