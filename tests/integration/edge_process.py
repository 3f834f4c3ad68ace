"""A device that runs as a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def running_edge(config: Path, secret: str) -> Iterator[None]:
    """Run a device until the block ends; then it must stop by itself, with neither a traceback nor a secret in its log.

    Args:
        config: the device's configuration file.
        secret: a text of it that must stay in it.
    """
    command = [sys.executable, "-m", "edge", "run", "-c", config]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            log = process.communicate(timeout=60)[1]
    assert process.returncode == 0, log
    assert "Traceback" not in log, log
    assert secret not in log
