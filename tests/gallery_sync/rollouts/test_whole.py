"""A small fleet in memory follows the signed documents of a repository, while a controller moves a rollout on."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from edge.errors import SyncError
from gallery_sync.device.choice import choose
from gallery_sync.formats.documents import Release
from gallery_sync.formats.reports import DeviceRow, Quarantined, Reported, Running, Try
from gallery_sync.formats.rollouts import bucket_of, parse_selector
from gallery_sync.repository.upkeep.check import check_repository
from gallery_sync.rollouts import audit, changes
from gallery_sync.rollouts.changes import Desk
from gallery_sync.rollouts.controller import Controller
from gallery_sync.rollouts.fleet import Rows
from gallery_sync.rollouts.plans import Wish, make_draft
from tests.gallery_sync.rollouts.samples import APPROVED
from tests.sync_samples import published

STEP = timedelta(minutes=10)


@dataclass
class Device:
    """A device that follows the documents; a bad bundle fails its trial."""

    name: str
    group: str
    base: Release
    running: Release | None = None
    tries: list[Try] = field(default_factory=list)
    quarantine: list[Quarantined] = field(default_factory=list)
    had: set[str] = field(default_factory=set)  # bundles that it ever ran
    is_away: bool = False
    last_seen: float = 0.0

    @property
    def labels(self):
        return {"device": self.name, "line": "demo", "group": self.group}

    def step(self, found, now: datetime, bad: set[str]) -> None:
        """Look at the documents, and take what they say."""
        if self.is_away:
            return
        self.running = self.running or self.base
        self.last_seen = now.timestamp()
        choice = choose(found.release, found.rollouts, self.labels, self.name, self.running.sequence, now)
        wanted = choice.release
        if wanted is None or wanted.sequence == self.running.sequence:
            return
        if any(one.release == wanted.sequence for one in self.quarantine):
            return
        self.had.add(wanted.bundle_id)
        is_bad = wanted.bundle_id in bad
        outcome = "rolled back" if is_bad else "confirmed"
        pair = {"release": wanted.sequence, "bundle_id": wanted.bundle_id, "gallery_sequence": wanted.gallery_sequence}
        self.tries.insert(0, Try(**pair, outcome=outcome, trial="t1", at=self.last_seen))
        if is_bad:
            self.quarantine.append(Quarantined(release=wanted.sequence, reason="trial failed"))
        else:
            self.running = wanted

    def row(self) -> DeviceRow:
        """Return what the server knows of it."""
        running = self.running or self.base
        reported = Reported(
            device=self.name,
            line="demo",
            labels=self.labels,
            epoch="0" * 8,
            revision=1,
            at=self.last_seen,
            state="idle",
            running=Running(
                line="demo",
                release=running.sequence,
                bundle_id=running.bundle_id,
                gallery_sequence=running.gallery_sequence,
            ),
            tries=self.tries[:10],
            quarantine=self.quarantine,
            cameras={},
            versions={},
            counters={},
            allowed=[],
        )
        values = {"device": self.name, "line": "demo", "labels": self.labels, "first_seen": 0.0}
        return DeviceRow(**values, last_seen=self.last_seen, reported=reported, tries=[])


class World:
    """A repository, a fleet, a controller and an operator, all at one time."""

    def __init__(self, repo, keys, bad=()):
        self.repo, self.keys, self.bad, self.now = repo, keys, set(bad), APPROVED
        base = published(repo).release
        self.devices = [Device(f"cam-{i}", "lab" if i % 4 == 0 else "shop", base) for i in range(24)]
        self.controller = Controller(repo, lambda: keys, self, lambda: self.now)

    def rows(self, line, about=None, within=("00" * 8, 10_000)):
        """Answer as the fleet's server."""
        found = [device.row() for device in self.devices if device.last_seen]
        return Rows(tuple(row for row in found if bucket_of(within[0], row.device) < within[1]))

    @property
    def bob(self):
        return Desk(self.repo, self.keys, "bob", self.now)

    def begin(self, **wish):
        """Plan and approve a rollout."""
        self.step()
        found = published(self.repo)
        values = {"canary_at_least": 2, "wave_percents": (30.0,), "soak_s": 900.0, **wish}
        draft = make_draft(Wish(by="ann", **values), found, "ab" * 8, self.now, self.rows("demo").rows).draft
        changes.approve(self.bob, draft)

    def step(self):
        """Let time pass, let every device look, and then the controller."""
        self.now += STEP
        found = published(self.repo)
        for device in self.devices:
            device.step(found, self.now, self.bad)
            self.check_device(device, found)
        return self.controller.look()

    def check_device(self, device, found):
        """Check that nobody is ahead of its wave."""
        plan = found.plan
        if plan and any(one.release == plan.release for one in found.rollouts.groups):
            return  # its group has the release already
        if plan is not None and device.running and device.running.sequence == plan.release.sequence:
            assert plan.selects(device.labels)
            assert plan.wave_of(device.name) < plan.open_waves

    def until(self, *did, steps=60):
        """Go on until the controller did something; return the devices that ever ran bundle two."""
        for _ in range(steps):
            if self.step().did in did:
                self.settle()
                return [device.name for device in self.devices if "two" in device.had]
        raise AssertionError(f"the controller did not {did}")

    def settle(self):
        """Let every device look at what was decided."""
        self.step()

    def running(self):
        return {(device.running or device.base).sequence for device in self.devices}


def test_good_release_reaches_everybody(repo, keys):
    world = World(repo, keys)
    world.begin()
    assert len(world.until("complete")) == 24
    assert world.running() == {2}


def test_bad_release_reaches_the_canary_alone(repo, keys):
    world = World(repo, keys, bad=["two"])
    world.begin()
    assert len(world.until("pause")) == 2
    assert world.running() == {1}
    changes.abort(world.bob)
    world.settle()
    assert world.running() == {3}
    assert {device.running.bundle_id for device in world.devices} == {"one"}


def test_rollout_for_a_group_leaves_the_others(repo, keys):
    world = World(repo, keys)
    world.begin(selector=parse_selector("group=lab"))
    assert len(world.until("complete")) == 6
    assert {device.group: device.running.bundle_id for device in world.devices} == {"lab": "two", "shop": "one"}
    world.begin(release=2)
    world.until("complete")
    assert {device.running.bundle_id for device in world.devices} == {"two"}


def test_excluded_and_pinned_devices_stay(repo, keys):
    world = World(repo, keys)
    changes.pin(world.bob, parse_selector("device=cam-1"), 1)
    world.begin(exclude=[parse_selector("group=lab")])
    world.until("complete")
    stay = {device.name for device in world.devices if device.running.bundle_id == "one"}
    assert stay == {"cam-1", *(device.name for device in world.devices if device.group == "lab")}


def test_devices_that_are_away_do_not_block_and_follow_later(repo, keys):
    world = World(repo, keys)
    world.step()
    for device in world.devices[::3]:
        device.is_away = True
    world.begin(canary_percent=30.0)
    world.until("complete")
    assert len({device.running.sequence for device in world.devices}) == 2
    for device in world.devices:
        device.is_away = False
    world.settle()
    assert world.running() == {2}


@pytest.mark.parametrize("seed", range(3))
def test_operator_who_does_anything_breaks_nothing(repo, keys, seed):
    chance = random.Random(seed)
    world = World(repo, keys, bad=["two"] if seed == 2 else [])
    world.begin(canary_percent=30.0)
    acts = [
        lambda: changes.pause(world.bob, "look"),
        lambda: changes.resume(world.bob, {}),
        lambda: changes.open_next(world.bob),
        lambda: changes.pin(world.bob, parse_selector(f"device=cam-{chance.randrange(24)}"), 1),
        lambda: changes.complete(world.bob),
        *([lambda: changes.abort(world.bob)] if chance.random() < 0.5 else []),
    ]
    for _ in range(15):
        if chance.random() < 0.5:
            with contextlib.suppress(SyncError):
                chance.choice(acts)()
        world.devices[chance.randrange(24)].is_away = chance.random() < 0.3
        world.step()
    found = published(repo)
    rows, problems = audit.read_history(repo, found.rollouts)
    assert problems == []
    assert {row["state"] for row in rows} == {"done"}
    assert check_repository(repo, world.now, history=True).problems == []
    if found.plan is not None:
        changes.abort(world.bob)
    for device in world.devices:
        device.is_away = False
    world.settle()
    newest = published(repo).release.sequence
    pinned = [pin.selector for pin in published(repo).rollouts.pins]
    free = [device for device in world.devices if not any(one.matches(device.labels) for one in pinned)]
    assert {device.running.sequence for device in free} <= {newest, 1 if seed == 2 else newest}
