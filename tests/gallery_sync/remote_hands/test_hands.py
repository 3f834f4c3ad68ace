"""Commands from afar: allowed, answered once, audited, and never carried out twice."""

from __future__ import annotations

import json
import sqlite3

import pytest

from edge.errors import BundleError
from gallery_sync.remote_hands import ledger
from gallery_sync.remote_hands.commands import Command, Outcome
from gallery_sync.remote_hands.hands import MOST_WAITING, LeftOver
from gallery_sync.remote_hands.judge import Now
from gallery_sync.remote_hands.ledger import MOST_AUDITED, MOST_KNOWN, NAME, Audited, open_ledger, read_audit
from gallery_sync.remote_hands.permission import Commands
from tests.file_damage import DAMAGES
from tests.gallery_sync.remote_hands.samples import NOW, Device, request
from tests.waiting import until


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path)


def test_command_is_carried_out_and_answered(device):
    answer = device.send()
    assert (answer["device"], answer["id"], answer["verb"], answer["by"]) == ("cam-1", "c-1", "sync", "ada")
    assert (answer["state"], answer["text"], answer["result"]) == ("done", "as you wish", {"n": 1})
    assert device.audit() == [("ada", "sync", "accepted"), ("ada", "sync", "done")]
    assert device.counters.total("commands", result="done") == 1


def test_without_permission_every_command_is_refused(tmp_path):
    device = Device(tmp_path, allow=Commands())
    answer = device.send()
    assert (answer["state"], device.calls) == ("refused", [])
    assert "add it to commands.allow in its agent.yaml" in answer["text"]
    assert device.audit() == [("ada", "sync", "refused")]


@pytest.mark.parametrize(
    ("verb", "payload", "told"),
    [
        ("reboot", None, "the verb 'reboot' is unknown; use one of sync"),
        ("restart_camera", None, "on its own topic"),
        ("sync", b"", "not JSON"),
        ("sync", b"{", "not JSON"),
        ("sync", b"[1]", "this is no command"),
        ("sync", b"x" * ((16 << 10) + 1), "larger than 16384 bytes"),
        ("sync", json.dumps({"id": "c 1", "by": "ada", "at": NOW}).encode(), "id: "),
        ("sync", json.dumps({"id": "c-1", "at": NOW}).encode(), "by: "),
        ("sync", json.dumps({"id": "c-1", "by": "ada", "at": NOW, "arguments": [1]}).encode(), "arguments"),
        ("sync", request(at=NOW - 601), "of another time"),
        ("sync", request(at=NOW + 601), "of another time"),
    ],
)
def test_refused_command_gets_one_answer_with_the_reason(device, verb, payload, told):
    answer = device.send(verb, payload)
    assert (answer["state"], device.calls, len(device.post.answered)) == ("refused", [], 1)
    assert told in answer["text"]
    assert [result for _, _, result in device.audit()] == ["refused"]


def test_old_command_is_taken_where_the_clock_is_wrong(device):
    device.clock = Now(0.0, NOW)
    assert device.send(payload=request(at=NOW))["state"] == "done"


def test_same_id_is_carried_out_once_and_answered_alike(device):
    first = device.send()
    device.start()
    again = device.send()
    assert first == again
    assert device.calls == ["c-1"]
    assert device.counters.total("commands", result="repeated") == 1


def test_same_id_with_another_verb_is_not_carried_out(device):
    device.send()
    assert device.send("rollback")["verb"] == "sync"
    assert device.calls == ["c-1"]


def test_refused_id_stays_refused(device):
    device.send(payload=request(at=NOW - 5000))
    assert device.send(payload=request(at=NOW))["state"] == "refused"


def test_long_command_is_accepted_and_then_done(device):
    device.may_end.clear()
    assert device.send("prove")["state"] == "accepted"
    assert until(lambda: device.calls, "it begins") == ["c-1 begins"]
    assert device.hands.proves
    assert device.send("prove")["state"] == "accepted"  # the same id
    device.may_end.set()
    device.finish(3)
    assert device.post.states() == ["accepted", "accepted", "done"]
    assert device.post.nudges == 1
    assert not device.hands.proves


def test_command_that_cannot_succeed_is_refused_at_once(device):
    device.commands = {
        "activate": Command("activate", device.long, is_long=True, why_not=lambda _: "nothing is staged")
    }
    device.start()
    device.send("activate")
    assert [(one["state"], one["text"]) for one in device.post.answered] == [("refused", "nothing is staged")]


def test_one_long_command_at_a_time_and_few_wait(device):
    device.may_end.clear()
    for number in range(MOST_WAITING + 2):
        device.send("prove", request(f"c-{number}"))
    assert device.post.states() == ["accepted"] * (MOST_WAITING + 1) + ["refused"]
    assert "too many commands wait" in device.post.answered[-1]["text"]
    assert len(device.calls) <= 1
    device.may_end.set()
    device.finish(2 * MOST_WAITING + 3)
    assert device.calls == [f"c-{number} begins" for number in range(MOST_WAITING + 1)]


def test_proof_waits_until_the_agent_proves_nothing(device):
    device.send("prove", proving=True)
    device.hands.turn(proving=True)
    assert device.calls == []
    device.finish(2)
    assert device.calls == ["c-1 begins"]


def test_pointers_are_changed_between_two_steps_alone(device):
    device.send("activate")
    device.finish(2)
    assert device.calls == ["switched in the loop"]


def test_command_that_begins_in_the_loop_is_watched_beside_it(device):
    device.send("config")
    device.finish(2)
    assert device.calls == ["watched in a thread"]
    assert device.post.states() == ["accepted", "done"]


@pytest.mark.parametrize("verb", ["sync", "prove", "activate"])
def test_kill_in_a_command_is_answered_and_not_carried_out_twice(device, verb):
    def killed(*_):
        raise SystemExit

    device.commands = {verb: Command(verb, killed, is_long=verb != "sync")}
    device.start()
    if verb == "sync":
        with pytest.raises(SystemExit):
            device.send(verb)
    else:
        device.ledger.begin(Audited(NOW, "ada", verb, "c-1", "accepted", ""))  # and the process ends
    device.commands = {verb: Command(verb, device.carried_out)}
    device.start()
    answer = device.post.answered[-1]
    assert (answer["state"], answer["id"]) == ("failed", "c-1")
    assert answer["text"].startswith("interrupted: the agent ended")
    assert device.send(verb)["text"] == answer["text"]
    assert device.calls == []


def test_command_that_was_left_over_goes_on(device):
    device.ledger.begin(Audited(NOW, "ada", "config", "c-1", "accepted", ""))
    device.start(LeftOver("c-1", lambda: Outcome("done", "it stays")))
    device.finish(1)
    answer = device.post.answered[-1]
    assert (answer["state"], answer["by"], answer["text"]) == ("done", "ada", "it stays")


def test_answer_that_the_broker_does_not_have_is_sent_after_a_restart(device):
    first = device.send()
    device.start()
    assert device.post.answered == [first]
    device.post.delivered = ["c-1"]
    device.hands.turn()
    device.start()
    assert device.post.answered == []


def test_error_is_the_answer(device):
    def fails(*_):
        raise BundleError("there is no previous bundle")

    def breaks(*_):
        raise ZeroDivisionError("no")

    device.commands = {"rollback": Command("rollback", fails), "prove": Command("prove", breaks, is_long=True)}
    device.start()
    assert device.send("rollback")["text"] == "there is no previous bundle"
    device.send("prove", request("c-2"))
    device.finish(3)
    assert device.post.answered[-1]["text"].startswith("ZeroDivisionError: no; see the log")


def test_command_that_cannot_be_written_down_is_not_carried_out(device):
    blocker = sqlite3.connect(device.folder / NAME, isolation_level=None)
    device.ledger._connection.execute("PRAGMA busy_timeout = 1")
    blocker.execute("BEGIN EXCLUSIVE")
    answer = device.send()
    assert (answer["state"], device.calls) == ("failed", [])
    assert answer["text"].startswith("not carried out: ")
    blocker.execute("ROLLBACK")
    blocker.close()
    assert device.send()["state"] == "done"
    assert device.counters.total("commands", result="not_written") == 1


def test_large_result_is_left_out(device):
    device.commands = {"sync": Command("sync", lambda *_: Outcome("done", "", {"x": "y" * 40_000}))}
    device.start()
    assert device.send()["result"] == {"left_out": "it is too large"}


def test_secrets_do_not_leave_in_an_answer(device):
    outcome = Outcome("failed", "https://u:hunter22@x.example.com", {"url": "https://u:hunter22@x.example.com"})
    device.commands = {"sync": Command("sync", lambda *_: outcome)}
    device.start()
    assert "hunter22" not in json.dumps(device.send())
    assert "hunter22" not in json.dumps([one.text for one in device.ledger.audit()])


def test_memory_is_bounded_and_keeps_the_newest(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger._connection.execute("PRAGMA synchronous = OFF")
    ledger.begin(Audited(0.0, "ada", "prove", "under-way", "accepted", ""))
    for number in range(MOST_AUDITED + 5):
        ledger.begin(Audited(float(number), "ada", "sync", f"c-{number}", "refused", "no"), b"{}")
    assert ledger.known("under-way") is not None
    assert ledger.known(f"c-{MOST_AUDITED + 4}") is not None
    assert ledger.known(f"c-{MOST_AUDITED + 4 - MOST_KNOWN}") is None
    assert len(ledger.audit(10**6)) == MOST_AUDITED
    assert [one.id for one in read_audit(tmp_path, 1)] == [f"c-{MOST_AUDITED + 4}"]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_memory_is_replaced(device, damage):
    device.send()
    device.ledger.close()
    damage(device.folder / NAME)
    device.start()
    assert device.send(payload=request("c-2"))["state"] == "done"


def test_audit_of_a_device_without_commands_is_empty(tmp_path):
    assert read_audit(tmp_path) == []


def kept(at: float, until: float, command_id: str = "c-1") -> bytes:
    return json.dumps({"id": command_id, "by": "ada", "at": at, "until": until}).encode()


def test_command_that_was_kept_for_the_device_is_carried_out_once(device):
    for _ in range(2):
        assert device.send(payload=kept(NOW - 80_000, NOW + 100))["state"] == "done"
        device.start()
    assert device.calls == ["c-1"]


@pytest.mark.parametrize(("at", "until"), [(NOW - 80_000, NOW - 1), (NOW + 700, NOW + 80_000)])
def test_kept_command_beyond_its_time_is_refused(device, at, until):
    assert "of another time" in device.send(payload=kept(at, until))["text"]
    assert device.calls == []


def test_kept_command_is_refused_where_its_id_may_be_forgotten(tmp_path):
    """The memory of commands was damaged, or began later than the command: it could have been carried out before."""
    device = Device(tmp_path)
    (tmp_path / NAME).write_bytes(b"damaged")
    device.ledger = open_ledger(tmp_path, NOW)
    device.hands._ledger = device.ledger
    answer = device.send(payload=kept(NOW - 80_000, NOW + 100))
    assert (answer["state"], device.calls) == ("refused", [])
    assert "does not remember whether it has carried this command out" in answer["text"]
    assert device.send(payload=request("fresh"))["state"] == "done"


def test_kept_command_is_refused_where_the_audit_lost_it_too(device, monkeypatch):
    """Messages without an id fill the audit alone."""
    for name in ("MOST_KNOWN", "MOST_AUDITED"):
        monkeypatch.setattr(ledger, name, 2)
    device.clock = Now(NOW - 50_000, NOW - 90_000)
    for number in range(4):
        device.send(payload=request(f"n-{number}", at=NOW - 50_000))
    device.clock = Now(NOW, NOW - 90_000)
    assert device.send(payload=kept(NOW - 50_001, NOW + 100, "n-0"))["state"] == "refused"
    assert device.calls.count("n-0") == 1


def test_kept_command_is_refused_after_newer_ones_were_forgotten(device):
    device.clock = Now(NOW - 50_000, NOW - 90_000)
    for number in range(MOST_KNOWN + 2):
        device.send(payload=request(f"n-{number}", at=NOW - 50_000))
    device.clock = Now(NOW, NOW - 90_000)
    assert device.send(payload=kept(NOW - 50_001, NOW + 100, "n-0"))["state"] == "refused"
    assert device.calls.count("n-0") == 1
    assert device.send(payload=kept(NOW - 40_000, NOW + 100, "later"))["state"] == "done"
