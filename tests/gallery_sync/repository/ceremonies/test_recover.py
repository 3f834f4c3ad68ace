from __future__ import annotations

import shutil

import pytest

from edge.errors import SyncError
from gallery_sync.formats.fields import object_path
from gallery_sync.repository.ceremonies.ceremony import publish_draft, sign_draft
from gallery_sync.repository.ceremonies.recover import recover
from gallery_sync.repository.ceremonies.rotate import KeyChange, rotate
from gallery_sync.repository.keys import KeyRing
from gallery_sync.repository.metadata import SignedMetadata
from tests.signing_samples import (
    GALLERY,
    MODEL,
    NOW,
    RELEASE,
    client,
    days,
    development,
    key_of,
    production,
    publish,
)

FIRST = [b'{"first":1}'] * 3


def read(device, repo, now=NOW):
    return device.read(repo, MODEL, GALLERY, RELEASE, now=now)


def with_object(repo, data=b"some bytes"):
    import hashlib

    path = repo / object_path(hashlib.sha256(data).hexdigest())
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def test_lost_repository_is_made_again_from_a_mirror(tmp_path):
    repo, keys = development(tmp_path)
    path, device = with_object(repo), client(tmp_path, repo)
    shutil.copytree(repo, tmp_path / "mirror")
    (tmp_path / "mirror/objects/ab").mkdir(exist_ok=True)
    (tmp_path / "mirror/objects/ab" / ("ab" * 32)).write_bytes(b"damaged")
    for number in range(5):
        publish(repo, keys, b'{"n":%d}' % number)  # of which the mirror knows nothing
    read(device, repo)
    shutil.rmtree(repo)
    done = recover(repo, keys, NOW + days(1), copies=[tmp_path / "mirror"])
    assert (done.objects, done.lost) == (1, ())
    assert path.read_bytes() == b"some bytes"
    assert read(device, repo, NOW + days(1)) == FIRST
    publish(repo, keys, b"{}", NOW + days(1))
    assert read(device, repo, NOW + days(1)) == [b"{}"] * 3


def test_old_copy_that_came_back_is_recovered_in_place(tmp_path):
    repo, keys = development(tmp_path)
    shutil.copytree(repo, tmp_path / "backup")
    device = client(tmp_path, repo)
    publish(repo, keys, b"{}")
    read(device, repo)
    shutil.rmtree(repo)
    shutil.copytree(tmp_path / "backup", repo)
    with pytest.raises(SyncError, match="restored from an old copy"):
        SignedMetadata.open(repo, keys)
    recover(repo, keys, NOW)
    assert read(device, repo) == FIRST


def test_newest_of_several_copies_is_taken(tmp_path):
    repo, keys = development(tmp_path)
    shutil.copytree(repo, tmp_path / "old")
    publish(repo, keys, b"{}")
    shutil.copytree(repo, tmp_path / "new")
    (tmp_path / "damaged").mkdir()
    shutil.rmtree(repo)
    done = recover(repo, keys, NOW, copies=[tmp_path / name for name in ("old", "damaged", "new")])
    assert read(client(tmp_path, repo), repo) == [b"{}"] * 3
    assert len(done.problems) == 1


def test_lost_repository_is_made_again_without_a_copy(tmp_path):
    repo, keys = development(tmp_path)
    device = client(tmp_path, repo)
    rotate(repo, keys, NOW, [KeyChange("timestamp", is_new=True)])
    keys = KeyRing.open(keys.folder)
    read(device, repo)
    late = client(tmp_path, repo, "device with the first root")
    shutil.rmtree(repo)
    recover(repo, keys, NOW, line="demo")
    assert read(device, repo) == [None] * 3
    publish(repo, keys, b"{}")
    assert read(device, repo) == [b"{}"] * 3
    assert read(late, repo) == [b"{}"] * 3


def test_revoked_key_does_not_come_back_with_a_recovery(tmp_path):
    repo, keys = development(tmp_path)
    rotate(repo, keys, NOW, [KeyChange("gallery", is_new=True)])
    keys = KeyRing.open(keys.folder)
    expected = SignedMetadata.open(repo, keys).role_keys("gallery")
    shutil.rmtree(repo)
    recover(repo, keys, NOW, line="demo")
    assert SignedMetadata.open(repo, keys).role_keys("gallery") == expected


def test_people_sign_a_repository_that_is_made_again_without_a_copy(tmp_path):
    repo, keys, draft = production(tmp_path)
    for name in ("alice", "bob"):
        sign_draft(draft, key_of(tmp_path, name))
    publish_draft(draft, repo, keys, NOW)
    keys = KeyRing.open(keys.folder)
    publish(repo, keys, b"{}")
    device = client(tmp_path, repo)
    read(device, repo)
    shutil.rmtree(repo)
    done = recover(repo, keys, NOW, line="demo").committed
    assert not done.is_published
    assert set(done.missing) == {"targets"}
    for name in ("alice", "carol"):
        sign_draft(done.draft, key_of(tmp_path, name))
    publish_draft(done.draft, repo, keys, NOW)
    publish(repo, keys, b"[]")
    assert read(device, repo) == [b"[]"] * 3


def test_mirror_needs_no_signature_of_people(tmp_path):
    repo, keys, draft = production(tmp_path)
    for name in ("alice", "bob"):
        sign_draft(draft, key_of(tmp_path, name))
    publish_draft(draft, repo, keys, NOW)
    keys = KeyRing.open(keys.folder)
    publish(repo, keys, b"{}")
    device = client(tmp_path, repo)
    read(device, repo)
    shutil.copytree(repo, tmp_path / "mirror")
    shutil.rmtree(repo)
    assert recover(repo, keys, NOW, copies=[tmp_path / "mirror"]).committed.is_published
    assert read(device, repo) == [b"{}"] * 3


def test_metadata_of_a_device_is_a_copy(tmp_path):
    repo, keys = development(tmp_path)
    device = client(tmp_path, repo)
    read(device, repo)
    shutil.rmtree(repo)
    done = recover(repo, keys, NOW, copies=[device.folder], line="demo")
    assert sorted(done.lost) == sorted([MODEL, GALLERY, RELEASE])  # they are published again from their folders
    publish(repo, keys, b"{}")
    assert read(device, repo) == [b"{}"] * 3


def test_lost_targets_are_named(tmp_path):
    repo, keys = development(tmp_path)
    shutil.copytree(repo, tmp_path / "mirror")
    shutil.rmtree(tmp_path / "mirror/targets/models")
    shutil.rmtree(repo)
    done = recover(repo, keys, NOW, copies=[tmp_path / "mirror"])
    assert done.lost == (MODEL,)
    assert read(client(tmp_path, repo), repo) == [None, *FIRST[1:]]


def test_copy_of_another_repository_is_refused(tmp_path):
    repo, keys = development(tmp_path)
    other = KeyRing.development(tmp_path / "other.keys")
    SignedMetadata.create(tmp_path / "other", "demo", "online", other, NOW)
    shutil.rmtree(repo)
    with pytest.raises(SyncError, match="root"):
        recover(repo, keys, NOW, copies=[tmp_path / "other"])


def test_damaged_repository_begins_again_from_its_roots(tmp_path):
    repo, keys = development(tmp_path)
    device = client(tmp_path, repo)
    read(device, repo)
    (repo / "metadata/2.snapshot.json").write_bytes(b"")
    recover(repo, keys, NOW)
    publish(repo, keys, b"{}")
    assert read(device, repo) == [b"{}"] * 3


def test_recovery_without_copy_and_line_is_refused(tmp_path):
    repo, keys = development(tmp_path)
    shutil.rmtree(repo)
    with pytest.raises(SyncError, match="say which line it is with --line"):
        recover(repo, keys, NOW)


def test_recovery_without_root_is_refused(tmp_path):
    with pytest.raises(SyncError, match="devices must enrol again"):
        recover(tmp_path / "repo", KeyRing.development(tmp_path / "keys"), NOW, line="demo")


def test_copy_without_metadata_is_refused(tmp_path):
    repo, keys = development(tmp_path)
    shutil.rmtree(repo)
    with pytest.raises(SyncError, match="no copy can be used"):
        recover(repo, keys, NOW, copies=[tmp_path / "nothing"])
