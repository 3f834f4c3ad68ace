"""Kill installations, activations and roll-backs at random moments: `python -m tests.torture.kill_switch`.

After each kill the pointer must name a whole pair, without help, and the same command must then succeed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from edge.bundle import slots
from edge.bundle.active_pointer import read_active_pointer
from tests.torture.damage_state import make_state

VERBS = ("install", "activate", "rollback")


def command_of(verb: str, state_dir: Path, work: Path) -> list[str]:
    """Return the command line that does it."""
    arguments = [str(work / "third")] if verb == "install" else []
    return [sys.executable, "-m", "edge", "bundle", verb, *arguments, "--state-dir", str(state_dir)]


def prepare(verb: str, good: Path, state_dir: Path) -> None:
    """Fill the state folder so that the command has something to do."""
    shutil.rmtree(state_dir, ignore_errors=True)
    shutil.copytree(good, state_dir)
    if verb == "activate":
        before = read_active_pointer(state_dir).previous
        slots.stage(state_dir, before.slot, before.gallery)


def main() -> int:
    """Kill and check; print how many commands were killed before they ended; return 1 if a state was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw, outcomes = random.Random(arguments.seed), Counter()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        good, state_dir = work / "good", work / "state"
        make_state(good, work)
        shutil.copytree(work / "bundle", work / "third")
        manifest = work / "third" / "bundle.json"
        manifest.write_text(manifest.read_text().replace('"demo-2"', '"demo-3"'))
        for verb in VERBS:
            command = command_of(verb, state_dir, work)
            prepare(verb, good, state_dir)
            started = time.monotonic()
            subprocess.run(command, check=True, capture_output=True)
            whole_s = time.monotonic() - started
            for _ in range(arguments.kills):
                prepare(verb, good, state_dir)
                outcome = kill_once(command, draw.uniform(0.2 * whole_s, whole_s), state_dir)
                outcomes[f"{verb}: {outcome}"] += 1
    print(dict(outcomes))
    return 1 if any("wrong" in outcome for outcome in outcomes) else 0


def kill_once(command: list[str], delay_s: float, state_dir: Path) -> str:
    """Run a command, kill it after a delay, and check the state folder."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            process.wait(delay_s)
            outcome = "ended before"
        except subprocess.TimeoutExpired:
            process.kill()
            outcome = "killed"
    active = slots.read_active(state_dir)[0].manifest.bundle_id  # raises if it is not whole
    before = read_active_pointer(state_dir).previous
    if {active, before.bundle_id} != {"demo-1", "demo-2"}:
        return f"wrong: {active} after {before.bundle_id}"
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    return outcome if again.returncode == 0 else f"wrong: {again.stderr}"


if __name__ == "__main__":
    sys.exit(main())
