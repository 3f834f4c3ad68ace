"""How many devices one server of a fleet can hold: reports a second, size of the database, time of the API's answers.

    python benchmarks/fleet_collector.py [--devices 100000] [--rounds 15]
    python benchmarks/fleet_collector.py --look-only --keep /dev/shm      # replaces `look` in the report that is there

Reports of a usual size (`report_bytes`) go through the parts of `edge-sync fleet serve` in one process, without a
broker: the bounded inflow, the writer with its transactions, which are flushed to the disk, and the HTTP server.

* Ingest: reports a second, and processor time of the process for 1000 of them. `first`: of devices that are not known
  yet; `changed`: another state, and a try more; `repeated`: what a broker sends again after a connection was lost. The
  aim is far above 28 reports a second: 100,000 devices that report once an hour.
* Database: bytes after the first reports, and after the changed ones.
* Answers: milliseconds of a request over HTTP on loopback, with 2,000 and with all devices: pages from the beginning,
  the middle, and of what few devices have; counts of all devices. The aim for a page is 200 ms.
* Look: how long `edge-sync rollout run` takes to ask for devices and to decide, and the processor time of that, the
  server's share included. `canary`: while a wave of 5 % is open; `narrow`: while the last wave is open, with all
  devices; `whole`: with all devices and whole reports, as `edge-sync devices` reads them.

Other work on the machine (`load_1_min`) lengthens all of it. Writes benchmarks/results/fleet_collector.json.
"""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

FEW = 2_000
NOW = time.time()
TARGETS = {"reports_per_s": 28.0, "page_ms": 200.0}


def main() -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=15, help="requests of each kind")
    parser.add_argument("--keep", type=Path, help="make the database in this folder")
    parser.add_argument("--look-only", action="store_true", help="measure the look alone; the rest of the report stays")
    arguments = parser.parse_args()
    from benchmarks import rig

    logging.disable(logging.ERROR)
    out = ROOT / "benchmarks/results/fleet_collector.json"
    with tempfile.TemporaryDirectory(prefix="fleet-collector-", dir=arguments.keep) as folder:
        if arguments.look_only:
            report = json.loads(out.read_text()) | {"look": measure_look(Path(folder), arguments.devices)}
            print(json.dumps(report["look"], indent=1))
            out.write_text(json.dumps(report, indent=1) + "\n")  # date and machine are those of the rest
            return
        report = measure(Path(folder), arguments.devices, arguments.rounds) | {"load_1_min": os.getloadavg()[0]}
    rig.write_report(report, out)


def measure_look(folder: Path, devices: int) -> dict[str, Any]:
    """Return the part `look` of the report."""
    with serving(folder) as fleet:
        for first in range(0, devices, FEW):
            fleet.ingest(reports(range(first, min(first + FEW, devices)), 1))
        return looks(fleet)


def looks(fleet: Fleet) -> dict[str, Any]:
    """Return how long each kind of look takes, when that was, and the load of the machine meanwhile."""
    from gallery_sync.command_line import utc_now

    found = {"canary": fleet.look(500), "narrow": fleet.look(), "whole": fleet.look(whole=True)}
    return found | {"date": utc_now().date().isoformat(), "load_1_min": round(os.getloadavg()[0], 1)}


def measure(folder: Path, devices: int, rounds: int) -> dict[str, Any]:
    """Return the report, without machine and date."""
    answers: dict[str, Any] = {}
    with serving(folder) as fleet:
        first = fleet.ingest(reports(range(FEW), 1))
        answers[str(FEW)] = fleet.ask(FEW, rounds)
        rest = fleet.ingest(reports(range(FEW, devices), 1))
        size = fleet.size()
        answers[str(devices)] = fleet.ask(devices, rounds)
        look = looks(fleet)
        changed = fleet.ingest(reports(range(0, devices, 5), 2))
        return {
            "devices": devices,
            "report_bytes": len(report(1, 1)),
            "targets": TARGETS,
            "ingest": {
                "first": {**rest, "reports": rest["reports"] + first["reports"]},
                "changed": changed,
                "repeated": fleet.ingest(reports(range(1, devices, 5), 1)),
            },
            "database": {"bytes_after_first": size, "bytes_after_changed": fleet.size()},
            "answers_ms": answers,
            "look": look,
        }


def report(number: int, revision: int) -> bytes:
    """Return a report of a usual size."""
    running = {"line": "shop", "release": 41, "bundle_id": "shop-2026-11-20", "gallery_sequence": 118, "slot": "b"}
    tries = [
        {
            "release": release,
            "bundle_id": "shop-2026-11-20",
            "gallery_sequence": 118,
            "outcome": "confirmed",
            "trial": f"{release:08x}",
            "plan": f"plan-{release}",
            "at": NOW - 86_400 * (42 - release),
        }
        for release in range(40 + revision, 35, -1)
    ]
    return json.dumps(
        {
            "schema": "finesight.reported/1",
            "device": f"cam-{number:06d}",
            "line": "shop",
            "labels": {"site": f"site-{number % 500}", "group": f"group-{number % 20}", "rack": str(number % 7)},
            "site": f"site-{number % 500}",
            "epoch": "0123456789abcdef",
            "revision": revision,
            "at": NOW,
            "state": "trial" if number % 5000 == 0 else ("idle", "fetch")[revision - 1],
            "running": running,
            "serves": True,
            "tries": tries,
            "engine": "onnxruntime",
            "cameras": {f"camera-{one}": "online" for one in range(4)},
            "fps": 9.97,
            "versions": {"finesight": "0.9", "python": "3.11.7"},
            "counters": {f"counter_{one}": one * 1000 for one in range(12)},
            "allowed": ["sync", "restart_camera"],
        }
    ).encode()


def reports(numbers: range, revision: int) -> Iterator[tuple[str, bytes]]:
    """Yield device ids and reports."""
    for number in numbers:
        yield f"cam-{number:06d}", report(number, revision)


class Fleet:
    """The parts of a server, and a client."""

    def __init__(self, folder: Path) -> None:
        from edge.telemetry.counters import Counters
        from gallery_sync.collector.commands import Commands
        from gallery_sync.collector.database import Database
        from gallery_sync.collector.inflow import Inflow
        from gallery_sync.collector.server import FleetServer, Listen, Parts
        from gallery_sync.collector.writer import Writer

        self.counters = Counters()
        self.database = Database(folder / "fleet.sqlite")
        self.inflow = Inflow(self.counters)
        self.writer = Writer(self.database, self.inflow, self.counters, keep_s=86_400.0)
        link: Any = None
        commands = Commands(self.database, self.writer, link)
        parts = Parts(self.database, self.inflow, link, commands, self.counters)
        self.server = FleetServer(parts, Listen(port=0))

    def ingest(self, messages: Iterator[tuple[str, bytes]]) -> dict[str, Any]:
        """Let reports come in as fast as they are stored; return how fast that was."""
        from gallery_sync.collector.messages import Arrived

        ready = [Arrived(device, "reported", payload, NOW) for device, payload in messages]
        before = self.counters.total("reports")
        started, used = time.monotonic(), time.process_time()
        for message in ready:
            self.inflow.put(message)
        while self.counters.total("reports") < before + len(ready):
            time.sleep(0.005)
        took, used = time.monotonic() - started, time.process_time() - used
        return {
            "reports": len(ready),
            "reports_per_s": round(len(ready) / took),
            "cpu_s_per_1000": round(used / len(ready) * 1000, 3),
        }

    def size(self) -> int:
        """Return the bytes of the database, all merged into its file."""
        self.writer.call(lambda _: None)
        with closing(self.database._connect(self.database.path)) as connection:  # noqa: SLF001  no other user of it
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return self.database.path.stat().st_size

    def look(self, buckets: int = 10_000, *, whole: bool = False) -> dict[str, Any]:
        """Return how long a look of the controller takes while a wave with so many of 10,000 buckets is open."""
        from gallery_sync.formats.documents import Release
        from gallery_sync.formats.rollouts import Plan, Wave
        from gallery_sync.rollouts.fleet import open_fleet
        from gallery_sync.rollouts.gates import count, decide

        release = Release(
            line="shop", sequence=42, created_at="", bundle_id="shop-2", bundle_head="0" * 64, gallery_sequence=119
        )
        plan = Plan(
            id="p", release=release, salt="0" * 16, waves=[Wave(buckets=buckets)], open_waves=1,
            planned_by="a", planned_at="", approved_by="b", approved_at="2026-01-01T00:00:00Z",
        )  # fmt: skip
        door = open_fleet(f"http://127.0.0.1:{self.server.port}", None)
        started, used = time.monotonic(), time.process_time()
        about, within = (None, None) if whole else (release, plan.open_buckets())
        rows = door.rows("shop", about, within).rows
        decide(plan, count(plan, rows, NOW), NOW)
        took, used = time.monotonic() - started, time.process_time() - used
        return {"devices": len(rows), "s": round(took, 2), "cpu_s": round(used, 2)}

    def ask(self, devices: int, rounds: int) -> dict[str, Any]:
        """Return how long answers take."""
        from benchmarks.rig import summary

        middle = f"cam-{devices // 2:06d}"
        paths = {
            "page of 200": "/v1/devices?line=shop",
            "page of 1000": f"/v1/devices?limit=1000&after={middle}",
            "page of a group": f"/v1/devices?group=group-7&after={middle}",
            "page of a site and a rack": "/v1/devices?label=site=site-44&label=rack=2",
            "page of a rare state": "/v1/devices?state=trial",
            "page of silent devices, none": "/v1/devices?silent_s=100000",
            "one device": f"/v1/devices/{middle}",
            "summary": "/v1/summary",
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        found = {}
        for name, path in paths.items():
            times = []
            for _ in range(rounds):
                started = time.monotonic()
                connection.request("GET", path)
                response = connection.getresponse()
                body = response.read()
                times.append((time.monotonic() - started) * 1000)
                assert response.status == 200, body
            found[name] = {**summary(times), "worst_ms": round(max(times), 1), "bytes": len(body)}
        connection.close()
        return found


@contextmanager
def serving(folder: Path) -> Iterator[Fleet]:
    """Run a server."""
    fleet = Fleet(folder)
    run: Callable[[], None] = fleet.writer.run
    writing = threading.Thread(target=run)
    writing.start()
    try:
        with fleet.server:
            yield fleet
    finally:
        fleet.writer.stop()
        writing.join()
        fleet.database.close()


if __name__ == "__main__":
    main()
