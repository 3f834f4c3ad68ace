"""Simulated devices of a fleet: real connections to a broker, real requests to a repository, no recognition.

    python benchmarks/simulated_devices.py TASK.json     # one process of many devices; benchmarks/fleet_simulation.py
                                                         # starts some of them

What is real: each device has its MQTT connection and account, its will and its retained report (`Reported`), polls
metadata/timestamp.json over a connection of its own, and decides by `gallery_sync.device.choice.choose`. When the
timestamp changed, it requests what a device requests: the next root, the snapshot, the roles whose version changed, the
documents of the line that it does not have, and, of a release that it takes, bundle head, manifest and objects.

What is not: nothing is verified (the processor time of a device is in benchmarks/fleet_sync.py), proof and trial are
waits, and files that one process already parsed are not parsed again.

Rules this module keeps:
1. A device knows only what the repository and the broker gave it. Its faults (a trial that fails, no power) are in its
   task.
2. Bytes and requests are counted by the server and the broker, not here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import resource
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.simulated_link import Link, hello  # noqa: E402
from benchmarks.simulated_repository import Repository, Web  # noqa: E402
from gallery_sync.device.choice import Choice, choose  # noqa: E402
from gallery_sync.formats.documents import Release, release_target  # noqa: E402
from gallery_sync.formats.reports import (  # noqa: E402
    MOST_TRIES,
    Quarantined,
    Reported,
    Running,
    Try,
    device_topic,
    line_topic,
)
from gallery_sync.formats.rollouts import Plan, Rollouts, rollouts_target  # noqa: E402


@lru_cache(maxsize=256)
def _release(data: bytes) -> Release:
    return Release.model_validate_json(data)


@lru_cache(maxsize=256)
def _rollouts(data: bytes) -> Rollouts:
    return Rollouts.model_validate_json(data)


@lru_cache(maxsize=16)
def _ranks(salt: str, ids: tuple[str, ...]) -> dict[str, int]:
    """Return the place of each device in the order of a plan's buckets, so that each wave has its share of failures."""
    plan = Plan.model_construct(salt=salt)
    return {one: rank for rank, one in enumerate(sorted(ids, key=plan.bucket))}


@dataclass(frozen=True)
class Task:
    """What all devices of one process know."""

    devices: list[dict[str, Any]]  # id, password, labels
    everyone: tuple[str, ...]  # ids of the whole fleet
    repository: tuple[str, int]
    broker: tuple[str, int]
    line: str
    seed: int
    start_over_s: float  # all devices come up within this time
    poll_s: float
    report_s: float  # where nothing changes
    proof_s: float
    trial_s: float
    spread_s: float  # after the doorbell
    keepalive_s: int
    fails: dict[str, int] = field(default_factory=dict)  # bundle id: every so many-th device in bucket order fails it
    control: str = ""  # a file: {"off": [ids], "silent": [ids]}, read when it changes


@dataclass
class Known:
    """What a device has on its disk."""

    running: Release | None = None
    trial: str | None = None
    tries: list[Try] = field(default_factory=list)
    held: dict[int, str] = field(default_factory=dict)
    revision: int = 0  # of its reports


class SimulatedDevice:
    """One device."""

    def __init__(self, task: Task, about: dict[str, Any], chance: random.Random) -> None:
        self._task, self._chance = task, chance
        self.id: str = about["id"]
        self._labels: dict[str, str] = about["labels"]
        self._password: str = about["password"]
        self._repository = Repository(Web(*task.repository), self.id, task.line)
        self._known = Known()
        self._epoch = hashlib.sha256(self.id.encode()).hexdigest()[:16]
        self._choice = Choice(None)
        self._state = "idle"
        self._link: Link | None = None
        self._woken = asyncio.Event()
        self._rung = 0  # newest revision that the doorbell named
        self.is_on = True
        self.is_silent = False  # its trial finds it without a network, until that comes back

    async def live(self) -> None:
        """Run for ever."""
        await asyncio.sleep(self._chance.random() * self._task.start_over_s)
        await asyncio.gather(self._stay_connected(), self._work(), self._report_now_and_then())

    async def _stay_connected(self) -> None:
        waited_s = 1.0
        while True:
            if not self._has_network():
                await asyncio.sleep(0.5)
                continue
            try:
                await self._connect()
            except OSError:
                await asyncio.sleep(waited_s * (0.5 + self._chance.random()))
                waited_s = min(60.0, waited_s * 2.0)
                continue
            waited_s = 1.0
            await self._hold()

    async def _connect(self) -> None:
        topics = [
            line_topic(self._task.line),
            device_topic(self.id, "desired"),
            device_topic(self.id, "cmd/+"),
        ]
        will = device_topic(self.id, "available")
        say_hello = hello(f"finesight-{self.id}-agent", self.id, self._password, will, self._task.keepalive_s)
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(lambda: Link(say_hello, topics, self._receive), *self._task.broker)
        await link.ready
        if not link.is_open:
            raise ConnectionResetError
        link.publish(will, b"online")
        self._link = link
        self._report()

    async def _hold(self) -> None:
        link = self._link
        assert link is not None
        last = time.monotonic()
        while link.is_open and self._has_network():
            await asyncio.wait([link.lost], timeout=1.0)
            if time.monotonic() - last >= self._task.keepalive_s * 0.8:
                link.ping()
                last = time.monotonic()
        link.close(farewell=False)
        self._link = None

    def _has_network(self) -> bool:
        return self.is_on and not (self.is_silent and self._state == "trial")

    def _receive(self, topic: str, payload: bytes) -> None:
        if topic == line_topic(self._task.line) and payload:
            revision = json.loads(payload)["revision"]
            if revision > max(self._rung, self._repository.revision):
                self._rung = revision
                self._woken.set()

    async def _work(self) -> None:
        while True:
            if self.is_on:
                with suppress(OSError):  # the repository is not there: later
                    await self._look()
                self._repository.close()
            wait_s = self._task.poll_s * (0.8 + 0.4 * self._chance.random())
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._woken.wait(), wait_s)
                self._woken.clear()
                await asyncio.sleep(self._chance.random() * self._task.spread_s)

    async def _look(self) -> None:
        await self._repository.check()
        base_json = await self._repository.document(release_target(self._task.line))
        rollouts_json = await self._repository.document(rollouts_target(self._task.line))
        base = _release(base_json) if base_json else None
        rollouts = _rollouts(rollouts_json) if rollouts_json else None
        running = self._known.running
        number, now = running.sequence if running else 0, datetime.now(timezone.utc)
        before, self._choice = self._choice, choose(base, rollouts, self._labels, self.id, number, now)
        wanted = self._choice.release
        if wanted is None or (running and wanted.sequence == running.sequence) or wanted.sequence in self._known.held:
            if self._choice.reason != before.reason:
                self._report()
            return
        await self._take(wanted, rollouts)

    async def _take(self, wanted: Release, rollouts: Rollouts | None) -> None:
        running, task, known = self._known.running, self._task, self._known
        if running and (running.bundle_id, running.gallery_sequence) == (wanted.bundle_id, wanted.gallery_sequence):
            self._end(wanted, "confirmed", None)  # its pair serves already
            return
        self._turn_to("fetch")
        await self._repository.fetch(wanted)
        self._turn_to("verify", "stage", "prove")
        await asyncio.sleep(task.proof_s * (0.5 + self._chance.random()))
        self._turn_to("armed", "switch")
        known.running, known.trial = wanted, f"{self._chance.getrandbits(64):016x}"
        self._turn_to("trial")
        await asyncio.sleep(task.trial_s / 2)
        self._turn_to("trial")
        await asyncio.sleep(task.trial_s / 2)
        while not self._has_network():  # noqa: ASYNC110 - it was cut off in the middle of its trial
            await asyncio.sleep(1.0)
        trial = known.trial
        if self._fails(wanted, rollouts):
            known.running = running
            self._end(wanted, "rolled back", trial)
        else:
            self._turn_to("confirm")
            self._end(wanted, "confirmed", trial)

    def _turn_to(self, *states: str) -> None:
        """Go through states; each change is a report, as a device sends it."""
        for state in states:
            self._state = state
            self._report()

    def _fails(self, wanted: Release, rollouts: Rollouts | None) -> bool:
        every, plan = self._task.fails.get(wanted.bundle_id), rollouts.plan if rollouts else None
        if every is None or plan is None or plan.release.sequence != wanted.sequence:
            return False
        return _ranks(plan.salt, self._task.everyone)[self.id] % every == every // 2

    def _end(self, release: Release, outcome: Any, trial: str | None) -> None:
        known = self._known
        plan = self._choice.plan
        reason = None
        if outcome == "confirmed":
            known.running = release
        else:
            reason = "61 frames failed, 75.0%; 0.0% before"
            known.held[release.sequence] = reason
        known.trial, self._state = None, "idle"
        ended = Try(
            release=release.sequence,
            bundle_id=release.bundle_id,
            gallery_sequence=release.gallery_sequence,
            outcome=outcome,
            trial=trial,
            plan=plan.id if plan else None,
            reason=reason,
            at=time.time(),
        )
        known.tries = [ended, *known.tries][:MOST_TRIES]
        self._report()

    async def _report_now_and_then(self) -> None:
        await asyncio.sleep(self._chance.random() * self._task.report_s)
        while True:
            self._report()
            await asyncio.sleep(self._task.report_s)

    def _report(self) -> None:
        if self._link is None or not self._link.is_open:
            return
        self._known.revision += 1
        self._link.publish(device_topic(self.id, "reported"), self._reported())

    def _reported(self) -> bytes:
        known, choice = self._known, self._choice
        release, target = known.running, choice.release
        is_busy = self._state != "idle"
        running = release and Running(
            line=self._task.line,
            release=release.sequence,
            bundle_id=release.bundle_id,
            gallery_sequence=release.gallery_sequence,
            gallery="06a185b8941d588a",
            slot="a",
            trial=known.trial,
        )
        report = Reported(
            device=self.id,
            line=self._task.line,
            labels=self._labels,
            site=self._labels.get("site"),
            epoch=self._epoch,
            revision=known.revision,
            at=time.time(),
            state=self._state,
            since=time.time(),
            reason=choice.reason,
            target=target.sequence if target and is_busy else None,
            plan=choice.plan.id if choice.plan and is_busy else None,
            running=running,
            serves=True,
            tries=known.tries,
            quarantine=[Quarantined(release=number, reason=why) for number, why in known.held.items()],
            engine="onnxruntime fp32",
            cameras={"shelf": "online"},
            fps=7.9,
            versions={"agent": "0.1.0", "edge": "0.1.0"},
            counters={"doorbells": 2, "mailbox_connections": 1, 'reports{result="sent"}': known.revision},
            expires_at=time.time() + 7 * 86400,
        )
        return report.model_dump_json(by_alias=True, exclude_none=True).encode()


async def _follow(control: str, devices: dict[str, SimulatedDevice]) -> None:
    """Set the faults of devices as the file says, whenever it changes."""
    seen = b""
    while True:
        with open(control, "rb") as file:  # noqa: ASYNC230, PTH123 - small, and on this machine
            data = file.read()
        if data != seen:
            seen, faults = data, json.loads(data)
            off, silent = set(faults.get("off", ())), set(faults.get("silent", ()))
            for one in devices.values():
                one.is_on, one.is_silent = one.id not in off, one.id in silent
        await asyncio.sleep(0.5)


async def run(task: Task) -> None:
    """Run the devices of a task until the process ends."""
    devices = {one["id"]: SimulatedDevice(task, one, random.Random(f"{task.seed} {one['id']}")) for one in task.devices}
    await asyncio.gather(_follow(task.control, devices), *(device.live() for device in devices.values()))


def main() -> None:
    """Run the devices that a file names."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    given = json.loads(Path(sys.argv[1]).read_bytes())
    given["everyone"] = tuple(given["everyone"])
    asyncio.run(run(Task(**given)))


if __name__ == "__main__":
    main()
