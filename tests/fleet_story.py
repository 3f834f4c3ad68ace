"""What happens to a fleet on loopback in the test and in the benchmark, and what it costs.

Each chapter asserts what must hold, and returns numbers. The truth about a device is what its own disk says.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gallery_sync.formats.reports import DeviceRow
from gallery_sync.formats.rollouts import Plan
from gallery_sync.rollouts.plans import read_draft
from tests.fleet_bundles import Fault
from tests.fleet_samples import Device, Fleet, edge_sync
from tests.sync_samples import time_now

OPERATOR, OTHER = "olive", "peter"  # who plans, who approves


@dataclass
class Story:
    """A fleet, and what was measured."""

    fleet: Fleet
    canary_percent: float
    canary_at_least: int
    soak_s: float
    patience_s: float  # of one step
    say: Callable[[str], None] = print
    facts: dict[str, Any] = field(default_factory=dict)
    started_s: float = field(default_factory=time.monotonic)

    def tell(self, text: str) -> None:
        self.say(f"{time.monotonic() - self.started_s:6.1f} s  {text}")

    @contextmanager
    def chapter(self, name: str) -> Iterator[dict[str, Any]]:
        """Measure what a part of the story costs."""
        before, began = self.fleet.meter(), time.monotonic()
        facts: dict[str, Any] = {}
        yield facts
        after = self.fleet.meter()
        facts |= {"seconds": round(time.monotonic() - began, 1)}
        facts |= {key: round(value - before[key], 2) for key, value in after.items()}
        self.facts[name] = facts
        self.tell(f"{name}: {json.dumps(facts)}")

    def begin(self) -> None:
        """Have all devices run the first release, and report it."""
        fleet = self.fleet
        with self.chapter("first release"):
            self.until(lambda: fleet.all_run(1), "all devices run release 1")
            self.tell("all devices run release 1")
            self.rows_are_true()
        fleet.control()

    def bad(self, fault: Fault, name: str, outcome: str) -> None:
        """Have a bad release stop at the canary and undo itself, then abort its rollout."""
        fleet, before = self.fleet, self.fleet.running()
        with self.chapter(name) as facts:
            release = fleet.publish(fault, "--hold")
            plan = self.plan(release)
            canary = self.canary(plan)
            enough = 2 * fleet.pace.answers
            self.until(lambda: all(one.answers() >= enough for one in canary), "there is something to compare with")
            self.approve(plan)
            approved_s = time.monotonic()
            stopped = self.until(self.paused, f"rollout {plan} is paused")
            facts |= {"stopped_after_s": round(time.monotonic() - approved_s, 1), "reason": stopped.reason}
            assert "failed" in stopped.reason, facts
            assert stopped.open_waves == 1
            self.until(lambda: fleet.running() == before and not fleet.on_trial(), "all is as before")
            facts["undone_after_s"] = round(time.monotonic() - approved_s, 1)
            tried = {one.id for one in fleet.devices if self.tried(one, release)}
            facts |= {"canary": len(canary), "tried": len(tried), "devices": len(fleet.devices)}
            assert tried
            assert tried <= {one.id for one in canary}
            assert {self.tried(one, release) for one in canary} <= {outcome, None}
            aborted = self.abort(plan)
            self.until(lambda: fleet.all_run(aborted), f"all devices run release {aborted}, which ended the rollout")
            facts["ended_after_s"] = round(time.monotonic() - approved_s, 1)
            self.rows_are_true()

    def good(self, outage_s: float) -> None:
        """Bring a good release from the canary to all, with everything else failing in between."""
        fleet = self.fleet
        with self.chapter("good release") as facts:
            release = fleet.publish(None, "--hold")
            plan = self.plan(release)
            canary = self.canary(plan)
            off = next(one for one in reversed(fleet.devices) if one not in canary)
            off.power_off()
            others = [one for one in fleet.devices if one is not off]
            self.approve(plan)
            approved_s = time.monotonic()
            self.until(fleet.on_trial, "the canary tries it")
            self.broker_dies(outage_s, facts, lambda: fleet.all_run(release, canary))
            facts["canary_after_s"] = round(time.monotonic() - approved_s, 1)
            self.until(lambda: any(fleet.running()[one.id] == release for one in others if one not in canary), "more")
            self.repository_is_away(outage_s, facts)
            self.until(lambda: self.base() == release, f"release {release} is what all devices run")
            facts["complete_after_s"] = round(time.monotonic() - approved_s, 1)
            assert fleet.all_run(release, others)
            self.rows_are_true(others)
            assert self.row(off).reported.running.release != release, "nobody says more than they know"
        with self.chapter("the device that was off") as facts:
            off.power_on()
            self.until(lambda: fleet.all_run(release), "the device that was off runs it, too")
            self.rows_are_true()
            facts["tries"] = self.until(
                lambda: [one.outcome for one in self.row(off).tries if one.release == release], "it says how that went"
            )
            assert facts["tries"] == ["confirmed"]

    def broker_dies(self, for_s: float, facts: dict[str, Any], meanwhile: Callable[[], bool]) -> None:
        """Kill the broker, wait for what goes on without it, and bring it back. No wave opens without reports."""
        fleet, waves, began = self.fleet, self.open_waves(), time.monotonic()
        fleet.kill_broker()
        self.tell("the broker was killed")
        self.until(meanwhile, "devices go on without a broker")
        self.wait(for_s - (time.monotonic() - began))
        assert self.open_waves() == waves, "the controller opens nothing of which it does not know"
        fleet.broker.start()
        facts["broker_away_s"] = round(time.monotonic() - began, 1)
        self.tell("the broker is back")

    def repository_is_away(self, for_s: float, facts: dict[str, Any]) -> None:
        """Have no device reach the repository for a while."""
        fleet = self.fleet
        fleet.server.close()
        self.tell("the repository cannot be reached")
        before = fleet.running()
        self.wait(for_s)
        facts["repository_away_s"] = for_s
        facts["switched_meanwhile"] = sum(before[name] != number for name, number in fleet.running().items())
        serving = [one for one in fleet.devices if one.is_on and one.edge is not None and one.edge.runs]
        assert len(serving) == sum(one.is_on for one in fleet.devices), "every device serves on"
        fleet.server.open()
        self.tell("the repository is back")

    def wait(self, for_s: float) -> None:
        end = time.monotonic() + for_s
        self.until(lambda: time.monotonic() >= end, "time passes", max(0.0, for_s) + 5.0)

    def until(self, condition: Callable[[], Any], what: str | Callable[[], str], within_s: float | None = None) -> Any:
        return self.fleet.until(condition, what, within_s or self.patience_s)

    # the operator

    def plan(self, release: int) -> str:
        made = edge_sync(
            *("rollout", "create", self.fleet.repo, "--release", release, "--by", OPERATOR, "--fleet", self.fleet.api),
            *("--canary", self.canary_percent, "--canary-at-least", self.canary_at_least),
            *("--soak", f"{self.soak_s:g}s", "--silent-after", f"{self.fleet.pace.silent_after_s:g}s"),
        )
        plan: str = made["rollout"]
        return plan

    def canary(self, plan: str) -> list[Device]:
        """Return the devices of the first wave of a plan."""
        draft, rollouts = read_draft(self.fleet.repo, plan), self.fleet.published().rollouts
        assert rollouts is not None
        of = draft.approved(next(one for one in rollouts.held if one.sequence == draft.release), OTHER, time_now())
        return [one for one in self.fleet.devices if of.wave_of(one.id) == 0]

    def approve(self, plan: str) -> None:
        edge_sync("rollout", "approve", self.fleet.repo, plan, "--by", OTHER)

    def abort(self, plan: str) -> int:
        edge_sync("rollout", "abort", self.fleet.repo, "--by", OPERATOR)
        return self.base()

    def rollout(self) -> Plan | None:
        """Return the rollout that is under way."""
        rollouts = self.fleet.published().rollouts
        return rollouts.plan if rollouts else None

    def paused(self) -> Plan | None:
        """Return the rollout that is under way, if it is paused."""
        plan = self.rollout()
        return plan if plan is not None and plan.state == "paused" else None

    def open_waves(self) -> int | None:
        plan = self.rollout()
        return plan.open_waves if plan else None

    def base(self) -> int:
        release = self.fleet.published().release
        assert release is not None
        return release.sequence

    # what is known

    def tried(self, device: Device, release: int) -> str | None:
        """Return how a device's own journal says that its last try ended, if it was of this release."""
        last = device.journal().get("last") or {}
        return last.get("outcome") if last.get("sequence") == release else None

    def row(self, device: Device) -> DeviceRow:
        return self.rows()[device.id]

    def rows(self) -> dict[str, DeviceRow]:
        """Return the rows of the fleet's server."""
        page = self.fleet.get("/v1/devices?limit=1000") or {"devices": []}
        return {one.device: one for one in map(DeviceRow.model_validate, page["devices"])}

    def rows_are_true(self, devices: list[Device] | None = None) -> None:
        """Wait until the row of each device in the fleet's server agrees with the device's own disk."""
        chosen = devices or self.fleet.devices
        self.until(lambda: not self.untrue(chosen), lambda: f"the rows are true: {self.untrue(chosen)}")

    def untrue(self, devices: list[Device]) -> dict[str, Any]:
        """Return the devices whose row names another pair than their disk."""
        rows, found = self.rows(), {}
        for one in devices:
            row, active = rows.get(one.id), one.active()
            truth = (
                (active.get("release") or {}).get("sequence"),
                *(active.get(name) for name in ("bundle_id", "gallery", "trial")),
            )
            running = row.reported.running if row else None
            reported = running and (running.release, running.bundle_id, running.gallery, running.trial)
            if reported != truth:
                found[one.id] = [reported, truth]
        return found
