"""A device with real slots, pointers and journal, a repository in memory, and a running `edge` that is only played."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge.bundle import slots
from edge.bundle.active_pointer import ReleaseName, read_active_pointer
from edge.bundle.install import install_bundle, install_gallery
from edge.bundle.pairs import open_pair, whole_pair
from edge.errors import FinesightError, SyncError
from edge.telemetry.vital_signs import NAME as SIGNS_NAME
from edge.telemetry.vital_signs import VitalPair, VitalRelease, VitalSigns, machine_boot_id
from gallery_sync.agent.agent import Agent
from gallery_sync.agent.doors import Erased, Freshness, Read, World
from gallery_sync.agent.fleet_report import About, FleetReport
from gallery_sync.agent.gates import Surroundings
from gallery_sync.agent.journal import Journal, open_journal
from gallery_sync.agent.local_steps import LocalSteps
from gallery_sync.agent.machine import Target
from gallery_sync.agent.policy import Policy
from gallery_sync.agent.report import Reporter
from gallery_sync.device.permit import Permit
from gallery_sync.formats.reports import Reported
from tests.store_samples import make_bundle, make_gallery

START = 1_800_000_000.0
ONE, TWO, THREE = (Target("demo", n, f"bundle-{n}", n, n, n) for n in (1, 2, 3))
QUICK = Policy.model_validate({"trial": {"seconds": 20, "serve_within_s": 10, "edge_within_s": 60}})

Hook = Callable[[str], None]  # called with a point's name, such as `before store trial`


@dataclass
class Clock:
    """Time that passes only by waiting."""

    now_s: float = START
    monotonic_s: float = 1000.0
    waited: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now_s += seconds
        self.monotonic_s += seconds


@dataclass
class Edge:
    """What plays the running device: it serves what the pointer says, unless a test says otherwise."""

    state_dir: Path
    clock: Clock
    runs: bool = True
    fps: float = 10.0
    failing: float = 0.0  # share of the frames
    known: float = 0.9  # share of the objects
    refuses: str | None = None  # a bundle id that it cannot load
    only_on_trial: bool = True  # what is wrong, is wrong with a pair on trial alone
    run: str = "run-1"
    restarts_on_trial: bool = False
    counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("frames", "errors", "known", "unknown"), 0))
    at_s: float = 0.0

    def signs(self) -> VitalSigns | None:
        if not self.runs:
            return None
        active = read_active_pointer(self.state_dir)
        if active is None:
            return None
        wrong = active.trial is not None or not self.only_on_trial
        if wrong and self.restarts_on_trial:
            self.run = f"{self.run}+"
        passed, self.at_s = self.clock.monotonic_s - (self.at_s or self.clock.monotonic_s), self.clock.monotonic_s
        fps = self.fps if wrong else 10.0
        failing, known = (self.failing, self.known) if wrong else (0.0, 0.9)
        for name, share in (("frames", 1 - failing), ("errors", failing), ("known", known), ("unknown", 1 - known)):
            self.counts[name] += passed * fps * share
        serves = active
        fallback = None
        if self.refuses == active.bundle_id and active.previous is not None:
            serves, fallback = active.previous, f"bundle {active.bundle_id} cannot be loaded"
        frames, errors, known_n, unknown_n = (round(count) for count in self.counts.values())
        release = serves.release
        return VitalSigns(
            schema="finesight.vital_signs/1",
            boot_id=self.run,
            machine_boot_id=machine_boot_id(),
            pid=1,
            started_at=START,
            written_at=self.clock.now_s,
            started_monotonic_s=0.0,
            written_monotonic_s=self.clock.monotonic_s,
            state="running",
            pair=VitalPair(slot=serves.slot, bundle_id=serves.bundle_id, gallery=serves.gallery),
            release=release and VitalRelease.model_validate(release, from_attributes=True),
            trial=serves.trial,
            fallback=fallback,
            cameras={"shelf": {"state": "online", "frames": frames, "errors": errors, "fps": fps}},  # type: ignore[dict-item]
            frames=frames,
            frame_errors=errors,
            known=known_n,
            unknown=unknown_n,
        )

    def write(self) -> None:
        """Write the file that a real agent reads."""
        if (signs := self.signs()) is not None:
            (self.state_dir / SIGNS_NAME).write_text(signs.model_dump_json(by_alias=True))


class Steps(LocalSteps):
    """Real slots and pointers; fetching copies a bundle that lies on the disk."""

    def __init__(self, folder: Path, clock: Clock, hook: Hook = lambda _: None) -> None:
        self.folder, self.clock, self.hook = folder, clock, hook
        super().__init__(folder / "device", self.try_pair, lambda: clock.monotonic_s)
        self.tried: list[str] = []  # galleries
        self.may_end = threading.Event()  # a proof
        self.may_end.set()
        self.proof_fails: list[Exception] = []
        self.moment_s = 10.0  # that a step waits for a proof
        self.wanted: Target | None = TWO
        self.waits: str | None = None  # why it is not what other devices take
        self.refused: str | None = None  # why the device must not run it
        self.begun = 0  # of the last check
        self.same = False  # the repository is as it was
        self.errors: dict[str, list[Exception]] = {}  # by step: raised one after the other
        self.calls: list[str] = []
        self.erased: list[Erased] = []
        self.fresh = Freshness(START + 7e5, START + 3e5, expired=False)
        self.local = datetime(2026, 11, 28, 12, 0, tzinfo=timezone.utc)
        self.free, self.left = 1 << 40, None
        self.permit: Permit | None = None
        self.goes = 1  # of a download
        self.edge = Edge(self._state_dir, clock)

    def try_pair(self, _: Path, gallery: Path | None) -> list[str]:
        """Prove, beside the agent."""
        self.tried.append(gallery.name if gallery else "")
        assert self.may_end.wait(60)
        if self.proof_fails:
            raise self.proof_fails.pop(0)
        return []

    def _called(self, step: str) -> None:
        self.calls.append(step)
        self.hook(f"before {step}")
        if waiting := self.errors.get(step):
            raise waiting.pop(0)

    def unchanged(self) -> bool:
        self._called("unchanged")
        return self.same

    def read(self, begun: int = 0) -> Read:
        self._called("read")
        self.begun = begun
        return Read(None if self.refused else self.wanted, self.refused, self.waits, self.wanted)

    def erase(self) -> Erased:
        self._called("erase")
        return self.erased.pop(0) if self.erased else Erased()

    def freshness(self) -> Freshness | None:
        return self.fresh

    def fetch(self, release: Target) -> bool:
        self._called("fetch")
        self.goes -= 1
        return self.goes <= 0

    def verify(self, release: Target) -> None:
        self._called("verify")

    def stage(self, release: Target) -> bool:
        self._called("stage")
        bundle, gallery = self.folder / release.bundle_id, self.folder / f"gallery-{release.gallery_sequence}"
        generation, slot = install_gallery(gallery, self._state_dir), install_bundle(bundle, self._state_dir)
        name = ReleaseName(line=release.line, sequence=release.sequence, gallery_sequence=release.gallery_sequence)
        slots.stage(self._state_dir, slot, generation, name)
        self.hook("after stage")
        return False

    def prove(self, release: Target, wait_s: float | None = None) -> str | None:
        self._called("prove")
        return super().prove(release, self.moment_s if wait_s is None else wait_s)

    def rest(self) -> None:
        """Nothing was started for a proof."""

    def switch(self, release: Target, trial: str) -> bool:
        self._called("switch")
        switched = super().switch(release, trial)
        self.hook("after switch")
        return switched

    def confirm(self, release: Target, trial: str | None) -> None:
        self._called("confirm")
        super().confirm(release, trial)
        self.hook("after confirm")

    def roll_back(self) -> None:
        self._called("roll_back")
        super().roll_back()
        self.hook("after roll_back")

    def signs(self) -> VitalSigns | None:
        return self.edge.signs()

    def surroundings(self) -> Surroundings:
        return Surroundings(self.local, self.free, self.left, self.permit)

    def tidy(self) -> None:
        self._called("tidy")


class Mailbox:
    """What plays the fleet; time passes only by waiting."""

    def __init__(self) -> None:
        self.clock = Clock()  # that of the device
        self.put_: list[dict[str, Any]] = []
        self.turns: set[tuple[int, str | None]] = set()
        self.rings_at: list[float] = []  # seconds on the clock: the doorbell
        self.wakes_at: list[float] = []  # likewise: something else arrives

    @property
    def newest(self) -> dict[str, Any]:
        """The newest report."""
        return self.put_[-1]

    def put(self, content: Mapping[str, Any]) -> None:
        Reported.model_validate({**content, "epoch": "0" * 8, "revision": len(self.put_) + 1})
        self.put_.append(dict(content))

    def wait(self, wait_s: float) -> None:
        end_s = min([self.clock.now_s + wait_s, *(at for at in (*self.rings_at, *self.wakes_at) if at)])
        self.wakes_at = [at for at in self.wakes_at if at > end_s]
        self.clock.sleep(max(0.0, end_s - self.clock.now_s))

    def rang(self) -> bool:
        rang = any(at <= self.clock.now_s for at in self.rings_at)
        self.rings_at = [at for at in self.rings_at if at > self.clock.now_s]
        return rang

    def has_turn(self, sequence: int, plan: str | None) -> bool:
        return (sequence, plan) in self.turns


class HookedJournal(Journal):
    """A journal that calls a hook before and after each store, and may fail."""

    hook: Hook = staticmethod(lambda _: None)
    full = 0  # so many stores fail

    def store(self, step: Any, now: float) -> None:
        self.hook(f"before store {step.task.state.value}")
        if self.full:
            self.full -= 1
            raise SyncError("the disk is full")
        super().store(step, now)
        self.hook(f"after store {step.task.state.value}")


@dataclass
class Device:
    """One device with its agent."""

    folder: Path
    steps: Steps
    clock: Clock
    journal: HookedJournal
    agent: Agent
    reporter: Reporter

    @property
    def state_dir(self) -> Path:
        return self.folder / "device"

    def run(self) -> None:
        """Check once, and follow what comes of it to its end."""
        self.agent.run(once=True)

    def poll(self) -> None:
        """Wait for the next check, and follow it to its end."""
        self.clock.sleep(3600.0)
        self.agent.turn()
        self.run()

    def serving(self) -> str | None:
        """Return the bundle that serves; its pair is whole, and not on trial."""
        active = read_active_pointer(self.state_dir)
        assert active is not None
        assert active.trial is None, "on trial"
        open_pair(self.state_dir, whole_pair(self.state_dir) or pytest_fail())
        return active.bundle_id

    def outcomes(self) -> list[tuple[int, str]]:
        return [(past.sequence, past.outcome) for past in reversed(self.journal.history())]


def pytest_fail() -> Any:
    raise AssertionError("nothing on the device is whole")


def make_repository(folder: Path) -> None:
    """Put bundles 1 to 3 with their galleries into a folder, and make 1 the active one of the device."""
    for target in (ONE, TWO, THREE):
        make_bundle(folder / target.bundle_id, target.bundle_id, target.bundle_sequence)
        make_gallery(folder / f"gallery-{target.gallery_sequence}", 2 + target.gallery_sequence)
    state_dir = folder / "device"
    generation = install_gallery(folder / "gallery-1", state_dir)
    slot = install_bundle(folder / "bundle-1", state_dir)
    slots.stage(state_dir, slot, generation, ReleaseName(line="demo", sequence=1, gallery_sequence=1))
    slots.activate(state_dir, prove=lambda *_: [])


def start_agent(
    folder: Path,
    policy: Policy = QUICK,
    boot_id: str = "boot-1",
    hook: Hook = lambda _: None,
    clock: Clock | None = None,
    mailbox: Mailbox | None = None,
) -> Device:
    """Start an agent on a device that `make_repository` made."""
    clock = clock or (mailbox.clock if mailbox else Clock())
    steps = Steps(folder, clock, hook)
    opened = open_journal(folder / "device")
    journal = HookedJournal(folder / "device" / "journal.sqlite", opened.told, opened._connection)
    journal.hook = hook  # type: ignore[method-assign]
    reporter = Reporter(folder / "device", journal, lambda: clock.now_s, journal.told)
    trials = iter(range(1, 10**6))
    world = World(
        lambda: clock.now_s,
        lambda: clock.monotonic_s,
        clock.sleep,
        lambda: 0.5,
        boot_id,
        lambda: f"trial-{boot_id}-{next(trials)}",
    )
    about = About("shelf-1", "demo", {"device": "shelf-1", "line": "demo", "site": "berlin"}, "1.2.3", ("sync",))
    report = FleetReport(about, journal, lambda: clock.now_s, journal.told)
    agent = Agent(steps, journal, policy, world, reporter, mailbox, report)
    return Device(folder, steps, clock, journal, agent, reporter)


def copy_device(made: Path, folder: Path) -> None:
    """Copy the device that `make_repository` made; the bundles and galleries of the repository stay where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in made.iterdir():
        if path.name != "device":
            (folder / path.name).symlink_to(path.resolve())
    shutil.copytree(made / "device", folder / "device", symlinks=True)


__all__ = ["FinesightError", "replace"]
