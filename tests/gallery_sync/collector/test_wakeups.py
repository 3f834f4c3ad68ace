"""The doorbell and the turns, with a repository and a broker in memory."""

from __future__ import annotations

import json
import threading

import pytest

from edge.errors import SyncError
from gallery_sync.collector.wakeups import WakeUps
from tests.gallery_sync.collector.collector_samples import Desk, a_plan, a_try, message, report

BELL = "fleet/v1/line/shop/desired"


class FakeWatch:
    """A repository whose version a test sets."""

    interval_s = 0.0
    line = "shop"

    def __init__(self, version=7):
        self.number, self.wanted, self.fails = version, None, False

    def version(self):
        if self.fails:
            raise SyncError("timestamp.json: cannot read")
        return self.number

    def plan(self):
        return self.wanted


class Bell:
    """Wake-ups whose jobs run in a thread of the writer."""

    def __init__(self, desk: Desk, watch: FakeWatch):
        self.desk, self.watch = desk, watch
        self.wakeups = WakeUps(
            *(watch, desk.database, desk.writer, desk.link.retain, desk.counters), now=lambda: desk.now
        )

    def step(self):
        thread = threading.Thread(target=self.wakeups.step)
        thread.start()
        while thread.is_alive():
            self.desk.writer.step(0.0)
            thread.join(0.002)

    def rung(self):
        return json.loads(self.desk.link.retained[BELL])["revision"]

    def turns(self):
        return {
            topic.split("/")[3]: json.loads(payload)["release"] if payload else None
            for topic, payload in self.desk.link.retained.items()
            if topic != BELL
        }


@pytest.fixture
def bell(desk):
    return Bell(desk, FakeWatch())


def wait_for_turn(desk, *devices, revision=1, **fields):
    desk.now += 60.0
    for device in devices:
        desk.take(
            message(report(device, revision, state="armed", target=4, waits_for_turn=True, **fields), at=desk.now)
        )


def test_bell_rings_for_each_version_and_never_lower(bell):
    bell.step()
    assert json.loads(bell.desk.link.retained[BELL]) == {"schema": "finesight.desired/1", "line": "shop", "revision": 7}
    bell.watch.number = 9
    bell.step()
    bell.step()
    assert (bell.rung(), bell.desk.count("rings")) == (9, 2)
    again = Bell(bell.desk, FakeWatch(version=4))
    again.step()
    assert again.rung() == 9


def test_repository_that_cannot_be_read_is_counted_and_tried_again(bell, caplog):
    bell.watch.fails = True
    bell.step()
    bell.step()
    assert bell.desk.count("wake_up_failures") == 2
    assert caplog.text.count("cannot wake devices") == 1
    bell.watch.fails = False
    bell.step()
    assert bell.rung() == 7


def test_no_turn_is_given_until_the_repository_can_be_read_again(bell):
    desk, bell.watch.wanted = bell.desk, a_plan()
    bell.step()
    bell.watch.fails = True
    bell.step()
    wait_for_turn(desk, "cam-1")
    bell.watch.interval_s = 1e9  # the next look is far away
    bell.step()
    assert bell.turns() == {}
    bell.watch.fails, bell.watch.interval_s = False, 0.0
    bell.step()
    assert bell.turns() == {"cam-1": 4}


def test_turns_go_round(bell):
    desk, bell.watch.wanted = bell.desk, a_plan()
    wait_for_turn(desk, "cam-1", "cam-2")
    bell.step()
    (first,) = [device for device, release in bell.turns().items() if release == 4]
    other = {"cam-1": "cam-2", "cam-2": "cam-1"}[first]
    assert bell.wakeups.held == {"berlin": 1}
    bell.step()
    assert bell.turns() == {first: 4}
    trial = {"line": "shop", "release": 4, "bundle_id": "b4", "trial": "t1"}
    desk.take(message(report(first, 2, state="trial", running=trial, target=4), at=desk.now))
    bell.step()
    assert bell.turns() == {first: 4}
    running = {"line": "shop", "release": 4, "bundle_id": "b4"}
    desk.take(message(report(first, 3, running=running, tries=[a_try(4)]), at=desk.now))
    bell.step()
    assert bell.turns() == {first: None, other: 4}
    bell.watch.wanted = None
    bell.step()
    assert bell.turns() == {first: None, other: None}


def test_server_that_starts_again_knows_whose_turn_it_is(bell):
    desk, bell.watch.wanted = bell.desk, a_plan()
    wait_for_turn(desk, "cam-1", "cam-2")
    bell.step()
    given = bell.turns()
    desk.link.retained.clear()
    again = Bell(desk, bell.watch)
    again.step()
    assert again.turns() == given


def test_label_of_the_plan_makes_the_groups(bell):
    desk, bell.watch.wanted = bell.desk, a_plan(unavailable_by="rack.no")
    for number in range(4):
        wait_for_turn(desk, f"cam-{number}", labels={"rack.no": str(number % 2)} if number < 2 else {})
    bell.step()
    given = set(bell.turns())
    assert len(given) == 3
    assert {"cam-0", "cam-1"} < given
