"""A repository on a web server, and a device with its first release: made once, and copied for every test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.bundle import slots
from tests.store_samples import trusted
from tests.sync_samples import publish_release, pull_folder
from tests.sync_server import Server, serving


@pytest.fixture(autouse=True)
def unflushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush nothing, which takes most of the time; a simulated power cut counts the calls all the same."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def two_releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder: `first` has a repository at release 1, `second` at release 2, `device` has release 1 active."""
    folder = tmp_path_factory.mktemp("two-releases")
    publish_release(folder / "first", "one", 1, 3)
    pull_folder(folder / "first/repo", folder / "device")
    slots.activate(folder / "device", prove=trusted)
    shutil.copytree(folder / "first", folder / "second")
    publish_release(folder / "second", "two", 2, 4)
    return folder


@pytest.fixture
def server(tmp_path: Path, two_releases: Path) -> Iterator[Server]:
    """Serve a repository at release 1: bundle `one`, three items."""
    shutil.copytree(two_releases / "first", tmp_path, dirs_exist_ok=True)
    with serving(tmp_path / "repo") as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, server: Server, two_releases: Path) -> Path:
    """A device with release 1 active, while release 2 (bundle `two`, four items) is published."""
    shutil.copytree(two_releases / "device", tmp_path / "device")
    shutil.copytree(two_releases / "second", tmp_path, dirs_exist_ok=True)
    server.requests.clear()
    return tmp_path / "device"
