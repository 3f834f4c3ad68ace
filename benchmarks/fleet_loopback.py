"""A fleet of real devices on one machine: `edge run` and `edge-sync agent` each, with everything around them.

    python benchmarks/fleet_loopback.py [--devices 40] [--outage 60]

Real processes: a static web server, mosquitto, `edge-sync fleet serve`, `edge-sync rollout run`, and for each device
`edge run` with a small camera and `edge-sync agent`. tests/fleet_story.py is what happens:

1. All take the first release: fetch, proof in a child process, switch, trial, confirmation.
2. A release whose pair passes its proof and recognises nothing: it stops at the canary (5 %), and the devices go back
   by themselves. Its rollout is aborted.
3. A release whose golden probes fail: likewise, before anything serves.
4. A good release goes from the canary to all. The broker is killed for a minute, then the repository cannot be reached
   for a minute. One device has no power all the time, and converges when it comes back.

After each part, the row of each device in the fleet's server must agree with the device's own disk.

Writes benchmarks/results/fleet_loopback.json.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.fleet_samples import Fleet, Pace, cpu_s, resident_mib  # noqa: E402
from tests.fleet_story import Story  # noqa: E402

CANARY, SOAK_S = 5.0, 10.0  # percent, seconds
PACE = Pace(poll_s=10.0, trial_s=20.0, look_s=1.0, report_s=60.0, silent_after_s=300.0, fps=4, answers=6)
PATIENCE_S = 900.0  # of one step: all devices prove a release on two cores


def measure(folder: Path, devices: int, outage_s: float) -> dict[str, Any]:
    """Return the report, without machine and date."""
    with Fleet(folder, devices, PACE) as fleet:
        story = Story(fleet, CANARY, 2, SOAK_S, PATIENCE_S, say=lambda text: print(text, flush=True))
        story.begin()
        story.bad("blind", "bad release, found by the trial", "rolled back")
        story.bad("probes", "bad release, found by the proof", "refused")
        story.good(outage_s)
        return {"devices": devices, "pace": PACE.__dict__, "soak_s": SOAK_S, **story.facts, "each": each(fleet)}


def each(fleet: Fleet) -> dict[str, Any]:
    """Return what the processes of a device take."""
    agents = [one.agent.pid for one in fleet.devices if one.agent is not None]
    runs = [one.edge.pid for one in fleet.devices if one.edge is not None]
    assert fleet.collector is not None
    return {
        "restarts": dict(fleet.restarts),
        "agent_mib": round(sum(map(resident_mib, agents)) / len(agents), 1),
        "edge_run_mib": round(sum(map(resident_mib, runs)) / len(runs), 1),
        "agent_cpu_s_so_far": round(sum(map(cpu_s, agents)) / len(agents), 1),
        "edge_run_cpu_s_so_far": round(sum(map(cpu_s, runs)) / len(runs), 1),
        "collector_mib": round(resident_mib(fleet.collector.pid), 1),
        "broker_mib": round(resident_mib(fleet.broker.pid), 1),
    }


def main() -> None:
    """Run the fleet, print, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=40)
    parser.add_argument("--outage", type=float, default=60.0, help="seconds without broker, then without repository")
    parser.add_argument("--keep", type=Path, help="use this folder, and keep it")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/fleet_loopback.json")
    arguments = parser.parse_args()
    from benchmarks import rig

    with tempfile.TemporaryDirectory(prefix="fleet-loopback-", dir=arguments.keep) as folder:
        report = measure(Path(folder), arguments.devices, arguments.outage) | {"load_1_min": os.getloadavg()[0]}
    rig.write_report(report, arguments.out)


if __name__ == "__main__":
    main()
