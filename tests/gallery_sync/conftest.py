"""A repository on a web server, and a device with its first release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.bundle import slots
from tests.store_samples import trusted
from tests.sync_samples import publish_release, pull_from
from tests.sync_server import Server, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Serve a repository at release 1: bundle `one`, three items."""
    publish_release(tmp_path, "one", 1, 3)
    with serving(tmp_path / "repo") as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, server: Server) -> Path:
    """A device with release 1 active, while release 2 (bundle `two`, four items) is published."""
    state_dir = tmp_path / "device"
    pull_from(server, state_dir)
    slots.activate(state_dir, prove=trusted)
    publish_release(tmp_path, "two", 2, 4)
    server.requests.clear()
    return state_dir
