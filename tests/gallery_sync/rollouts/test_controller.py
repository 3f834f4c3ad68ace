"""The controller: what it does when, and that a kill at any place changes nothing of it."""

from __future__ import annotations

import shutil
from datetime import timedelta

import pytest

from edge import durable
from edge.errors import SyncError
from gallery_sync.formats.rollouts import Gates
from gallery_sync.repository.upkeep.check import check_repository
from gallery_sync.rollouts import audit, changes
from gallery_sync.rollouts.changes import Desk
from gallery_sync.rollouts.controller import Controller
from gallery_sync.rollouts.plans import Wish, make_draft
from gallery_sync.rollouts.status import print_status, status
from tests.gallery_sync.rollouts.samples import APPROVED, MemoryFleet, a_row, keys_folder
from tests.sync_samples import published

DEVICES = [f"cam-{i}" for i in range(20)]
HOUR = timedelta(hours=1)


class Clock:
    """Time that a test sets."""

    def __init__(self):
        self.now = APPROVED + timedelta(minutes=1)

    def __call__(self):
        return self.now

    def pass_time(self, delta):
        self.now += delta


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def fleet():
    return MemoryFleet(*(a_row(device) for device in DEVICES))


@pytest.fixture
def controller(repo, keys, fleet, clock):
    return Controller(repo, lambda: keys, fleet, clock)


@pytest.fixture
def plan(repo, keys, fleet):
    """A rollout in two waves whose canary of two devices is open."""
    wish = Wish(by="ann", canary_at_least=2, wave_percents=(), soak_s=600.0, gates=Gates(max_failed_percent=10.0))
    draft = make_draft(wish, published(repo), "ef" * 8, APPROVED, fleet.rows("demo").rows).draft
    changes.approve(Desk(repo, keys, "bob", APPROVED), draft)
    return published(repo).plan


def members(plan, wave):
    return [device for device in DEVICES if plan.wave_of(device) == wave]


def confirm(fleet, clock, plan, *devices, state="confirmed", **more):
    fleet.set(state, *devices, release=plan.release, last_seen=clock.now.timestamp(), **more)


def test_rollout_goes_from_canary_to_complete(repo, controller, fleet, clock, plan):
    canary, rest = members(plan, 0), members(plan, 1)
    assert (len(canary), len(rest)) == (2, 18)
    assert controller.look().did == "wait"
    clock.pass_time(HOUR)
    assert controller.look().reason == "0 of 2 devices confirmed, 2 must"
    confirm(fleet, clock, plan, *canary)
    assert controller.look().did == "open"
    assert published(repo).plan.open_waves == 2
    clock.pass_time(HOUR)
    confirm(fleet, clock, plan, *rest[:10])
    assert controller.look().did == "wait"
    confirm(fleet, clock, plan, *rest)
    assert controller.look().did == "complete"
    found = published(repo)
    assert (found.release.sequence, found.release.bundle_id, found.plan) == (2, "two", None)
    assert controller.look().did == "idle"
    assert dict(controller.counters) == {"unreadable rows": 0, "wait": 3, "open": 1, "complete": 1, "idle": 1}


def test_failing_canary_pauses(repo, controller, fleet, clock, plan):
    confirm(fleet, clock, plan, members(plan, 0)[0], state="rolled back")
    found = controller.look()
    assert (found.did, found.reason) == ("pause", "1 of 2 devices failed, more than 10 %")
    assert published(repo).plan.state == "paused"
    assert controller.look().did == "wait"


def test_unreachable_server_opens_nothing(repo, controller, fleet, clock, plan):
    confirm(fleet, clock, plan, *members(plan, 0))
    clock.pass_time(HOUR)
    fleet.is_down = True
    found = controller.look()
    assert (found.did, "nothing opens until" in found.reason) == ("unreachable", True)
    assert (controller.counters["unreachable"], published(repo).plan.open_waves) == (1, 1)
    fleet.is_down = False
    assert controller.look().did == "open"


def test_blind_rollout_goes_by_its_soak(repo, keys, clock, plan):
    blind = Controller(repo, lambda: keys, None, clock)
    assert blind.look().did == "wait"
    clock.pass_time(HOUR)
    assert [blind.look().did for _ in range(2)] == ["open", "wait"]
    clock.pass_time(HOUR)
    assert blind.look().did == "complete"


def test_pause_between_look_and_change_wins(repo, keys, controller, fleet, clock, plan):
    confirm(fleet, clock, plan, *members(plan, 0))
    clock.pass_time(HOUR)
    rows = fleet.rows

    def rows_while_somebody_pauses(*query):
        changes.pause(Desk(repo, keys, "carol", clock.now), "stop")
        return rows(*query)

    fleet.rows = rows_while_somebody_pauses
    found = controller.look()
    assert (found.did, controller.counters["changed"]) == ("changed", 1)
    plan = published(repo).plan
    assert (plan.state, plan.reason, plan.open_waves) == ("paused", "stop", 1)


def test_missing_keys_are_reported_and_tried_again(repo, keys, fleet, clock, plan):
    def no_keys():
        raise SyncError("the keys are away")

    confirm(fleet, clock, plan, *members(plan, 0))
    clock.pass_time(HOUR)
    found = Controller(repo, no_keys, fleet, clock).look()
    assert (found.did, found.reason) == ("failed", "the keys are away")
    assert Controller(repo, lambda: keys, fleet, clock).look().did == "open"


def test_run_reports_what_is_new(controller, plan):
    said, waits = [], iter([None, None])

    class StopError(Exception):
        pass

    def wait():
        if next(waits, StopError) is StopError:
            raise StopError

    controller.now = lambda: APPROVED
    with pytest.raises(StopError):
        controller.run(said.append, wait)
    assert [one.did for one in said] == ["wait"]
    assert controller.counters["wait"] == 3


def test_run_until_the_end_ends_when_it_is_complete_or_paused(controller, fleet, clock, plan):
    confirm(fleet, clock, plan, *DEVICES)
    last = controller.run(lambda _: None, lambda: clock.pass_time(HOUR), until_end=True)
    assert last.did == "complete"
    assert controller.run(lambda _: None, lambda: None, until_end=True).did == "idle"


def test_status_names_the_devices_that_stopped_it(repo, controller, fleet, clock, plan):
    fleet.set("quarantined", *(name for name in DEVICES if plan.wave_of(name) == 0), release=plan.release)
    assert controller.run(lambda _: None, lambda: clock.pass_time(HOUR), until_end=True).did == "pause"
    found = status(published(repo), clock.now, fleet.rows("demo").rows)
    canary = sorted(name for name in DEVICES if plan.wave_of(name) == 0)
    assert [f"{name} failed: probes failed" for name in canary] == [
        line for line in print_status(found) if " failed: " in line
    ]


def test_kill_at_any_write_goes_on(repo, controller, fleet, clock, plan, monkeypatch, tmp_path):
    """Whatever write is the last one: the next look does what is left to do, once, and the log is whole."""
    confirm(fleet, clock, plan, *DEVICES)
    clock.pass_time(HOUR)
    assert controller.look().did == "open"
    clock.pass_time(HOUR)
    folders = {folder: tmp_path / f"kept-{folder.name}" for folder in (repo, keys_folder(repo))}
    for folder, kept in folders.items():
        shutil.copytree(folder, kept)
    killer = Killer(monkeypatch)
    before = published(repo).rollouts
    while killer.kills(controller.look):
        look = controller.look()  # of another process
        after = published(repo)
        assert look.did in ("complete", "idle"), f"after write {killer.number}"
        assert (after.plan, after.release.sequence) == (None, 2)
        assert after.rollouts.revision == before.revision + 1
        rows, problems = audit.read_history(repo, after.rollouts)
        assert problems == []
        assert [row["what"] for row in rows if row["state"] == "done"] == ["approve", "open", "complete"]
        for folder, kept in folders.items():
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)
    assert killer.number > 10
    assert check_repository(repo, clock.now, history=True).problems == []


class KilledError(Exception):
    """The process is killed here."""


class Killer:
    """Kills an action at its first write to the disk, the next time at its second one, and so on."""

    def __init__(self, monkeypatch):
        self.number, self._left, self._fsync = 0, 0, durable.os.fsync
        monkeypatch.setattr(durable.os, "fsync", self._write)

    def kills(self, act):
        """Return whether the action was killed; it ended by itself if it has fewer writes."""
        self.number += 1
        self._left = self.number
        try:
            act()
        except KilledError:
            return True
        finally:
            self._left = 0
        return False

    def _write(self, descriptor):
        self._left -= 1
        if self._left == 0:
            raise KilledError
        self._fsync(descriptor)
