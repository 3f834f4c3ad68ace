"""A real `edge run` comes up on a damaged, empty or read-only state folder, and says what it serves."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.bundle.active_pointer import read_active_pointer
from edge.bundle.install import install_bundle
from tests.integration.mosquitto import free_port
from tests.torture.damage_state import make_state, write_device
from tests.waiting import DEADLINE_S, until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """The folder of a device: `state` with two pairs, and device.yaml with a health server."""
    make_state(tmp_path / "state", tmp_path)
    config = json.loads(write_device(tmp_path, tmp_path / "state").read_text())
    (tmp_path / "device.yaml").write_text(json.dumps(config | {"health": {"port": free_port()}}))
    return tmp_path


@contextmanager
def running(device: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "edge", "run", "-c", str(device / "device.yaml"), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def status_when(device: Path, enough: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The answer of /status once it is enough."""
    port = json.loads((device / "device.yaml").read_text())["health"]["port"]
    url = f"http://127.0.0.1:{port}/status"

    def status() -> dict[str, Any] | None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=60) as answer:
            found = json.loads(answer.read())
            return found if enough(found) else None
        return None

    return until(status, "the status")


def stopped(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=DEADLINE_S)
    return process.returncode


def test_damaged_active_pair_falls_back_and_returns_when_repaired(device):
    active = read_active_pointer(device / "state")
    model = min((device / "state/slots" / active.slot / "models").iterdir())
    model.unlink()
    with running(device) as process:
        status = status_when(device, lambda status: "fallback" in status)
        assert (status["state"], status["versions"]["bundle"]) == ("degraded", "demo-1")
        assert model.name in status["fallback"]
        assert install_bundle(device / "bundle", device / "state") == active.slot
        status = status_when(device, lambda status: status["fallback"] is None)
        assert (status["state"], status["versions"]["bundle"]) == ("running", "demo-2")
        assert stopped(process) == 0


def test_stop_of_a_device_that_fell_back_ends_with_its_own_status(device):
    shutil.rmtree(device / "state/slots" / read_active_pointer(device / "state").slot)
    command = [sys.executable, "-m", "edge", "run", "-c", str(device / "device.yaml"), "--until-end"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 3
    assert "using bundle demo-1 in slot a" in done.stderr


def test_device_without_a_bundle_waits_for_one_with_safe(device):
    (device / "state").rename(device / "aside")
    with running(device, "--safe") as process:
        status = status_when(device, lambda status: "waiting_for" in status)
        assert (status["state"], "no bundle is active" in status["waiting_for"]) == ("starting", True)
        shutil.copytree(device / "aside", device / "state", dirs_exist_ok=True)
        status_when(device, lambda status: status["state"] == "running" and status["versions"]["bundle"] == "demo-2")
        assert stopped(process) == 0


def test_device_that_waits_for_a_bundle_can_be_stopped(device):
    shutil.rmtree(device / "state")
    with running(device, "--safe") as process:
        status_when(device, lambda status: "waiting_for" in status)
        assert stopped(process) == 0


@pytest.mark.parametrize("kiosk", [False, True])
def test_read_only_disk_does_not_stop_the_device(device, kiosk):
    config = json.loads((device / "device.yaml").read_text())
    disk = device / "disk"
    disk.mkdir()
    config |= {"state_dir": str(disk / "state")} | (
        {"kiosk": {"camera": "shelf", "port": free_port()}} if kiosk else {}
    )
    (device / "device.yaml").write_text(json.dumps(config))
    script = (
        f"mount -t tmpfs tmpfs {disk} && cp -r {device}/state {disk} && mount -o remount,ro {disk} && "
        f"exec {sys.executable} -m edge run -c {device}/device.yaml --until-end"
    )
    allowed = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    if allowed.returncode != 0:
        pytest.skip(f"this machine does not allow name spaces: {allowed.stderr.decode().strip()}")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "ready: bundle demo-2" in done.stderr
    assert "Read-only file system; messages wait in memory" in done.stderr
    assert done.returncode == 0


def test_device_stops_cleanly_at_any_moment():
    command = [sys.executable, "-m", "tests.torture.stop_device", "--stops", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
