"""Stop a device at random moments: `python -m tests.torture.stop_device`.

Half of the stops fall into the start, the others into the time in which it loads a newly activated pair.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from edge.bundle import slots
from edge.bundle.active_pointer import read_active_pointer
from tests.torture.damage_state import make_state, write_device

_LONGEST_START_S = 3.0


def stop_after(config: Path, delay_s: float, *, swap: bool) -> tuple[int, float, str]:
    """Start a device and stop it after a delay; return its exit status, the seconds it took to end, and its log.

    With `swap`, the delay counts from the activation of another pair, once the device runs.
    """
    command = [sys.executable, "-m", "edge", "run", "-c", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as device:
        if swap:
            for line in device.stderr:
                if "ready:" in line:
                    break
            slots.rollback(config.parent / "state")
            delay_s = 1.0 + delay_s / _LONGEST_START_S  # it looks for another pair every second
        time.sleep(delay_s)
        device.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        log = device.communicate(timeout=60)[1]
        return device.returncode, time.monotonic() - sent, log


def main() -> int:
    """Stop, and print how the processes ended; return 1 if one ended in another way than by the stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    statuses: Counter[str] = Counter()
    longest_s = 0.0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_state(work / "state", work)
        config = write_device(work, work / "state")
        for number in range(arguments.stops):
            swap = number % 2 == 1
            status, took_s, log = stop_after(config, draw.uniform(0.0, _LONGEST_START_S), swap=swap)
            if status not in (0, -signal.SIGTERM):
                print(log, flush=True)
            longest_s = max(longest_s, took_s)
            statuses[f"{'swap' if swap else 'start'}: {status}"] += 1
            assert read_active_pointer(work / "state") is not None
    print(dict(statuses), f"longest stop {longest_s:.1f} s")
    # a stop before the program has set its signal handler ends it by the signal
    good = {"start: 0", f"start: {-signal.SIGTERM}", "swap: 0"}
    return 0 if statuses.keys() <= good else 1


if __name__ == "__main__":
    sys.exit(main())
