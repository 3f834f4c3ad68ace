"""A repository with a base and a release that is held back, made once and copied for every test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gallery_sync.repository.keys import KeyRing
from gallery_sync.repository.publish import publish
from tests.gallery_sync.rollouts.samples import APPROVED, keys_folder
from tests.store_samples import make_bundle, make_gallery
from tests.sync_samples import keys_of, publish_release


@pytest.fixture(scope="session")
def held_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a repository, its keys, and the folders that were published."""
    folder = tmp_path_factory.mktemp("held-release")
    publish_release(folder, "one", 1, 3, now=APPROVED)
    bundle, gallery = make_bundle(folder / "two", "two", 2), make_gallery(folder / "g4", 4)
    repo = folder / "repo"
    publish(repo, keys_of(repo), APPROVED, bundle_folder=bundle, gallery_folder=gallery, hold=True)
    return folder


@pytest.fixture
def repo(tmp_path: Path, held_release: Path) -> Path:
    """A repository with release 1 (bundle one) for all, and release 2 (bundle two) that is held back."""
    shutil.copytree(held_release / "repo", tmp_path / "repo")
    shutil.copytree(held_release / "repo.keys", tmp_path / "repo.keys")
    return tmp_path / "repo"


@pytest.fixture
def keys(repo: Path) -> KeyRing:
    return KeyRing.open(keys_folder(repo))
