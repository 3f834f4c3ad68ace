"""Which releases a device accepts: its own line, not older, also when files are lost; and the security floor."""

from __future__ import annotations

import shutil

import pytest

from edge.bundle import slots
from edge.bundle.active_pointer import read_active_pointer, read_staged_pointer
from edge.errors import SyncError
from gallery_sync.device.last_release import known_releases, newest_sequence
from gallery_sync.device.pull import pull
from gallery_sync.device.security_floor import NAMES, raise_security_floor, read_security_floor
from gallery_sync.device.wanted import RefusedError
from gallery_sync.repository.publish import Demands
from gallery_sync.repository.releases import rollback
from gallery_sync.transport.repository_files import FolderTransport
from tests.file_damage import DAMAGES
from tests.store_samples import trusted
from tests.sync_samples import active, keys_of, publish_release, pull_from, time_now


def lose_trust(device, server) -> None:
    """Lose the folder of trust, but for the root."""
    root = (device / "trust/root").read_bytes()
    shutil.rmtree(device / "trust")
    (device / "trust").mkdir()
    (device / "trust/root").write_bytes(root)


@pytest.mark.parametrize("activated", [True, False])
def test_s4_lost_floors_are_known_from_what_is_installed(device, server, tmp_path, activated):
    shutil.copytree(server.folder, tmp_path / "old")
    publish_release(tmp_path, "three", 3, 5)
    pull_from(server, device)
    if activated:
        slots.activate(device, prove=trusted)
    lose_trust(device, server)
    assert newest_sequence(device, "demo") == 3
    with pytest.raises(RefusedError, match="release 2 is older than release 3, which this device had"):
        pull(FolderTransport(tmp_path / "old"), device)
    assert pull_from(server, device).sequence == 3


def test_previous_release_counts_after_a_rollback(device, server, tmp_path):
    shutil.copytree(server.folder, tmp_path / "old")
    publish_release(tmp_path, "three", 3, 5)
    pull_from(server, device)
    slots.activate(device, prove=trusted)
    slots.rollback(device)
    lose_trust(device, server)
    assert [release.sequence for release in known_releases(device)] == [1, 3]
    with pytest.raises(RefusedError, match="release 2 is older than release 3"):
        pull(FolderTransport(tmp_path / "old"), device)


def test_damaged_pointers_know_nothing(device):
    for name in ("current", "current.copy", "staged"):
        (device / name).write_bytes(b"{")
    assert known_releases(device) == []
    assert newest_sequence(device, "demo") == 0


def test_release_of_another_line_is_not_found(device, server):
    with pytest.raises(RefusedError, match=r"no release of line 'other'; check the device's line") as caught:
        pull(FolderTransport(server.folder), device, line="other")
    assert caught.value.reason == "absent"


def test_refused_or_incomplete_release_does_not_count(device, server):
    for path in (server.folder / "objects").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(SyncError):
        pull_from(server, device)
    assert newest_sequence(device, "demo") == 1


def test_release_that_goes_back_is_pulled_and_replaces_what_is_staged(device, server):
    pull_from(server, device)
    assert read_staged_pointer(device).release.sequence == 2
    rollback(server.folder, keys_of(server.folder), time_now(), "demo", 1)
    pulled = pull_from(server, device)
    assert (pulled.sequence, pulled.bundle_id, pulled.serving) == (3, "one", True)
    assert read_staged_pointer(device) is None
    assert read_active_pointer(device).release.sequence == 3
    assert active(device) == ("one", 3)


def test_bundle_below_the_confirmed_floor_is_refused(device, server, tmp_path):
    raise_security_floor(device, "demo", 3)
    with pytest.raises(RefusedError, match="has sequence 2, and this device runs none below 3") as caught:
        pull_from(server, device)
    assert caught.value.reason == "security_floor"
    assert active(device) == ("one", 3)
    publish_release(tmp_path, "three", 3, 5, demands=Demands(security_floor=3))
    assert pull_from(server, device).bundle_id == "three"


def test_security_floor_never_falls_and_is_of_one_line(tmp_path):
    assert read_security_floor(tmp_path, "demo") == 0
    assert raise_security_floor(tmp_path, "demo", 5)
    assert not raise_security_floor(tmp_path, "demo", 4)
    assert raise_security_floor(tmp_path, "other", 2)
    assert [read_security_floor(tmp_path, line) for line in ("demo", "other", "third")] == [5, 2, 0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_security_floor_survives_damage_to_one_copy(tmp_path, damage, name):
    raise_security_floor(tmp_path, "demo", 5)
    damage(tmp_path / "trust" / name)
    assert read_security_floor(tmp_path, "demo") >= 5
    assert raise_security_floor(tmp_path, "demo", 6) or read_security_floor(tmp_path, "demo") > 6
