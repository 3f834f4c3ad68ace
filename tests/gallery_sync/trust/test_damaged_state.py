"""P3: files of the trust folder, damaged singly and in pairs. The device converges, and never believes more."""

from __future__ import annotations

import itertools
import os
import shutil

import pytest

from gallery_sync.trust.errors import RolledBackError
from gallery_sync.trust.floors import NAMES
from tests.trust_samples import Device

FILES = ["root.json", "root_history/1.root.json", "timestamp.json", "snapshot.json", "targets.json", "rollout.json"]
HOW = ["removed", "zeroed", "flipped", "folder", "link", "pipe", "huge"]


def damage(path, how):
    data = path.read_bytes() if path.is_file() else b"x"
    if how in ("removed", "folder", "link", "pipe"):
        path.unlink(missing_ok=True)
    if how == "zeroed":
        path.write_bytes(b"\0" * len(data))
    elif how == "flipped":
        path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    elif how == "folder":
        (path / "inside").mkdir(parents=True)
    elif how == "link":
        path.symlink_to("/etc/passwd")
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "huge":
        with path.open("ab") as file:
            file.truncate(9 << 20)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", [f"metadata/{name}" for name in FILES] + list(NAMES))
def test_p3_damaged_file_is_repaired(device, repo, name, how):
    damage(device.folder / name, how)
    check_converges(device, repo)


@pytest.mark.parametrize("how", ["removed", "folder", "link", "pipe"])
@pytest.mark.parametrize("name", ["lock", "targets", "metadata"])
def test_p3_replaced_folder_is_repaired(device, repo, name, how):
    path = device.folder / name
    if path.is_dir():
        shutil.rmtree(path)
    damage(path, how)
    check_converges(device, repo)


def check_converges(device, repo):
    repo.release(2)
    client = device.client()
    client.refresh()
    assert client.target("rollout/shop.json", 1 << 16) is not None
    assert Device(device.folder, repo).client().refresh() == client.freshness()


@pytest.mark.parametrize("how", ["zeroed"])
@pytest.mark.parametrize(
    "pair", list(itertools.combinations([*(f"metadata/{name}" for name in FILES[1:]), *NAMES], 2)), ids="+".join
)
def test_p3_pairs_never_let_old_metadata_in(tmp_path, device, repo, pair, how):
    shutil.copytree(repo.folder, tmp_path / "old")
    repo.release(2)
    device.client().target("rollout/shop.json", 1 << 16)
    for name in pair:
        damage(device.folder / name, how)
    honest, device.repo = device.repo, tmp_path / "old"
    with pytest.raises(RolledBackError):
        device.client().refresh()
    device.repo = honest
    assert device.client().target("rollout/shop.json", 1 << 16) is not None


def test_kill_between_any_two_writes_of_a_refresh(device, repo, monkeypatch):
    """The n-th write of a refresh fails, for every n; the next refresh succeeds, and nothing old is believed."""
    from gallery_sync.trust import floors, updater

    written = []
    real = floors.write_durably
    for n in itertools.count():
        repo.release(2 + n)
        count = [0]

        def fail(path, data, *args, count=count, n=n, **kwargs):
            count[0] += 1
            if count[0] > n:
                raise OSError(5, "Input/output error")
            written.append(path.name)
            return real(path, data, *args, **kwargs)

        for module in (floors, updater):
            monkeypatch.setattr(module, "write_durably", fail)
        failed = False
        try:
            device.client().refresh()
        except Exception:
            failed = True
        for module in (floors, updater):
            monkeypatch.setattr(module, "write_durably", real)
        assert device.client().target("rollout/shop.json", 1 << 16) is not None
        if not failed:
            break
    assert {"timestamp.json", "snapshot.json", *NAMES} <= set(written)
