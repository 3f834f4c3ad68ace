from __future__ import annotations

import pytest

from edge.messaging.command import Command
from edge.messaging.command_queue import Inbox
from edge.messaging.connection import Received

CAMERAS = {"door": object()}


@pytest.fixture
def inbox(counters):
    return Inbox("fs/shop/till", "homeassistant", counters)


def message(topic, payload=b"{}", *, retained=False):
    return Received(topic, payload, retained, 0)


def test_it_asks_for_commands_and_switches_and_never_for_what_the_device_says(inbox):
    assert inbox.topics(commands=True) == (
        "fs/shop/till/cmd/+",
        "fs/shop/till/cmd/camera/+",
        "fs/shop/till/+/enabled/set",
        "homeassistant/status",
    )
    assert inbox.topics(commands=False) == ("homeassistant/status",)


def test_commands_and_switches_are_told_apart(inbox):
    inbox.hear(message("fs/shop/till/cmd/health", b'{"id": "7"}'))
    inbox.hear(message("fs/shop/till/cmd/camera/enable", b'{"camera": "door"}'))
    inbox.hear(message("fs/shop/till/door/enabled/set", b"OFF"))
    first, second, third = inbox.letters()
    assert (first.command(CAMERAS), first.command_id) == (Command("health"), "7")
    assert second.command(CAMERAS) == Command("camera/enable", "door")
    assert third.command(CAMERAS) == Command("camera/disable", "door")
    assert inbox.letters() == []


def test_a_retained_command_is_ignored_and_counted(inbox, counters):
    inbox.hear(message("fs/shop/till/cmd/reload", retained=True))
    inbox.hear(message("fs/shop/till/door/enabled/set", b"OFF", retained=True))
    assert inbox.letters() == []
    assert counters.total("commands_ignored", reason="retained") == 2


def test_our_own_replies_are_not_commands(inbox, counters):
    inbox.hear(message("fs/shop/till/cmd/reply"))
    assert inbox.letters() == []
    assert counters.items() == []


def test_a_flood_is_bounded_and_counted(inbox, counters):
    for _ in range(100):
        inbox.hear(message("fs/shop/till/cmd/health"))
    assert len(inbox.letters()) == 32
    assert counters.total("commands_ignored", reason="too_many") == 68


def test_home_assistant_is_heard_when_it_comes_not_when_it_goes(inbox):
    inbox.hear(message("homeassistant/status", b"offline"))
    inbox.hear(message("homeassistant/status", b"online", retained=True))
    assert [letter.kind for letter in inbox.letters()] == ["home_assistant"]
