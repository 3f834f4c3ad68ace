"""What a device pulls while a rollout is under way: the rollouts are signed, the devices have ids and labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edge.bundle import slots
from edge.errors import SyncError
from gallery_sync.cli import main
from gallery_sync.device.pull import PullResult, pull
from gallery_sync.device.wanted import RefusedError
from gallery_sync.formats.documents import Release
from gallery_sync.gallery_log.records import Delete
from gallery_sync.repository.publish import publish, publish_gallery_change
from gallery_sync.repository.releases import rollback
from gallery_sync.transport.repository_files import FolderTransport
from tests.rollout_samples import device_in, enrol_device, group, pin, plan, release, rollouts, sign_rollouts
from tests.store_samples import SPACE, make_bundle, make_gallery, trusted
from tests.sync_samples import active, keys_of, publish_release, published, pull_folder, time_now

CANARY, LATER = device_in(0), device_in(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A repository whose base is release 1, with release 2 held; and a device that runs release 1."""
    folder = tmp_path_factory.mktemp("made")
    publish_release(folder, "one", 1, 3)
    pull_folder(folder / "repo", folder / "device")
    slots.activate(folder / "device", prove=trusted)
    bundle, gallery = make_bundle(folder / "two", "two", 2), make_gallery(folder / "g4", 4)
    keys = keys_of(folder / "repo")
    publish(folder / "repo", keys, time_now(), bundle_folder=bundle, gallery_folder=gallery, hold=True)
    return folder


@pytest.fixture
def folder(made, tmp_path) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, symlinks=True)
    return tmp_path


def candidate(folder: Path) -> Release:
    listed = published(folder / "repo").rollouts
    assert listed is not None
    return next(one for one in listed.releases() if one.sequence == 2)


def say(folder: Path, **content: Any) -> None:
    sign_rollouts(folder / "repo", rollouts(**content))


def plan_two(folder: Path, **change: Any) -> None:
    say(folder, plan=plan(candidate(folder), **change))


def take(folder: Path, device_id: str | None = CANARY, **labels: str) -> PullResult:
    """Pull as a device, and activate what was pulled."""
    device = folder / "device"
    if device_id is not None:
        enrol_device(device, folder / "repo", device_id)
    pulled = pull(FolderTransport(folder / "repo"), device, labels=labels)
    if not pulled.serving:
        slots.activate(device, prove=trusted)
    return pulled


def test_held_release_reaches_no_device(folder):
    assert (take(folder).sequence, active(folder / "device")) == (1, ("one", 3))


def test_canary_pulls_the_candidate_and_another_device_the_base(folder):
    plan_two(folder)
    shutil.copytree(folder / "device", folder / "other/device", symlinks=True)
    (folder / "other/repo").symlink_to(folder / "repo")
    assert (take(folder).sequence, active(folder / "device")) == (2, ("two", 4))
    found = take(folder / "other", LATER)
    assert (found.sequence, found.waits) == (1, "wave 2 of 2 of rollout spring is not open yet")
    assert active(folder / "other/device") == ("one", 3)


def test_opened_wave_reaches_a_device_that_had_nothing_to_do(folder):
    plan_two(folder)
    take(folder, LATER)
    assert take(folder, LATER).waits is not None  # with one request
    plan_two(folder, open_waves=2)
    assert take(folder, LATER).sequence == 2


def test_other_labels_are_another_choice_of_an_unchanged_repository(folder):
    plan_two(folder, selector={"terms": [{"key": "site", "values": ["berlin"]}]})
    assert take(folder).sequence == 1
    assert take(folder, site="berlin").sequence == 2


def test_paused_plan_keeps_those_that_have_the_candidate_and_starts_nobody(folder):
    plan_two(folder)
    shutil.copytree(folder / "device", folder / "other/device", symlinks=True)
    (folder / "other/repo").symlink_to(folder / "repo")
    take(folder)
    plan_two(folder, state="paused", reason="look at it")
    assert (take(folder).sequence, take(folder / "other").sequence) == (2, 1)
    assert active(folder / "device") == ("two", 4)
    assert take(folder / "other").waits == "rollout spring is paused: look at it"


def test_staged_candidate_of_a_paused_plan_gives_way_to_the_base(folder):
    plan_two(folder)
    enrol_device(folder / "device", folder / "repo", CANARY)
    assert pull(FolderTransport(folder / "repo"), folder / "device").sequence == 2  # staged
    plan_two(folder, state="paused")
    found = pull(FolderTransport(folder / "repo"), folder / "device")
    assert (found.sequence, found.serving) == (1, True)


def test_aborted_rollout_goes_back_without_a_download(folder):
    """The abort is a newer base with the pair of the old one."""
    plan_two(folder)
    take(folder)
    say(folder)
    publish_release(folder, "three", 3, 5)
    rollback(folder / "repo", keys_of(folder / "repo"), time_now(), "demo", 1)
    sequence = published(folder / "repo").release.sequence  # type: ignore[union-attr]
    found = take(folder)
    assert (found.sequence, active(folder / "device")) == (sequence, ("one", 3))
    assert found.downloaded_bytes < 20_000  # signed documents


def test_device_that_was_off_during_the_whole_rollout_takes_the_new_base(folder):
    plan_two(folder)
    two = candidate(folder)
    say(folder, groups=[group("", two)])
    assert take(folder, LATER).sequence == 2


def test_pinned_device_stays_and_says_why(folder):
    plan_two(folder)
    two = candidate(folder)
    take(folder)
    say(folder, plan=plan(two), pins=[pin("", release(1, bundle_id="one"))])
    found = take(folder)
    assert (found.sequence, found.serving) == (2, True)
    assert str(found.waits).startswith("pinned at release 1")


def test_device_that_is_newer_than_all_for_it_stays_without_an_error(folder):
    """Its release is signed for others alone, under another number: there is nothing for it to pull."""
    plan_two(folder)
    take(folder)
    say(folder, held=[release(3)])
    found = take(folder)
    assert (found.sequence, found.bundle_id, found.serving) == (2, "two", True)
    assert "this device stays at release 2" in str(found.waits)


def test_urgent_deletion_reaches_a_device_that_waits_or_stays(folder):
    plan_two(folder)
    take(folder, LATER)
    records = {"tyre": {SPACE: [Delete("i1")]}}
    publish_gallery_change(folder / "repo", keys_of(folder / "repo"), time_now(), records, urgent=True)
    assert take(folder, LATER).sequence == 1
    assert active(folder / "device") == ("one", 2)


def test_device_that_is_not_enrolled_follows_the_base(folder):
    plan_two(folder, open_waves=2)
    assert (take(folder, None).sequence, active(folder / "device")) == (1, ("one", 3))


@pytest.mark.parametrize(
    ("content", "reason", "message"),
    [
        ({"line": "other"}, "line", "rollouts of line 'other', expected 'demo'"),
        ({"pins": [pin("", release(5, line="other"))]}, "line", "release of line 'other'"),
        ({"pins": [pin("", release(2_000_000))]}, "ahead", "more than 1000000 above release 1"),
        ({"plan": plan(2)}, "mixed", "found no signed head of bundle bundle-2"),
    ],
)
def test_rollouts_that_are_not_for_this_device_are_refused(folder, content, reason, message):
    say(folder, **content)
    with pytest.raises((RefusedError, SyncError), match=message) as caught:
        take(folder)
    assert getattr(caught.value, "reason", reason) == reason
    assert active(folder / "device") == ("one", 3)


def test_candidate_passes_the_checks_of_every_release(folder):
    """The security floor holds for a candidate, too."""
    from gallery_sync.device.security_floor import raise_security_floor

    plan_two(folder)
    raise_security_floor(folder / "device", "demo", 3)
    with pytest.raises(RefusedError, match="runs none below 3") as caught:
        take(folder)
    assert caught.value.choice is not None
    assert caught.value.choice.plan is not None


def test_old_repository_without_the_candidate_is_refused(folder):
    """The floors are lost; the pointer still knows the candidate that the device ran."""
    shutil.copytree(folder / "repo", folder / "old")
    plan_two(folder)
    take(folder)
    say(folder)
    for name in ("floors", "floors.copy"):
        (folder / "device/trust" / name).unlink()
    shutil.rmtree(folder / "device/trust/metadata")
    with pytest.raises(RefusedError, match="release 1 is older than release 2") as caught:
        pull(FolderTransport(folder / "repo"), folder / "device")
    assert caught.value.reason == "older"


def test_manual_pull_reads_labels_from_agent_yaml(folder, capsys):
    plan_two(folder, selector={"terms": [{"key": "site", "values": ["berlin"]}]})
    enrol_device(folder / "device", folder / "repo", LATER)
    config = folder / "agent.yaml"
    config.write_text("labels: {site: berlin}\n")
    arguments = ["pull", f"file://{folder / 'repo'}", "--state-dir", str(folder / "device"), "--config", str(config)]
    assert main([*arguments, "--json"]) == 0
    assert "wave 2 of 2" in json.loads(capsys.readouterr().out)["waits"]
