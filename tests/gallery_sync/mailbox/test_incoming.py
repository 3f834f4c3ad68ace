"""F1: what arrives wakes the agent or changes nothing."""

from __future__ import annotations

import threading

import pytest

from gallery_sync.mailbox.numbers import Numbers
from gallery_sync.mailbox.settings import Fleet
from tests.gallery_sync.mailbox.broker_samples import TOPICS, Clock, doorbell, incoming, message, turn


def command(payload=b"{}", verb="sync", *, retained=False):
    return message(TOPICS.commands.replace("+", verb), payload, retained=retained)


def test_doorbell_rings_once(tmp_path):
    box, counters = incoming(tmp_path)
    assert not box.rang()
    box.receive(doorbell(7))
    assert box.rang()
    assert not box.rang()
    assert counters.total("doorbells") == 1


def test_f1_duplicates_and_older_doorbells_change_nothing(tmp_path):
    box, counters = incoming(tmp_path)
    box.receive(doorbell(7))
    assert box.rang()
    for revision in (7, 6, 1, 7):
        box.receive(doorbell(revision))
    assert not box.rang()
    assert counters.total("messages_ignored", reason="old") == 4
    box.receive(doorbell(8))
    assert box.rang()


def test_f1_week_old_doorbell_is_known_after_a_restart(tmp_path):
    box, _ = incoming(tmp_path)
    box.receive(doorbell(7))
    assert box.rang()
    later, counters = incoming(tmp_path)
    later.receive(doorbell(7))
    assert not later.rang()
    assert counters.total("messages_ignored", reason="old") == 1


def test_doorbell_that_nobody_took_rings_after_a_restart(tmp_path):
    box, _ = incoming(tmp_path)
    box.receive(doorbell(7))
    later, _ = incoming(tmp_path)
    later.receive(doorbell(7))
    assert later.rang()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "junk"),
        (b"{", "junk"),
        (b"[]", "junk"),
        (b"\xff\xfe", "junk"),
        (b'{"line": "shop", "revision": 1}', "other_line"),
        (b"x" * 5000, "too_large"),
        (b"[" * 4000, "junk"),
    ],
)
def test_f1_doorbell_that_is_none_is_ignored(tmp_path, payload, reason):
    box, counters = incoming(tmp_path)
    changed = payload.replace(b"shop", b"other")
    box.receive(message(TOPICS.doorbell, changed))
    assert not box.rang()
    assert counters.total("messages_ignored", reason=reason) == 1


@pytest.mark.parametrize("revision", [0, -1, 2**60, "7", 1.5, True, None])
def test_f1_absurd_revision_is_ignored(tmp_path, revision):
    box, counters = incoming(tmp_path)
    box.receive(doorbell(revision))
    assert not box.rang()
    assert counters.total("messages_ignored", reason="junk") == 1


def test_message_on_another_topic_is_ignored(tmp_path):
    box, counters = incoming(tmp_path)
    box.receive(message("fleet/v1/line/other/desired", {"line": "shop", "revision": 9}))
    box.receive(command(verb="a/b"))
    assert not box.rang()
    assert counters.total("messages_ignored", reason="topic") == 2


def test_devices_do_not_ask_at_once_and_not_too_often(tmp_path):
    clock = Clock()
    box, _ = incoming(tmp_path, Fleet(spread_s=10, doorbell_every_s=60), clock)
    box.receive(doorbell(1))
    assert not box.rang()
    clock.s += 10
    assert box.rang()
    for revision in range(2, 50):
        box.receive(doorbell(revision))
    clock.s += 59
    assert not box.rang()
    clock.s += 1
    assert box.rang()
    assert Numbers(tmp_path, "cam-1 shop").rang == 49


def test_turn_is_for_this_device_and_release(tmp_path):
    box, counters = incoming(tmp_path)
    box.receive(turn(4, device="cam-2"))
    assert not box.has_turn(4, "plan-1")
    box.receive(turn(4))
    assert box.has_turn(4, "plan-1")
    assert not box.has_turn(4, "plan-2")
    assert not box.has_turn(5, "plan-1")
    assert counters.total("messages_ignored", reason="other_device") == 1


@pytest.mark.parametrize("end", [lambda box: box.receive(message(TOPICS.turn, b"")), lambda box: box.forget_turn()])
def test_turn_ends_when_it_is_cleared_or_the_connection_begins(tmp_path, end):
    box, _ = incoming(tmp_path)
    box.receive(turn(4))
    end(box)
    assert not box.has_turn(4, "plan-1")


def test_retained_command_is_ignored(tmp_path):
    box, counters = incoming(tmp_path)
    box.receive(command(retained=True))
    assert box.take_commands() == []
    assert counters.total("messages_ignored", reason="retained") == 1


def test_large_command_is_cut_and_still_too_large(tmp_path):
    box, _ = incoming(tmp_path)
    box.receive(command(b"x" * 100_000))
    assert [len(one.payload) for one in box.take_commands()] == [(16 << 10) + 1]


def test_flood_of_commands_is_dropped(tmp_path):
    clock = Clock()
    box, counters = incoming(tmp_path, clock=clock)
    for _ in range(100):
        box.receive(command())
    assert len(box.take_commands()) == 32
    clock.s += 2
    for _ in range(10):
        box.receive(command())
    assert len(box.take_commands()) == 2
    assert counters.total("messages_ignored", reason="too_many") == 76


@pytest.mark.parametrize("arrives", [lambda: doorbell(3), lambda: turn(4), command])
def test_wait_ends_when_something_arrives(tmp_path, arrives):
    box, _ = incoming(tmp_path, clock=None)
    waits = threading.Thread(target=box.wait, args=(60.0,), daemon=True)
    waits.start()
    box.receive(arrives())
    waits.join(60)
    assert not waits.is_alive()


def test_command_to_look_now_rings(tmp_path):
    box, _ = incoming(tmp_path, Fleet(doorbell_every_s=86400))
    box.ring()
    assert box.rang()
    box.ring()
    assert box.rang()
