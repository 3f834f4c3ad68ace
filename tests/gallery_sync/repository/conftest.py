"""A repository with three releases, made once and copied for every test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.sync_samples import publish_release


@pytest.fixture(scope="session")
def three_releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a repository, its keys, and the folders that were published."""
    folder = tmp_path_factory.mktemp("three-releases")
    publish_release(folder, "one", 1, 3)
    publish_release(folder, "two", 2, 3)
    publish_release(folder, "two", 2, 4)
    return folder


@pytest.fixture
def repo(tmp_path: Path, three_releases: Path) -> Path:
    """A repository with releases 1 (bundle one, 3 items), 2 (bundle two, 3 items) and 3 (bundle two, 4 items)."""
    shutil.copytree(three_releases, tmp_path, dirs_exist_ok=True)
    return tmp_path / "repo"
