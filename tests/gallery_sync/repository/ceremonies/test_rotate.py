from __future__ import annotations

import contextlib
import json

import pytest
from tuf.api.exceptions import RepositoryError

from edge.errors import SyncError
from gallery_sync.repository.ceremonies.ceremony import publish_draft, sign_draft
from gallery_sync.repository.ceremonies.rotate import KeyChange, list_keys, refresh, rotate
from gallery_sync.repository.keys import KeyRing
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.roles import commit as module
from tests.power_cut import PowerCut
from tests.signing_samples import (
    GALLERY,
    MODEL,
    NOW,
    RELEASE,
    client,
    days,
    development,
    key_of,
    people,
    production,
    publish,
)

FIRST = [b'{"first":1}'] * 3
ONLINE = ("snapshot", "timestamp", "models", "gallery", "rollout")


def read(device, repo, now=NOW):
    return device.read(repo, MODEL, GALLERY, RELEASE, now=now)


def ring(keys: KeyRing) -> KeyRing:
    return KeyRing.open(keys.folder)


@pytest.mark.parametrize("role", ["root", "targets", *ONLINE])
def test_new_key_of_any_role_is_accepted_by_devices(tmp_path, role):
    repo, keys = development(tmp_path)
    device = client(tmp_path, repo)
    read(device, repo)
    before = list_keys(repo, keys)[role].keys
    assert rotate(repo, keys, NOW, [KeyChange(role, is_new=True)]).is_published
    after = list_keys(repo, ring(keys))[role].keys
    assert before[0].keyid != after[0].keyid
    assert after[0].uri
    assert read(device, repo) == FIRST
    publish(repo, ring(keys), b"{}")
    assert read(device, repo) == [b"{}"] * 3
    assert read(client(tmp_path, repo, "new device"), repo) == [b"{}"] * 3


@pytest.mark.parametrize("roles", [("root", "targets"), ("timestamp", "snapshot"), ("gallery", "rollout", "models")])
def test_several_roles_get_new_keys_at_once(tmp_path, roles):
    repo, keys = development(tmp_path)
    device = client(tmp_path, repo)
    read(device, repo)
    rotate(repo, keys, NOW, [KeyChange(role, is_new=True) for role in roles])
    assert read(device, repo) == FIRST


class FailedError(Exception):
    pass


def test_failure_at_every_write_of_a_rotation_is_invisible(tmp_path, monkeypatch):
    repo, keys = development(tmp_path)
    device, real = client(tmp_path, repo), module.write_file
    for number in range(20):
        written = []

        def write(path, data, number=number, written=written):
            if len(written) == number:
                raise FailedError
            written.append(path.name)
            real(path, data)

        monkeypatch.setattr(module, "write_file", write)
        try:
            rotate(
                repo, ring(keys), NOW, [KeyChange(role, is_new=True) for role in ("timestamp", "snapshot", "gallery")]
            )
        except FailedError:
            assert read(device, repo) == FIRST
            assert read(client(tmp_path, repo, f"new{number}"), repo) == FIRST
            monkeypatch.undo()
            assert refresh(repo, ring(keys), NOW).is_published
            assert read(device, repo) == FIRST
        else:
            assert written[-1] == "2.root.json"  # the rest is signed with the old keys, too
            return
    pytest.fail("no write was the last")


def test_lost_online_keys_are_replaced_by_the_people(tmp_path):
    repo, keys, draft = production(tmp_path)
    for name in ("alice", "bob"):
        sign_draft(draft, key_of(tmp_path, name))
    publish_draft(draft, repo, keys, NOW)
    publish(repo, ring(keys), b"{}")
    device = client(tmp_path, repo)
    read(device, repo)
    fresh = KeyRing.open_or_empty(tmp_path / "new server")  # the folder of the keys was lost
    done = rotate(repo, fresh, NOW + days(1), [KeyChange(role, is_new=True) for role in ONLINE])
    assert not done.is_published
    assert read(device, repo) == [b"{}"] * 3
    for name in ("carol", "bob"):
        sign_draft(done.draft, key_of(tmp_path, name))
    publish_draft(done.draft, repo, ring(fresh), NOW + days(1))
    assert read(device, repo, NOW + days(1)) == [b"{}"] * 3
    publish(repo, ring(fresh), b"[]", NOW + days(1))
    assert read(device, repo, NOW + days(1)) == [b"[]"] * 3


def test_interrupted_rotation_of_lost_keys_is_repaired(tmp_path, monkeypatch):
    repo, keys = development(tmp_path)
    device, real = client(tmp_path, repo), module.write_file
    (keys.folder / "timestamp.pem").unlink()
    document = json.loads((keys.folder / "keys.json").read_bytes())
    document["roles"]["timestamp"]["keys"] = []
    (keys.folder / "keys.json").write_text(json.dumps(document))

    def only_the_root(path, data):
        if "root" not in path.name:
            raise FailedError
        real(path, data)

    monkeypatch.setattr(module, "write_file", only_the_root)
    with pytest.raises(FailedError):
        rotate(repo, ring(keys), NOW, [KeyChange("timestamp", is_new=True)])
    with pytest.raises(RepositoryError):
        read(device, repo)  # it keeps what it has until timestamp follows
    monkeypatch.undo()
    assert refresh(repo, ring(keys), NOW).is_published
    assert read(device, repo) == FIRST


def test_lost_root_key_of_three_is_replaced(tmp_path):
    repo, keys, draft = production(tmp_path)
    for name in ("alice", "bob"):
        sign_draft(draft, key_of(tmp_path, name))
    publish_draft(draft, repo, keys, NOW)
    dave = people(tmp_path, "dave")["dave"]
    changes = [KeyChange(role, [dave], ["carol"]) for role in ("root", "targets")]
    done = rotate(repo, ring(keys), NOW, changes)
    assert "dave" in done.missing["root"]
    sign_draft(done.draft, key_of(tmp_path, "dave"))
    sign_draft(done.draft, key_of(tmp_path, "alice"))
    with pytest.raises(SyncError, match=r"root: 1 more of: bob .*, carol"):  # two of the old keys must sign
        publish_draft(done.draft, repo, ring(keys), NOW)
    sign_draft(done.draft, key_of(tmp_path, "bob"))
    publish_draft(done.draft, repo, ring(keys), NOW)
    assert client(tmp_path, repo).read(repo, MODEL) == [None]
    done = rotate(repo, ring(keys), NOW, renew=["root"])
    with pytest.raises(SyncError, match="does not wait for this key"):
        sign_draft(done.draft, key_of(tmp_path, "carol"))


def test_device_that_missed_three_roots_follows(tmp_path):
    repo, keys = development(tmp_path)
    device = client(tmp_path, repo)
    read(device, repo)
    for _ in range(3):
        rotate(repo, ring(keys), NOW, [KeyChange("root", is_new=True), KeyChange("timestamp", is_new=True)])
    later = NOW + days(700)
    rotate(repo, ring(keys), NOW + days(350), renew=["root", "targets"])
    SignedMetadata.open(repo, ring(keys)).refresh(later)
    assert read(device, repo, later) == FIRST


def fast_forwarded(repo, keys, role):
    """Publish what a thief of a key would: a version that leaves no room above it."""
    metadata = SignedMetadata.open(repo, keys)
    metadata.number_above({role: 2**31 - 3})
    metadata.refresh(NOW)


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_versions_start_again_after_a_stolen_key(tmp_path, role):
    repo, keys = development(tmp_path)
    device = client(tmp_path, repo)
    fast_forwarded(repo, keys, role)
    assert read(device, repo) == FIRST
    rotate(repo, keys, NOW, [KeyChange(one, is_new=True) for one in ("timestamp", "snapshot")])
    metadata = SignedMetadata.open(repo, ring(keys))
    assert metadata.version(role) == 1
    assert read(device, repo) == FIRST


def test_versions_of_a_gallery_start_again_with_a_new_snapshot_key(tmp_path):
    repo, keys = development(tmp_path)
    device = client(tmp_path, repo)
    fast_forwarded(repo, keys, "gallery")
    assert read(device, repo) == FIRST
    rotate(repo, keys, NOW, [KeyChange(one, is_new=True) for one in ("timestamp", "snapshot", "gallery")])
    assert SignedMetadata.open(repo, ring(keys)).version("gallery") == 1
    assert read(device, repo) == FIRST


def test_policy_is_changed_for_every_role(tmp_path):
    repo, keys = development(tmp_path)
    device = client(tmp_path, repo)
    assert rotate(repo, keys, NOW, policy="offline", offline_days=100).is_published
    assert {one.role: (one.expires_at - NOW).days for one in SignedMetadata.open(repo).expiry()} == {
        "root": 365,
        "targets": 365,
        **dict.fromkeys(ONLINE, 100),
    }
    assert read(device, repo, NOW + days(99)) == FIRST


@pytest.mark.parametrize("text", ["nobody", "zz"])
def test_revoking_an_unknown_key_is_refused(tmp_path, text):
    repo, keys = development(tmp_path)
    with pytest.raises(SyncError, match="is 0 of its keys, expected one of: timestamp"):
        rotate(repo, keys, NOW, [KeyChange("timestamp", revoke=[text])])


def test_revoking_the_last_key_is_refused(tmp_path):
    repo, keys = development(tmp_path)
    with pytest.raises(SyncError, match="threshold of 1 and 0 keys"):
        rotate(repo, keys, NOW, [KeyChange("timestamp", revoke=["timestamp"])])


def test_unknown_role_is_refused(tmp_path):
    repo, keys = development(tmp_path)
    with pytest.raises(SyncError, match="found the role 'king'"):
        rotate(repo, keys, NOW, renew=["king"])


def test_refresh_warns_of_roles_of_people(tmp_path):
    repo, keys, draft = production(tmp_path)
    for name in ("alice", "bob"):
        sign_draft(draft, key_of(tmp_path, name))
    publish_draft(draft, repo, keys, NOW)
    done = refresh(repo, ring(keys), NOW + days(200))
    assert set(done.versions) == {"snapshot", "timestamp", "models", "gallery", "rollout"}
    assert [warning.split(" is past half")[0] for warning in done.warnings] == ["root", "targets"]


@pytest.mark.parametrize("image", ["torn", "dropped and empty"])
def test_power_cut_in_a_rotation_leaves_a_whole_repository(tmp_path, image):
    for at in range(1, 400, 19):
        folder = tmp_path / str(at)
        repo, keys = development(folder)
        device = client(folder, repo)
        read(device, repo)
        with PowerCut(at, image) as power, contextlib.suppress(SyncError, OSError):
            rotate(repo, keys, NOW, [KeyChange(role, is_new=True) for role in ("timestamp", "gallery")])
        assert read(device, repo) == FIRST
        rotate(repo, ring(keys), NOW, [KeyChange("rollout", is_new=True)])
        publish(repo, ring(keys), b"{}")
        assert read(device, repo) == [b"{}"] * 3
        if not power.happened:
            return
    pytest.fail("no cut was the last")
