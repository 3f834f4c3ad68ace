"""P1: SIGKILL after each store. P3: state files damaged, singly and in pairs. `tests.torture.kill_agent` does more."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from edge.bundle.active_pointer import read_active_pointer
from gallery_sync.agent.machine import State
from tests.file_damage import DAMAGES, empty, remove, scramble, truncate
from tests.gallery_sync.agent.samples import Device, copy_device, make_repository, start_agent

ROOT = Path(__file__).parents[3]
FILES = ("current", "current.copy", "journal.sqlite", "agent.json", "staged", "vital_signs.json", "starts.json")


def test_p1_p4_kills_after_each_store_of_a_good_and_of_a_bad_release():
    command = [sys.executable, "-m", "tests.torture.kill_agent", "--stores"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "0 unhealthy" in done.stdout


@pytest.fixture(scope="module")
def on_trial(tmp_path_factory):
    """A device in the middle of a trial."""
    folder = tmp_path_factory.mktemp("on-trial")
    make_repository(folder)
    device = start_agent(folder)
    while device.agent.task.state is not State.TRIAL:
        device.agent.turn()
    device.journal.close()
    return folder


def converge(folder: Path) -> Device:
    """Start an agent, and let it come to rest."""
    device = start_agent(folder)
    for _ in range(100):
        device.clock.sleep(device.agent.turn())
        if device.agent.task.state is State.IDLE and device.clock.now_s > 1_800_000_100:
            break
    return device


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", FILES[:5])
def test_p3_one_damaged_file(on_trial, tmp_path, name, damage):
    copy_device(on_trial, tmp_path)
    path = tmp_path / "device" / name
    if not path.exists():
        path.write_text("{}")
    damage(path)
    device = converge(tmp_path)
    assert device.serving() == "bundle-2"


@pytest.mark.parametrize("pair", list(itertools.combinations(FILES, 2)), ids="+".join)
def test_p3_two_damaged_files(on_trial, tmp_path, pair):
    """Whatever two files are lost, the device serves a whole pair that was proved, and takes the release again."""
    copy_device(on_trial, tmp_path)
    for name, damage in zip(pair, (empty, scramble), strict=True):
        path = tmp_path / "device" / name
        if not path.exists():
            path.write_text("{}")
        damage(path)
    if set(pair) == {"current", "current.copy"}:
        repair(tmp_path)
    assert converge(tmp_path).serving() == "bundle-2"


def repair(folder: Path) -> None:
    """Write the pointer again, as `edge run` does when it starts."""
    from edge.bundle.active_pointer import repair_active_pointer
    from edge.bundle.pairs import whole_pair

    pair = whole_pair(folder / "device")
    assert pair is not None
    repair_active_pointer(folder / "device", pair.pointer())


@pytest.mark.parametrize("damage", [truncate, empty, scramble, remove], ids=lambda damage: damage.__name__)
def test_p3_lost_journal_keeps_what_is_held(tmp_path, damage):
    """The quarantine comes back from the report."""
    from gallery_sync.agent.report import read_held

    make_repository(tmp_path)
    device = start_agent(tmp_path)
    device.steps.edge.fps = 1.0
    device.run()
    assert device.outcomes() == [(2, "rolled back")]
    device.journal.close()
    damage(tmp_path / "device/journal.sqlite")
    again = start_agent(tmp_path)
    assert again.journal.is_empty
    assert [held.sequence for held in read_held(tmp_path / "device")] == [2]
    again.journal.hold(read_held(tmp_path / "device"))
    again.run()
    assert "switch" not in again.steps.calls
    assert read_active_pointer(tmp_path / "device").bundle_id == "bundle-1"  # type: ignore[union-attr]


def test_s3_rot_in_the_slot_before_leaves_the_trial_pair(tmp_path):
    make_repository(tmp_path)
    device = start_agent(tmp_path)
    device.steps.edge.fps = 1.0
    while device.agent.task.state is not State.TRIAL:
        device.agent.turn()
    scramble(tmp_path / "device/slots/a/models/tyre.onnx")
    device.run()
    assert device.outcomes() == [(2, "kept")]
    assert device.serving() == "bundle-2"


def test_s2_read_only_disk_is_told_and_waited_for(tmp_path, monkeypatch):
    make_repository(tmp_path)
    device = start_agent(tmp_path)
    device.journal.full = 3
    device.run()
    assert device.serving() == "bundle-1"
    device.clock.sleep(600)
    device.run()
    device.run()
    device.run()
    assert device.serving() == "bundle-2"
