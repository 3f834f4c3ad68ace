"""The agent of an enrolled device while a signed rollout is under way, with a repository on loopback."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from gallery_sync.agent.machine import State
from gallery_sync.agent.policy import Policy
from gallery_sync.cli import main
from gallery_sync.repository.publish import publish
from tests.gallery_sync.agent.test_with_a_repository import POLICY, Fleet
from tests.rollout_samples import device_in, enrol_device, pin, plan, rollouts, sign_rollouts
from tests.store_samples import make_bundle, make_gallery
from tests.sync_samples import keys_of, publish_release, published, time_now
from tests.sync_server import serving

CANARY, LATER = device_in(0), device_in(1)
WAITS = "wave 2 of 2 of rollout spring is not open yet"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A device that runs release 1, the base; release 2 is held."""
    folder = tmp_path_factory.mktemp("made")
    publish_release(folder, "one", 1, 3)
    with serving(folder / "repo") as server:
        device = Fleet(folder, server)
        device.run()
        device.agent._journal.close()
    bundle, gallery = make_bundle(folder / "two", "two", 2), make_gallery(folder / "g4", 4)
    keys = keys_of(folder / "repo")
    publish(folder / "repo", keys, time_now(), bundle_folder=bundle, gallery_folder=gallery, hold=True)
    return folder


@pytest.fixture
def fleet(made, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, symlinks=True)
    with serving(tmp_path / "repo") as server:
        yield Fleet(tmp_path, server)


def start_as(fleet: Fleet, device_id: str, policy: Policy = POLICY) -> None:
    fleet.agent._journal.close()
    enrol_device(fleet.state_dir, fleet.folder / "repo", device_id)
    fleet.agent = fleet.start(policy)


def sign_plan(fleet: Fleet, **change: Any) -> None:
    listed = published(fleet.folder / "repo").rollouts
    assert listed is not None
    two = next(one for one in listed.releases() if one.sequence == 2)
    sign_rollouts(fleet.folder / "repo", rollouts(plan=plan(two, **change)))


def test_wave_after_wave_takes_the_candidate(fleet, capsys):
    sign_plan(fleet)
    start_as(fleet, LATER)
    fleet.run()
    assert (fleet.active(), fleet.report()["waits"]) == (("one", 1), WAITS)
    fleet.agent._journal.close()
    assert main(["agent", "status", "--state-dir", str(fleet.state_dir)]) == 0
    shown = capsys.readouterr().out
    assert f"waits: {WAITS}" in shown
    assert f"labels: device={LATER}, line=demo" in shown
    fleet.agent = fleet.start()
    fleet.run()
    fleet.server.requests.clear()
    fleet.run()
    assert [path for path, *_ in fleet.server.requests] == ["metadata/timestamp.json"]
    sign_plan(fleet, open_waves=2)
    fleet.run()
    assert (fleet.active(), fleet.report()["last"]["plan"]) == (("two", 2), "spring")
    fleet.run()  # another release is active than when it was chosen
    fleet.server.requests.clear()
    fleet.run()
    assert [path for path, *_ in fleet.server.requests] == ["metadata/timestamp.json"]


def test_canary_drops_what_it_prepared_when_the_rollout_is_paused(fleet):
    sign_plan(fleet)
    start_as(fleet, CANARY, Policy.model_validate({"install": {"windows": ["Mon 00:00-00:01"]}}))
    for _ in range(20):
        if fleet.agent.task.state is State.PROVE:
            break
        fleet.sleep(fleet.agent.turn())
    assert fleet.agent.task.state is State.PROVE
    sign_plan(fleet, state="paused", reason="look at it")
    fleet.run()
    assert (fleet.active(), fleet.report()["last"]["outcome"]) == (("one", 1), "postponed")
    assert fleet.report()["reason"] == "rollout spring is paused: look at it"


def test_pinned_device_stays_and_takes_the_release_when_it_is_unpinned(fleet):
    sign_plan(fleet)
    listed = published(fleet.folder / "repo").rollouts
    assert listed is not None
    repo = fleet.folder / "repo"
    one = published(repo).release
    assert one is not None
    sign_rollouts(repo, listed.model_copy(update={"pins": [pin(f"device={CANARY}", one)]}))
    start_as(fleet, CANARY)
    fleet.run()
    assert (fleet.active(), fleet.report()["waits"]) == (("one", 1), "pinned at release 1")
    sign_rollouts(repo, listed)
    fleet.run()
    assert fleet.active() == ("two", 2)


def test_candidate_that_this_device_must_not_run_is_refused(fleet):
    from gallery_sync.device.security_floor import raise_security_floor

    sign_plan(fleet)
    start_as(fleet, CANARY)
    raise_security_floor(fleet.state_dir, "demo", 9)
    fleet.run()
    assert fleet.active() == ("one", 1)
    refusal = fleet.agent._repository_check.known.refusal
    assert refusal is not None
    assert refusal.release is not None
    assert (refusal.release.sequence, refusal.release.plan) == (2, "spring")
