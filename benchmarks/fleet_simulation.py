"""A fleet of thousands of devices on one machine: what the repository, the broker and the fleet's server carry.

    python benchmarks/fleet_simulation.py [--devices 2000] [--processes 2]

Real: a signed repository behind a static web server, mosquitto with the accounts and the access file of the enrolment,
`edge-sync fleet serve`, `edge-sync rollout run`, and for each device a connection of its own to the broker. The devices
are simulated (benchmarks/simulated_devices.py): they poll, read, decide and report as devices do, and do not recognise.

What happens:
1. All come up and take release 1; some are off.
2. A bad release: 2 of 100 devices fail its trial, 1 of 100 is allowed. The controller stops it at the canary, and
   `rollout abort` takes it back. Some devices of the canary lose their network in the middle.
3. A good release goes from the canary to all. The devices that were off come back and converge.
4. Nothing happens for a while.

Time is compressed: see `compressed` in the report. One heartbeat a minute of 2,000 devices is what 120,000 devices send
that report hourly. `measured` is what was counted; `derived` is computed from it, for 100,000 devices.

Writes benchmarks/results/fleet_simulation.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from gallery_sync.formats.rollouts import Plan  # noqa: E402
from gallery_sync.rollouts.plans import read_draft  # noqa: E402
from tests.fleet_bundles import write_bundle, write_gallery  # noqa: E402
from tests.fleet_samples import (  # noqa: E402
    LINE,
    MONITOR,
    SITES,
    Background,
    broker_counts,
    cpu_s,
    edge_sync,
    fleet_broker,
    resident_mib,
    start_collector,
    start_controller,
)
from tests.fleet_server import FleetServer  # noqa: E402
from tests.integration.mosquitto import free_port  # noqa: E402
from tests.sync_samples import published, time_now  # noqa: E402

CANARY, WAVE, SOAK_S, MOST_FAILED, MOST_SILENT = 10, 50, 5, 1, 10  # percent, percent, seconds, percent, percent
ENOUGH = 0.85  # of the canary must confirm
EVERY_FAILS = 50  # every so many-th device fails the bad release
SILENT_AFTER_S = 45.0
TIMES = {"start_over_s": 30.0, "poll_s": 20.0, "report_s": 60.0, "proof_s": 3.0, "trial_s": 10.0, "spread_s": 5.0}
PATIENCE_S = 400.0


class Simulation:
    """All that runs; use as a context."""

    def __init__(self, folder: Path, count: int, processes: int, times: dict[str, float]) -> None:
        self.folder, self.count, self.processes, self.times = folder, count, processes, times
        self.repo, self.port = folder / "repo", free_port()
        self.devices: list[Background] = []
        self.ids: list[str] = []
        self._stack = ExitStack()
        self._faults: dict[str, set[str]] = {"off": set(), "silent": set()}
        self.controller: Background | None = None

    def __enter__(self) -> Simulation:  # noqa: PYI034 - Self is not in Python 3.10
        with ExitStack() as stack:
            self._make(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def _make(self, stack: ExitStack) -> None:
        edge_sync("init", self.repo, "--line", LINE, "--development")
        gallery = write_gallery(self.folder / "gallery")
        edge_sync("publish", self.repo, "--bundle", write_bundle(self.folder / "bundle-1", 1), "--gallery", gallery)
        self.server = stack.enter_context(FleetServer(self.repo))
        quiet = ("autosave_on_changes false", "autosave_interval 60", "max_queued_messages 1000")
        self.broker = fleet_broker(self.folder, self.repo, self.count, quiet)
        stack.callback(self.broker.kill)
        self.broker.start()
        self.collector = start_collector(self.folder, self.repo, self.broker, self.port)
        stack.callback(self.collector.end)
        self.until(lambda: self.get("/healthz"), "the fleet's server answers")
        stack.callback(lambda: [one.kill() for one in self.devices])
        self._write_tasks()

    def _write_tasks(self) -> None:
        about = []
        for number, path in enumerate(sorted((self.folder / "enrolments").glob("cam-*.json"))):
            given = json.loads(path.read_bytes())
            device, site = given["device_id"], SITES[number % len(SITES)]
            labels = {"site": site, "group": given["group"], "device": device, "line": LINE}
            about.append({"id": device, "password": given["broker"]["password"], "labels": labels})
        self.ids = [one["id"] for one in about]
        for number in range(self.processes):
            task = {
                "devices": about[number :: self.processes],
                "everyone": self.ids,
                "repository": ["127.0.0.1", self.server.port],
                "broker": ["127.0.0.1", self.broker.port],
                "line": LINE,
                "seed": number,
                "fails": {"fleet-2": EVERY_FAILS},
                "control": str(self.folder / "control.json"),
                "keepalive_s": 60,
                **self.times,
            }
            (self.folder / f"task-{number}.json").write_text(json.dumps(task))

    def start_devices(self) -> None:
        """Start the processes of the devices."""
        for number in range(self.processes):
            log, task = self.folder / f"devices-{number}.log", self.folder / f"task-{number}.json"
            self.devices.append(Background(log, "benchmarks.simulated_devices", task))

    def control(self) -> None:
        """Start what moves rollouts on."""
        self.controller = start_controller(self.folder, self.repo, self.api)
        self._stack.callback(self.controller.end)

    def set_faults(self, **faults: set[str]) -> None:
        """Set which devices are off, and which lose their network in their next trial (silent)."""
        self._faults |= faults
        part = self.folder / "control.part"
        part.write_text(json.dumps({name: sorted(ids) for name, ids in self._faults.items()}))
        part.replace(self.folder / "control.json")

    @property
    def off(self) -> set[str]:
        """The devices that have no power."""
        return self._faults["off"]

    @property
    def api(self) -> str:
        """The address of the fleet's server."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> bytes:
        """Ask the fleet's server."""
        with urllib.request.urlopen(f"{self.api}{path}", timeout=60) as answer:  # noqa: S310 - on loopback
            data: bytes = answer.read()
        return data

    def plan(self) -> Plan | None:
        """Return the rollout that is under way."""
        rollouts = published(self.repo).rollouts
        return rollouts.plan if rollouts else None

    def by_release(self) -> dict[str, int]:
        """Return how many devices run each release, by their last reports."""
        found: dict[str, int] = json.loads(self.get("/v1/summary"))["by_release"]
        return found

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Return the first answer that is true."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with suppress(OSError):
                if answer := condition():
                    return answer
            gone = [one for one in (self.collector, self.controller, *self.devices) if one is not None and not one.runs]
            if gone or time.monotonic() > deadline:
                logs = [path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log")]
                raise SystemExit(f"{'a process ended' if gone else 'not in time'}: {what}\n" + "\n".join(logs))
            time.sleep(0.5)


class Meter:
    """What a part of the simulation costs."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.began_s = time.monotonic()
        self._before = self._read()

    def _read(self) -> dict[str, float]:
        sim = self._simulation
        web = sim.server.total()
        found: dict[str, float] = {
            "repository_requests": web.requests,
            "repository_polls": web.polls,
            "repository_bytes_sent": web.sent,
            "repository_bytes_received": web.received,
            **{f"broker_{name.replace('/', '_')}": value for name, value in broker_counts(sim.broker, MONITOR).items()},
            "broker_cpu_s": cpu_s(sim.broker.pid),
            "collector_cpu_s": cpu_s(sim.collector.pid),
            "repository_cpu_s": cpu_s(sim.server.pid),
            "devices_cpu_s": sum(cpu_s(one.pid) for one in sim.devices),
            **self._reports(),
        }
        if sim.controller is not None:
            found["controller_cpu_s"] = cpu_s(sim.controller.pid)
        return found

    def _reports(self) -> dict[str, float]:
        """Return what the fleet's server counted: reports by result."""
        metrics = self._simulation.get("/metrics").decode()
        lines = re.findall(r'^finesight_fleet_reports_total\{result="(\w+)"\} (\d+)', metrics, re.MULTILINE)
        merged = re.findall(r'^finesight_fleet_coalesced_total\{kind="reported"\} (\d+)', metrics, re.MULTILINE)
        stored, replaced = sum(int(count) for _, count in lines), sum(map(int, merged))
        return {"reports": stored + replaced, "reports_replaced_before_they_were_stored": replaced}

    def cost(self) -> dict[str, float]:
        """Return what it cost since it was made."""
        now = self._read()
        found = {name: round(value - self._before.get(name, 0.0), 2) for name, value in now.items()}
        found.pop("broker_clients_connected")
        return {"seconds": round(time.monotonic() - self.began_s, 1), **found}


class Story:
    """What happens, and what it costs."""

    def __init__(self, simulation: Simulation) -> None:
        self.sim = simulation
        self.facts: dict[str, Any] = {}

    def note(self, name: str, facts: dict[str, Any]) -> None:
        """Keep and print what a part cost."""
        self.facts[name] = facts
        print(f"{name}: {json.dumps(facts)}", flush=True)

    def come_up(self, away: set[str]) -> None:
        """Have all devices but those that are away run the first release."""
        self.sim.set_faults(off=away)
        meter = Meter(self.sim)
        self.sim.start_devices()
        here = self.sim.count - len(away)
        self.sim.until(lambda: self.sim.by_release().get("1") == here, f"{here} devices run release 1")
        self.note("first release", meter.cost() | {"devices": here, "away": len(away)})

    def bad_release(self) -> None:
        """Have the gate stop a release at the canary, and abort it."""
        sim, meter = self.sim, Meter(self.sim)
        plan, silent = self._approve(2, 0.0)
        stopped = sim.until(lambda: (found := sim.plan()) and found.state == "paused" and found, "it is paused")
        facts = {"stopped_after_s": round(time.monotonic() - meter.began_s, 1), "reason": stopped.reason}
        edge_sync("rollout", "abort", sim.repo, "--by", "olive", "--reason", stopped.reason)
        base = published(sim.repo).release
        assert base is not None
        here = sim.count - len(sim.off)
        sim.until(lambda: sim.by_release().get(str(base.sequence)) == here, f"{here} devices run {base.sequence}")
        rows = _rows(sim)
        tried = [one for one in rows if any(each["release"] == plan.release.sequence for each in one["tries"])]
        facts |= {
            "waves_opened": stopped.open_waves,
            "canary": sum(plan.wave_of(one) == 0 for one in sim.ids),
            "devices_that_tried_it": len(tried),
            "of_them_in_the_canary": sum(plan.wave_of(one["device"]) == 0 for one in tried),
            "rolled_back_by_themselves": sum(
                any(each["outcome"] == "rolled back" for each in one["tries"]) for one in tried
            ),
        }
        self.note("bad release", meter.cost() | facts | {"silent": len(silent)})

    def good_release(self) -> None:
        """Bring a release to all; then the devices that were away or cut off come back."""
        sim, meter = self.sim, Meter(self.sim)
        plan, silent = self._approve(3, 0.02)
        release, seen = plan.release.sequence, list[tuple[float, int]]()

        def is_complete() -> bool:
            found = sim.plan()
            if found is not None and (not seen or seen[-1][1] != found.open_waves):
                seen.append((round(time.monotonic() - meter.began_s, 1), found.open_waves))
            return found is None

        sim.until(is_complete, "it is complete")
        by_release = sim.by_release()
        facts = {"waves_opened_after_s": seen, "complete_with": by_release, "silent": len(silent), "away": len(sim.off)}
        self.note("good release", meter.cost() | facts)
        meter = Meter(sim)
        sim.set_faults(off=set(), silent=set())
        sim.until(lambda: sim.by_release().get(str(release)) == sim.count, "those that were away run it, too")
        self.note("those that were away", meter.cost())

    def rest(self, seconds: float) -> None:
        """Measure what a fleet costs to which nothing happens."""
        time.sleep(self.sim.times["report_s"] / 4)
        meter = Meter(self.sim)
        time.sleep(seconds)
        self.note("nothing happens", meter.cost())

    def _approve(self, number: int, silent_share: float) -> tuple[Plan, set[str]]:
        """Publish a bundle, and begin its rollout; return the plan, and the devices of the canary that fall silent."""
        sim = self.sim
        edge_sync("publish", sim.repo, "--bundle", write_bundle(sim.folder / f"bundle-{number}", number), "--hold")
        confirmed = max(1, round(sim.count * CANARY / 100 * ENOUGH))  # else the second wave opens with the first one
        made = edge_sync(
            *("rollout", "create", sim.repo, "--by", "olive", "--fleet", sim.api, "--min-confirmed", confirmed),
            *("--canary", CANARY, "--wave", WAVE, "--soak", f"{SOAK_S}s", "--max-failed", MOST_FAILED),
            *("--max-silent", MOST_SILENT, "--silent-after", f"{SILENT_AFTER_S:g}s"),
        )
        draft = read_draft(sim.repo, made["rollout"])
        limit = Plan.model_construct(salt=draft.salt)
        canary = sorted((one for one in sim.ids if limit.bucket(one) < draft.waves[0].buckets), key=limit.bucket)
        silent = set(canary[: round(silent_share * len(canary))]) - sim.off
        sim.set_faults(silent=silent)
        edge_sync("rollout", "approve", sim.repo, made["rollout"], "--by", "peter")
        plan = sim.plan()
        assert plan is not None
        return plan, silent


def _rows(sim: Simulation) -> list[dict[str, Any]]:
    found, after = list[dict[str, Any]](), ""
    while True:
        page = json.loads(sim.get(f"/v1/devices?limit=1000{after}"))
        found += page["devices"]
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"


def controller_times(sim: Simulation, looks: int = 5) -> dict[str, float]:
    """Return how long the controller takes for one evaluation, in ms: asking for all rows, and deciding."""
    from gallery_sync.rollouts.fleet import open_fleet
    from gallery_sync.rollouts.gates import count, decide

    fleet, ask_ms, decide_ms = open_fleet(sim.api, None), list[float](), list[float]()
    draft = read_draft(sim.repo, "release-2")
    release = published(sim.repo).release
    assert release is not None
    plan = draft.approved(release, "peter", time_now()).model_copy(update={"open_waves": 1})
    for _ in range(looks):
        began = time.perf_counter()
        rows = fleet.rows(LINE).rows
        asked = time.perf_counter()
        now = time.time()
        decide(plan, count(plan, rows, now), now)
        ask_ms.append(1000 * (asked - began))
        decide_ms.append(1000 * (time.perf_counter() - asked))
    return {
        "rows": len(rows),
        "ask_ms": round(statistics.median(ask_ms), 1),
        "decide_ms": round(statistics.median(decide_ms), 1),
    }


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the report, without machine and date."""
    with Simulation(folder, arguments.devices, arguments.processes, TIMES) as sim:
        away = set(sim.ids[7::50])
        story = Story(sim)
        story.come_up(away)
        sim.control()
        story.bad_release()
        story.good_release()
        story.rest(arguments.rest)
        memory = {
            "broker_resident_mib": round(resident_mib(sim.broker.pid), 1),
            "collector_resident_mib": round(resident_mib(sim.collector.pid), 1),
            "collector_database_bytes": sum(path.stat().st_size for path in folder.glob("fleet.sqlite*")),
            "controller": controller_times(sim),
            "connections": broker_counts(sim.broker, MONITOR)["clients/connected"],
        }
    measured = {**story.facts, **memory}
    derived = derive(measured, arguments.devices)
    return {"devices": arguments.devices, "compressed": compressed(), "measured": measured, "derived": derived}


def compressed() -> dict[str, Any]:
    """Return which times are shorter than in practice."""
    return {
        "poll_s": [TIMES["poll_s"], 60],
        "report_s": [TIMES["report_s"], "300 by default; 3600 where a report an hour is enough"],
        "proof_s": [TIMES["proof_s"], "some seconds; minutes where an engine is built"],
        "trial_s": [TIMES["trial_s"], 300],
        "soak_s": [SOAK_S, 3600],
        "silent_after_s": [SILENT_AFTER_S, 3600],
        "note": "first what was used here, then what is usual",
    }


def derive(measured: dict[str, Any], devices: int) -> dict[str, Any]:
    """Compute what follows for 100,000 devices: each number is one that was measured, times a frequency."""
    rest, good, first = measured["nothing happens"], measured["good release"], measured["first release"]
    per_report_s = rest["collector_cpu_s"] / max(1, rest["reports"])
    report_bytes = rest["broker_bytes_received"] / max(1, rest["reports"])
    poll_bytes = (rest["repository_bytes_sent"] + rest["repository_bytes_received"]) / max(
        1, rest["repository_requests"]
    )
    here, rows = first["devices"], measured["controller"]["rows"]
    ask_and_decide_s = (measured["controller"]["ask_ms"] + measured["controller"]["decide_ms"]) / 1000
    broker_kib = 1024 * measured["broker_resident_mib"] / max(1, measured["connections"])
    return {
        "per_device": {
            "reports_of_a_release": round(good["reports"] / here, 1),
            "repository_requests_of_a_rollout": round(good["repository_requests"] / here, 1),
            "repository_bytes_of_a_rollout": round(good["repository_bytes_sent"] / here),
            "broker_bytes_of_a_rollout": round((good["broker_bytes_received"] + good["broker_bytes_sent"]) / here),
            "repository_bytes_of_a_poll": round(poll_bytes),
            "broker_bytes_of_a_report_in_and_out": round(
                (rest["broker_bytes_received"] + rest["broker_bytes_sent"]) / max(1, rest["reports"])
            ),
            "broker_memory_kib": round(broker_kib, 1),
        },
        "collector_cpu_s_per_1000_reports": round(1000 * per_report_s, 2),
        "collector_cpu_s_per_1000_reports_under_load": round(1000 * good["collector_cpu_s"] / good["reports"], 2),
        "collector_cpu_ms_per_device_hour_at_hourly_reports": round(1000 * per_report_s, 3),
        "broker_cpu_s_per_1000_reports": round(1000 * rest["broker_cpu_s"] / max(1, rest["reports"]), 2),
        "for_100000_devices": {
            "reports_per_s_hourly": round(100_000 / 3600, 1),
            "collector_cores_hourly": round(100_000 / 3600 * per_report_s, 3),
            "reports_per_s_every_300_s": round(100_000 / 300, 1),
            "collector_cores_every_300_s": round(100_000 / 300 * per_report_s, 2),
            "broker_mbit_per_s_in_every_300_s": round(100_000 / 300 * report_bytes * 8 / 1e6, 2),
            "broker_memory_mib": round(100_000 * broker_kib / 1024),
            "polls_per_s_every_60_s": round(100_000 / 60),
            "repository_mbit_per_s_every_60_s": round(100_000 / 60 * poll_bytes * 8 / 1e6, 1),
            "controller_s_per_look": round(ask_and_decide_s * 100_000 / max(1, rows), 1),
        },
        "from": f"{devices} simulated devices",
    }


def main() -> None:
    """Run the simulation, print, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2, help="that the simulated devices share")
    parser.add_argument("--rest", type=float, default=120.0, help="seconds in which nothing happens")
    parser.add_argument("--keep", type=Path, help="use this folder, and keep it")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/fleet_simulation.json")
    arguments = parser.parse_args()
    from benchmarks import rig

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the broker inherits it
    with tempfile.TemporaryDirectory(prefix="fleet-simulation-", dir=arguments.keep) as folder:
        report = measure(Path(folder), arguments) | {"load_1_min": os.getloadavg()[0]}
    rig.write_report(report, arguments.out)


if __name__ == "__main__":
    main()
