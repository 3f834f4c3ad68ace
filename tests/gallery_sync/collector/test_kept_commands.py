"""Commands to devices that are off: kept, sent when the device connects, answered or expired, and never lost unsaid."""

from __future__ import annotations

import json
import sqlite3

import pytest

from edge.errors import CommandError, SyncError
from gallery_sync.collector import records
from gallery_sync.collector.commands import RESTART_CAMERA, Commands, NotSentError, Order
from gallery_sync.collector.database import Database
from gallery_sync.collector.messages import Arrived
from gallery_sync.collector.queries import find_command, find_kept_commands
from tests.gallery_sync.collector.collector_samples import NOW, Desk, answer, message, report
from tests.gallery_sync.remote_hands.samples import Device


class OneThread(Desk):
    """A server whose jobs run at once."""

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self.writer.call = self._call

    def _call(self, job, wait_s=0.0):
        with self.database.writing() as db:
            return job(db)

    def connect(self, device="cam-1", state=b"online"):
        """Have a device come or go, and send what is kept for it."""
        self.take(Arrived(device, "available", state, self.now, retained=True))
        self.commands.step(0.0)

    def order(self, verb="sync", **fields):
        return self.commands.send("cam-1", Order(verb=verb, by="ann", arguments={}, **fields))

    def state(self, command):
        with self.database.reading() as db:
            return find_command(db, command)["state"]

    def sent_ids(self):
        return [request["id"] for _, request in self.link.sent]


@pytest.fixture
def desk(tmp_path):
    with OneThread(tmp_path) as desk:
        desk.take(message(report()))
        desk.connect(state=b"offline")
        yield desk


def test_command_waits_and_is_sent_once_the_device_connects(desk):
    ordered = desk.order()
    assert (ordered.is_sent, ordered.until, desk.link.sent) == (False, NOW + 86_400, [])
    assert desk.state(ordered.id) == "waiting"
    desk.now += 3600
    desk.connect()
    topic, request = desk.link.sent[-1]
    assert topic == "fleet/v1/device/cam-1/cmd/sync"
    assert (request["id"], request["at"], request["until"]) == (ordered.id, NOW, NOW + 86_400)
    assert desk.state(ordered.id) == "sent"
    desk.take(message(answer("cam-1", ordered.id), "answer"))
    desk.connect()
    assert (desk.sent_ids(), desk.state(ordered.id)) == ([ordered.id], "done")
    assert desk.count("commands_delivered") == 1


def test_device_that_connects_while_its_command_is_stored_gets_it(desk):
    store, connected = desk.writer.call, []

    def connects_before(job, wait_s=0.0):
        if not connected:
            connected.append(True)
            desk.connect()
        return store(job, wait_s)

    desk.writer.call = connects_before
    ordered = desk.order()
    assert (ordered.is_sent, desk.sent_ids()) == (True, [ordered.id])


def test_kept_commands_keep_their_order(desk):
    ids = []
    for verb in ("rollback", "sync", "prove"):
        ids.append(desk.order(verb).id)
        desk.now += 1
    desk.connect()
    assert desk.sent_ids() == ids


def test_command_without_an_answer_is_sent_again_at_the_next_connection(desk):
    """The broker had it, but the device lost its connection at that moment, or the answer was lost."""
    desk.connect()
    command = desk.order().id
    desk.take(message(answer("cam-1", command, "accepted"), "answer"))
    for _ in range(25):
        desk.connect()
        desk.take(message(answer("cam-1", command, "accepted"), "answer"))
    assert desk.sent_ids() == [command] * 26
    desk.take(message(answer("cam-1", command, "failed"), "answer"))
    desk.connect()
    assert (len(desk.link.sent), desk.state(command)) == (26, "failed")


def test_connected_device_without_an_answer_gets_its_command_again(desk):
    """The broker, the device or this server may have dropped the command or its answer."""
    command, early = desk.order(), desk.now
    desk.connect()
    for moment, answered in ((599, False), (601, False), (1300, True)):
        desk.link.sent.clear()
        desk.now = early + moment
        if answered:
            desk.take(message(answer(command=command.id), "answer"))
        desk.commands.send_again()
        desk.commands.step(0.0)
        assert desk.sent_ids() == ([command.id] if moment == 601 else [])


def test_full_disk_holds_a_kept_command_up_no_longer_than_it_lasts(desk):
    """The device stays connected, so nothing but the server brings it up again."""
    kept = [desk.order().id for _ in range(3)]
    call, failing = desk.writer.call, [False, True]

    def fails(job, wait_s=0.0):
        if failing and failing.pop(0):
            raise SyncError("database or disk is full")
        return call(job, wait_s)

    desk.writer.call = fails
    desk.connect()
    assert (desk.sent_ids(), desk.count("command_failures")) == (kept[:1], 1)
    desk.commands.try_again()
    desk.commands.step(0.0)
    assert set(desk.sent_ids()) == set(kept)


def test_device_that_is_off_is_not_sent_its_command_again(desk):
    desk.order()
    desk.now += 3600
    desk.commands.send_again()
    desk.commands.step(0.0)
    assert desk.link.sent == []


def test_command_expires_and_is_not_sent_later(desk):
    command = desk.order(keep_s=60.0).id
    desk.now += 60
    desk.connect()
    desk.commands.expire()
    assert (desk.link.sent, desk.state(command)) == ([], "expired")
    assert desk.count("commands_expired") == 1
    with desk.database.reading() as db:
        assert find_kept_commands(db) == []


def test_broker_that_is_away_loses_no_command(desk):
    desk.connect()
    desk.link.problem = "not connected"
    ordered = desk.order()
    assert (ordered.is_sent, desk.state(ordered.id)) == (False, "waiting")
    desk.connect()  # still without a broker
    desk.link.problem = None
    desk.connect()
    assert (desk.sent_ids(), desk.state(ordered.id)) == ([ordered.id], "sent")
    desk.link.problem = "not connected"
    desk.connect()
    assert desk.state(ordered.id) == "sent"  # the broker had it once: nobody may say that it was not sent


def test_server_that_starts_again_sends_what_was_kept(desk, tmp_path):
    command = desk.order().id
    again = Commands(Database(desk.database.path), desk.writer, desk.link, now=lambda: desk.now)
    again.remember_kept()
    desk.writer.on_online = again.on_online
    desk.connect()
    again.step(0.0)
    again.database.close()
    assert desk.sent_ids() == [command]


def test_without_keeping_a_command_is_sent_now_or_fails(desk):
    assert desk.order(keep_s=0.0).until is None
    desk.link.problem = "not connected"
    with pytest.raises(NotSentError, match="send it again"):
        desk.order(keep_s=0.0)
    desk.link.problem = None
    desk.connect()
    assert len(desk.link.sent) == 1


def test_restart_camera_is_never_kept(desk):
    desk.take(message(report(revision=2, site="berlin")))
    ordered = desk.order(RESTART_CAMERA, keep_s=3600.0)
    assert (ordered.is_sent, ordered.until) == (True, None)


def test_withdrawn_command_is_not_sent(desk):
    command, other = desk.order().id, desk.order().id
    assert desk.commands.withdraw(command, "ida")
    assert not desk.commands.withdraw(command, "ida")
    assert desk.state(command) == "not sent"
    desk.connect()
    assert desk.sent_ids() == [other]
    assert not desk.commands.withdraw(other, "ida")  # it is on its way


def test_kept_commands_of_a_device_are_bounded_and_outlive_newer_ones(desk):
    kept = [desk.order().id for _ in range(records.MOST_KEPT)]
    with pytest.raises(CommandError, match="20 commands wait for device cam-1 already"):
        desk.order()
    for number in range(records.MOST_COMMANDS + 5):
        desk.now += 1
        desk.order(verb=f"v{number}", keep_s=0.0)
    desk.link.sent.clear()
    desk.connect()
    assert sorted(desk.sent_ids()) == sorted(kept)


def test_device_answers_all_that_was_kept_for_it(desk, tmp_path):
    """All that may wait for a device arrives at once, and each takes long; the server takes all their answers."""
    kept = [desk.order(verb="prove").id for _ in range(records.MOST_KEPT)]
    device = Device(tmp_path)
    device.may_end.clear()
    desk.connect()
    for _, fields in desk.link.sent:
        device.send("prove", json.dumps(fields).encode())
    device.may_end.set()
    device.finish(2 * len(kept))
    for fields in device.post.answered:
        desk.inflow.put(message(fields, "answer"))
    while desk.writer.step(0.0):
        pass
    assert [desk.state(one) for one in kept] == ["done"] * len(kept)


def test_kept_command_outlives_what_the_server_knows_of_its_device(desk):
    """A server may forget silent devices earlier than the time of the command is over."""
    command = desk.order(keep_s=7 * 86_400.0).id
    desk.now += 2 * 86_400
    desk.connect(state=b"offline")
    assert desk.device() is None
    desk.connect()
    assert desk.link.sent == []  # before its report, the server does not know it
    desk.take(message(report(revision=2), at=desk.now))
    desk.commands.step(0.0)
    assert desk.sent_ids() == [command]


def test_answer_of_another_device_ends_no_kept_command(desk):
    desk.take(message(report("cam-2")))
    command = desk.order().id
    desk.take(message(answer("cam-2", command), "answer"))
    desk.connect()
    assert desk.sent_ids() == [command]


def test_database_of_an_earlier_version_keeps_commands_from_now_on(tmp_path):
    Database(tmp_path / "fleet.sqlite").close()
    with sqlite3.connect(tmp_path / "fleet.sqlite") as db:
        db.execute("DROP TABLE kept")
    db.close()
    with OneThread(tmp_path) as desk:
        desk.take(message(report()))
        desk.connect(state=b"offline")
        assert desk.state(desk.order().id) == "waiting"
