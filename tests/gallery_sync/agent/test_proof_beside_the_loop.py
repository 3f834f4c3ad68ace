"""A proof takes hours on some devices: the agent goes on to look for urgent deletions meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest

from edge.bundle import slots
from edge.bundle.active_pointer import ActivePointer, read_staged_pointer, write_staged_pointer
from edge.bundle.install import install_gallery
from edge.errors import BundleError
from gallery_sync.agent.doors import Erased
from gallery_sync.agent.journal import Receipt
from gallery_sync.agent.machine import State
from gallery_sync.agent.policy import Policy
from tests.gallery_sync.agent.samples import QUICK, START, THREE, Device, start_agent

CHANGED = Erased((Receipt("tyre", 7, 2, START),), changed=True)


@pytest.fixture
def device(folder) -> Iterator[Device]:
    """A device in the middle of a proof."""
    device = start_agent(folder)
    device.steps.may_end.clear()
    device.steps.moment_s = 0.0
    prove(device)
    yield device
    device.steps.may_end.set()


def prove(device: Device) -> None:
    """Come to the proof, and begin it."""
    while not device.steps.tried:
        device.agent.turn()


def end(device: Device) -> None:
    """Let the proof end, and follow what comes of it."""
    device.steps.may_end.set()
    device.steps.moment_s = 10.0
    device.run()


def erase_staged(device: Device) -> ActivePointer:
    """Replace the staged gallery, as an urgent deletion does."""
    staged = read_staged_pointer(device.state_dir)
    assert staged is not None
    generation = install_gallery(device.folder / "gallery-3", device.state_dir)
    changed = staged.model_copy(update={"gallery": generation})
    write_staged_pointer(device.state_dir, changed)
    return changed


def poll(device: Device) -> None:
    device.clock.sleep(QUICK.poll_s)
    device.steps.calls.clear()
    assert device.agent.turn() == 0


def test_checks_go_on_during_a_proof_which_is_told(device):
    poll(device)
    assert device.steps.calls == ["unchanged", "read", "erase", "prove"]
    assert device.agent.task.state is State.PROVE
    assert "in a child process" in json.loads((device.state_dir / "agent.json").read_bytes())["reason"]
    end(device)
    assert (device.serving(), len(device.steps.tried)) == ("bundle-2", 1)


def test_proof_is_one_store_however_long_it_takes(device):
    stores = device.agent.task.stores
    for _ in range(100):
        poll(device)
    assert device.agent.task.stores == stores


def test_urgent_deletion_during_a_proof_is_receipted_at_once(device):
    device.steps.erased = [CHANGED]
    poll(device)
    assert [one.sequence for one in device.journal.receipts()] == [7]
    assert device.agent.task.state is State.PROVE


def test_staged_gallery_that_changed_is_proved_again_and_served(device):
    changed = erase_staged(device)
    end(device)
    assert device.steps.tried[1:] == [changed.gallery]
    assert (device.serving(), device.steps.calls.count("stage")) == ("bundle-2", 1)
    assert slots.read_active(device.state_dir)[1].generation == changed.gallery


def test_failure_of_a_gallery_that_is_gone_holds_no_release(device):
    device.steps.proof_fails = [BundleError("the gallery is gone")]
    erase_staged(device)
    end(device)
    assert device.outcomes() == [(2, "confirmed")]


def test_failure_of_what_is_staged_holds_the_release(device):
    device.steps.proof_fails = [BundleError("probe 3 failed")]
    end(device)
    assert device.outcomes() == [(2, "refused")]
    assert device.serving() == "bundle-1"


def test_f6_newer_release_during_a_proof_is_taken_after_it(device):
    device.steps.wanted = THREE
    poll(device)
    assert device.agent.task.state is State.PROVE
    end(device)
    assert device.outcomes() == [(3, "confirmed")]
    assert device.steps.calls.count("switch") == 1


def test_p1_agent_that_restarts_during_a_proof_begins_it_again(device):
    device.journal.close()
    again = start_agent(device.folder)
    again.run()
    assert (again.serving(), len(again.steps.tried)) == ("bundle-2", 1)


def test_window_that_closes_lets_the_proof_go_on(folder):
    policy = Policy.model_validate(QUICK.model_dump() | {"install": {"windows": ["11:00-13:00"]}})
    device = start_agent(folder, policy)
    device.steps.may_end.clear()
    device.steps.moment_s = 0.0
    prove(device)
    device.steps.local = datetime(2026, 11, 28, 13, 30, tzinfo=timezone.utc)
    poll(device)
    end(device)
    assert (device.agent.task.state, len(device.steps.tried)) == (State.ARMED, 1)


def test_unexpected_error_of_a_proof_is_told_and_tried_again(device):
    device.steps.proof_fails = [ZeroDivisionError("a bug")]
    device.steps.may_end.set()
    device.steps.moment_s = 10.0
    assert device.agent.turn() > 0
    assert "a bug" in json.loads((device.state_dir / "agent.json").read_bytes())["reason"]
    device.run()
    assert device.serving() == "bundle-2"
