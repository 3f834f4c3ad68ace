"""A device of the agent's tests: made once, copied for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gallery_sync.agent.samples import copy_device, make_repository


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """Bundles 1 to 3, and a device on which bundle 1 is active."""
    folder = tmp_path_factory.mktemp("made")
    make_repository(folder)
    return folder


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A copy of it."""
    copy_device(made, tmp_path)
    return tmp_path
