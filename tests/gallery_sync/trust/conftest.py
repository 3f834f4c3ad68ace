"""A signed repository at release 1, and a device that refreshed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trust_samples import Device, SignedFolder


@pytest.fixture
def repo(tmp_path: Path) -> SignedFolder:
    """A repository of the line `shop`."""
    made = SignedFolder(tmp_path / "repo")
    made.release(1)
    return made


@pytest.fixture
def device(tmp_path: Path, repo: SignedFolder) -> Device:
    """A device that has read release 1."""
    made = Device(tmp_path / "trust", repo)
    client = made.client()
    client.refresh()
    assert client.target("rollout/shop.json", 1 << 16) is not None
    return made
