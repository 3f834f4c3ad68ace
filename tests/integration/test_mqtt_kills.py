"""A device that is killed while it publishes loses nothing; tests/torture/kill_publisher.py does it 200 times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_no_event_is_lost_when_the_publishing_device_is_killed(tmp_path):
    command = [sys.executable, "-m", "tests.torture.kill_publisher", tmp_path, "6", "3"]
    root = Path(__file__).parents[2]
    done = subprocess.run(list(map(str, command)), cwd=root, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["lost"], report["set_aside"], report["damaged"]) == ([], 0, 0)
    assert report["arrived"] > 50, report
