"""A console and a fleet server for each module, and a repository that is copied for every test.

The repository has a release for all, and one that is held back.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from gallery_sync.repository.publish import publish
from tests.console.fleet.fleet_samples import TOKEN, SmallFleet, people, small_fleet
from tests.console_samples import Client, running_console
from tests.store_samples import make_bundle, make_gallery
from tests.sync_samples import keys_of, publish_release


@pytest.fixture(scope="session")
def held_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, now = tmp_path_factory.mktemp("held"), datetime.now(timezone.utc)
    publish_release(folder, "one", 1, 3, now=now)
    bundle, gallery = make_bundle(folder / "two", "two", 2), make_gallery(folder / "g4", 4)
    publish(folder / "repo", keys_of(folder / "repo"), now, bundle_folder=bundle, gallery_folder=gallery, hold=True)
    return folder


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallFleet]:
    with small_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, fleet: SmallFleet) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("console")
    settings = {"repository": folder / "repo", "keys": folder / "repo.keys"}
    with running_console(folder / "data", fleet=fleet.url, fleet_token=TOKEN, **settings) as client:
        yield client


@pytest.fixture(scope="module")
def who(client: Client) -> dict[str, Client]:
    return people(client)


@pytest.fixture
def repo(client: Client, held_release: Path) -> Path:
    """Release 1 (bundle one) is for all devices, release 2 (bundle two) is held back."""
    repo = client.services.settings.repository
    for name in ("repo", "repo.keys"):
        shutil.rmtree(repo.with_name(name), ignore_errors=True)
        shutil.copytree(held_release / name, repo.with_name(name))
    return repo
