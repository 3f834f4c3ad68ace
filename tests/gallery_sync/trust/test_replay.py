"""T2, T3: metadata and releases that this device had before come again."""

from __future__ import annotations

import shutil
from datetime import timedelta

import pytest

from gallery_sync.transport.repository_files import FolderTransport
from gallery_sync.trust.errors import MetadataError, RolledBackError
from gallery_sync.trust.floors import NAMES
from tests.trust_samples import START, Device, release_json

PATH = "rollout/shop.json"
LOST = {  # what a power cut, a bad disk or a thief may take
    "nothing": [],
    "timestamp": ["metadata/timestamp.json"],
    "snapshot": ["metadata/snapshot.json"],
    "timestamp and snapshot": ["metadata/timestamp.json", "metadata/snapshot.json"],
    "all metadata": ["metadata"],
    "all metadata and one copy of the floors": ["metadata", NAMES[0]],
    "all metadata and the other copy": ["metadata", NAMES[1]],
}


@pytest.fixture
def old(tmp_path, repo, device):
    """The repository of release 1; the device goes on to release 3."""
    shutil.copytree(repo.folder, tmp_path / "old")
    for sequence in (2, 3):
        repo.release(sequence)
    client = device.client()
    client.refresh()
    client.target(PATH, 1 << 16)
    return FolderTransport(tmp_path / "old")


@pytest.mark.parametrize("how", ["removed", "zeroed", "truncated"])
@pytest.mark.parametrize("lost", list(LOST))
def test_t2_replay_is_refused_with_lost_state(device, old, lost, how):
    """python-tuf by itself accepts the old timestamp when both cached files are lost."""
    for name in LOST[lost]:
        path = device.folder / name
        for file in path.rglob("*") if path.is_dir() else [path]:
            if file.is_file() and not file.is_symlink():
                damage(file, how)
    honest, device.transport = device.transport, old
    with pytest.raises(RolledBackError, match=r"which this device had|goes back"):
        device.client().refresh()
    device.transport = honest
    assert device.client().refresh().issued_at == START


def damage(file, how):
    if how == "removed":
        file.unlink()
    elif how == "zeroed":
        file.write_bytes(b"\0" * file.stat().st_size)
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_t2_refused_replay_changes_no_file(device, old):
    for name in ("timestamp.json", "snapshot.json"):
        device.cached(name).unlink()
    before = device.hashes()
    device.transport = old
    with pytest.raises(RolledBackError):
        device.client().refresh()
    assert device.hashes() == before


def test_t2_device_with_both_copies_of_the_floors_lost_says_so(device, old, caplog):
    for name in NAMES:
        (device.folder / name).write_bytes(b"\0" * 100)
    device.transport = old
    with pytest.raises(RolledBackError):  # the cached metadata still knows
        device.client().refresh()
    assert caplog.text.count("is damaged") == 2


def test_t2_reflashed_device_is_held_by_expiry_alone(tmp_path, repo, old):
    """Without any state, an old repository is accepted until it expires; then never again."""
    device = Device(tmp_path / "reflashed", repo)
    device.transport = old
    assert device.client().refresh().expires_at == START + timedelta(days=7)


def test_t2_older_release_in_newer_metadata_is_refused(device, repo):
    """Whoever holds the rollout key signs an older release again, under a newer version."""
    repo.release(9)
    device.client().target(PATH, 1 << 16)
    repo.release(8)
    client = device.client()
    client.refresh()
    with pytest.raises(RolledBackError, match="release 8 of shop is older than release 9"):
        client.target(PATH, 1 << 16)


def test_t3_new_timestamp_with_an_old_snapshot_is_refused(device, repo):
    name = f"metadata/{repo.signed['snapshot'].version}.snapshot.json"
    old = (repo.folder / name).read_bytes()
    repo.release(2)
    (repo.folder / f"metadata/{repo.signed['snapshot'].version}.snapshot.json").write_bytes(old)
    with pytest.raises(MetadataError):
        device.client().refresh()


def test_t3_swapped_document_is_refused(device, repo):
    repo.release(2)
    (place,) = [path for path in (repo.folder / "targets/rollout").iterdir() if path.read_bytes() == release_json(2)]
    place.write_bytes(release_json(3))
    client = device.client()
    client.refresh()
    with pytest.raises(MetadataError):
        client.target(PATH, 1 << 16)


def test_equal_timestamp_is_no_replay(device):
    assert device.client().refresh() == device.client().refresh()
