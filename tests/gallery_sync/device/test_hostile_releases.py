"""Hostile releases: each is one error, nothing that is installed changes, and a good release is pulled afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge.bundle import slots
from edge.bundle.active_pointer import read_staged_pointer
from edge.errors import SyncError
from gallery_sync.repository.publish import publish
from tests.hostile_releases import KINDS, forge_release
from tests.store_samples import make_bundle, make_gallery, trusted
from tests.sync_samples import active, publish_release, pull_folder, tree_hashes

MOST_LEFT_BYTES = 1 << 20


def installed(state_dir: Path) -> dict[str, str]:
    return tree_hashes(state_dir / "slots", state_dir / "gallery")


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """A device with release 1 active and release 2 staged, a repository at release 2, and `next` at release 3."""
    folder = tmp_path_factory.mktemp("hostile")
    publish_release(folder, "one", 1, 3)
    pull_folder(folder / "repo", folder / "device")
    slots.activate(folder / "device", prove=trusted)
    publish_release(folder, "two", 2, 4)
    pull_folder(folder / "repo", folder / "device")
    shutil.copytree(folder / "repo", folder / "next")
    three = make_bundle(folder / "three", "three", 3)
    publish(folder / "next", three, make_gallery(folder / "g5", 5), line="demo", created_at="now")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_release_is_one_error_and_changes_nothing(kind, sample, tmp_path):
    repo, device = tmp_path / "repo", sample / "device"
    shutil.copytree(sample / "repo", repo)
    forge_release(kind, repo)
    before = installed(device)
    with pytest.raises(SyncError) as caught:
        pull_folder(repo, device)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert installed(device) == before
    assert sum(path.stat().st_size for path in (device / "cache").rglob("*") if path.is_file()) < MOST_LEFT_BYTES
    assert active(device) == ("one", 3)
    assert read_staged_pointer(device).bundle_id == "two"


def test_true_release_is_pulled_after_all_of_them(sample):
    pull_folder(sample / "next", sample / "device")
    slots.activate(sample / "device", prove=trusted)
    assert active(sample / "device") == ("three", 5)
