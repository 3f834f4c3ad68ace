"""Devices with floors follow their repository through new keys and disasters, and refuse to go back."""

from __future__ import annotations

import shutil

import pytest

from gallery_sync.repository.ceremonies.recover import recover
from gallery_sync.repository.ceremonies.rotate import KeyChange, rotate
from gallery_sync.repository.keys import KeyRing
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.transport.repository_files import FolderTransport
from gallery_sync.trust.client import TrustedClient
from gallery_sync.trust.errors import RolledBackError
from gallery_sync.trust.floors import Floors
from tests.signing_samples import GALLERY, MODEL, NOW, days, development, publish

ONLINE = ("timestamp", "snapshot", "models", "gallery", "rollout")


class Device:
    def __init__(self, tmp_path, repo, name="device"):
        self.folder, self.repo = tmp_path / name, repo
        self.root = (repo / "metadata/1.root.json").read_bytes()

    def read(self, now=NOW, paths=(MODEL, GALLERY)) -> list[bytes | None]:
        floors = Floors(self.folder / "floors")
        client = TrustedClient(self.folder, self.root, FolderTransport(self.repo), floors, now=lambda: now)
        client.refresh()
        found = [client.target(path, 1 << 20) for path in paths]
        return [one.data if one else None for one in found]


def ring(keys: KeyRing) -> KeyRing:
    return KeyRing.open(keys.folder)


def test_device_follows_new_keys_of_every_role(tmp_path):
    repo, keys = development(tmp_path)
    device = Device(tmp_path, repo)
    device.read()
    for role in ("root", "targets", *ONLINE):
        rotate(repo, ring(keys), NOW, [KeyChange(role, is_new=True)])
        assert device.read() == [b'{"first":1}'] * 2


def test_device_follows_after_a_thief_took_all_versions(tmp_path):
    repo, keys = development(tmp_path)
    device = Device(tmp_path, repo)
    metadata = SignedMetadata.open(repo, keys)
    metadata.number_above(dict.fromkeys(ONLINE, 2**31 - 2))
    metadata.commit(NOW)
    device.read()
    rotate(repo, keys, NOW, [KeyChange(role, is_new=True) for role in ONLINE])
    assert SignedMetadata.open(repo, ring(keys)).version("timestamp") == 1
    assert device.read() == [b'{"first":1}'] * 2
    publish(repo, ring(keys), b"{}")
    assert device.read() == [b"{}"] * 2


@pytest.mark.parametrize("has_copy", [True, False])
def test_device_follows_a_repository_that_was_lost(tmp_path, has_copy):
    repo, keys = development(tmp_path)
    device = Device(tmp_path, repo)
    shutil.copytree(repo, tmp_path / "mirror")
    for number in range(3):
        publish(repo, keys, b'{"n":%d}' % number)
        device.read()
    shutil.rmtree(repo)
    recover(repo, keys, NOW, copies=[tmp_path / "mirror"] if has_copy else [], line="demo")
    assert device.read() == ([b'{"first":1}'] * 2 if has_copy else [None] * 2)
    publish(repo, keys, b"{}", NOW + days(1))
    assert device.read(NOW + days(1)) == [b"{}"] * 2


def test_metadata_of_a_device_makes_the_repository_again(tmp_path):
    repo, keys = development(tmp_path)
    device = Device(tmp_path, repo)
    device.read(paths=(MODEL, GALLERY, "rollout/none.json"))  # it asks every role
    shutil.rmtree(repo)
    recover(repo, keys, NOW, copies=[device.folder / "metadata"], line="demo")
    publish(repo, keys, b"{}")
    assert device.read() == [b"{}"] * 2


def test_old_copy_that_nobody_recovered_is_refused(tmp_path):
    repo, keys = development(tmp_path)
    device = Device(tmp_path, repo)
    shutil.copytree(repo, tmp_path / "backup")
    publish(repo, keys, b"{}")
    device.read()
    shutil.rmtree(repo)
    shutil.copytree(tmp_path / "backup", repo)
    with pytest.raises(RolledBackError):
        device.read()
    recover(repo, keys, NOW)
    assert device.read() == [b'{"first":1}'] * 2
