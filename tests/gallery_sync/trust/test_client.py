"""What a device believes of a repository, and how each refusal reads."""

from __future__ import annotations

import fcntl
from datetime import timedelta

import pytest

from edge.errors import SyncError
from gallery_sync.formats.documents import Release
from gallery_sync.formats.fields import parse
from gallery_sync.transport.errors import StorageError
from gallery_sync.trust.client import TrustedClient
from gallery_sync.trust.errors import ExpiredError, MetadataError, RolledBackError, SignatureError
from gallery_sync.trust.floors import Floors
from tests.trust_samples import START, Device, release_json

PATH = "rollout/shop.json"


def test_refresh_tells_how_fresh_the_metadata_is(device):
    fresh = device.client().refresh()
    assert (fresh.issued_at, fresh.expires_at) == (START, START + timedelta(days=7))
    assert fresh.warn_at == START + timedelta(days=3.5)
    assert (fresh.root_version, fresh.expired) == (1, False)
    assert device.client().freshness() == fresh


def test_freshness_needs_no_request_and_no_network(device, repo):
    device.now = START + timedelta(days=8)
    device.repo = device.repo / "gone"
    found = device.client().freshness()
    assert found is not None
    assert found.expired


def test_device_that_never_refreshed_knows_no_freshness(tmp_path, repo):
    assert Device(tmp_path / "new", repo).client().freshness() is None


def test_new_release_is_read(device, repo):
    repo.release(2)
    client = device.client()
    client.refresh()
    signed = client.target(PATH, 1 << 16)
    assert signed is not None
    assert parse(Release, signed.data, PATH).sequence == 2


def test_target_that_nobody_signed_is_none(device):
    assert device.client().target("models/shop/none.json", 1 << 16) is None


def test_target_of_another_role_is_not_found(device, repo):
    """The rollout role cannot sign a bundle: its paths are its own."""
    repo.signed["rollout"].targets["models/shop/b1.json"] = repo.signed["rollout"].targets[PATH]
    repo.publish("rollout")
    assert device.client().target("models/shop/b1.json", 1 << 16) is None


def test_target_is_refused_if_larger_than_the_limit(device):
    with pytest.raises(MetadataError, match="expected at most 10"):
        device.client().target(PATH, 10)


def test_target_is_downloaded_once(device):
    client = device.client()
    client.refresh()
    before = client.downloaded_bytes
    assert client.target(PATH, 1 << 16) is not None
    rollout = device.cached("rollout.json").stat().st_size
    assert client.downloaded_bytes - before < rollout + 1


def test_cached_target_that_is_damaged_is_read_again(device):
    (kept,) = (device.folder / "targets").iterdir()
    good = kept.read_bytes()
    kept.write_bytes(b"x" * len(good))
    signed = device.client().target(PATH, 1 << 16)
    assert signed is not None
    assert signed.data == good == kept.read_bytes()


def test_documents_of_earlier_releases_are_pruned(device, repo):
    repo.release(2)
    client = device.client()
    client.target(PATH, 1 << 16)
    assert client.prune_targets() == 1
    assert [path.name for path in (device.folder / "targets").iterdir()] == [client.target(PATH, 1 << 16).sha256]


def test_two_processes_do_not_refresh_at_once(device):
    with (device.folder / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SyncError, match="another edge-sync"):
            device.client().refresh()


def test_unreachable_repository_is_no_trust_error(device):
    device.repo = device.repo / "gone"
    with pytest.raises(SyncError, match="cannot read") as caught:
        device.client().refresh()
    assert type(caught.value).__name__ in {"SyncError", "TransferError"}


def test_disk_that_is_full_is_a_storage_error(device, repo, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    repo.release(2)
    monkeypatch.setattr("gallery_sync.trust.updater.write_durably", full)
    with pytest.raises(StorageError, match="No space left"):
        device.client().refresh()


def test_floors_that_cannot_be_written_are_a_storage_error(device, repo, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(30, "Read-only file system")

    repo.release(2)
    monkeypatch.setattr("gallery_sync.trust.floors.write_durably", full)
    with pytest.raises(StorageError, match="Read-only"):
        device.client().refresh()


@pytest.mark.parametrize("kind", [ExpiredError, RolledBackError, SignatureError, MetadataError])
def test_every_refusal_is_a_sync_error(kind):
    assert issubclass(kind, SyncError)


def test_root_that_is_no_root_is_refused(tmp_path, repo):
    for root in (b"", b"{}", b"[]", b"\xff", b"[" * 100_000, (repo.folder / "metadata/timestamp.json").read_bytes()):
        device = Device(tmp_path / "new", repo)
        device.root = root
        with pytest.raises((MetadataError, SignatureError)) as caught:
            device.client().refresh()
        assert "\n" not in str(caught.value)


def test_document_of_the_rollout_role_must_be_a_release(device, repo):
    repo.add(PATH, b'{"schema": 2}')
    repo.publish("rollout")
    with pytest.raises(SyncError, match="not a valid document of the role rollout"):
        device.client().target(PATH, 1 << 16)


def test_floors_are_shared_by_two_clients(device, repo):
    """The floors of an object that lives long are those that it wrote itself."""
    floors = Floors(device.folder)
    client = TrustedClient(device.folder, device.root, device.client()._fetcher._transport, floors, now=lambda: START)
    repo.release(5)
    client.refresh()
    client.target(PATH, 1 << 16)
    assert floors.release("shop", client._updater.keys_of("rollout")) == 5
    assert release_json(5) == client.target(PATH, 1 << 16).data
