"""The list of keys beside a repository."""

from __future__ import annotations

import json

import pytest

from edge.errors import SyncError
from gallery_sync.repository.keys import KeyRing, RoleKeys
from gallery_sync.repository.private_keys import HeldKey, make_key


def test_ring_is_read_as_it_was_written(tmp_path):
    ring = KeyRing.development(tmp_path).with_coming([make_key(tmp_path, "new")])
    ring.write()
    assert KeyRing.open(tmp_path) == ring
    assert KeyRing.development(tmp_path) == ring


def test_ring_without_addresses_signs_nothing(tmp_path):
    key = make_key(tmp_path, "alice")
    ring = KeyRing(tmp_path, {}, coming=(HeldKey(key.public),))
    assert ring.signer(key.public) is None


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"schema":2,"roles":{}}', b'{"schema":1,"roles":{"king":{}}}', b"\0"]
)
def test_damaged_ring_is_one_clear_error(tmp_path, content):
    (tmp_path / "keys.json").write_bytes(content)
    with pytest.raises(SyncError, match="restore it from your copy") as caught:
        KeyRing.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_damaged_list_of_versions_is_as_none(tmp_path):
    (tmp_path / "published.json").write_bytes(b'{"timestamp":')
    assert KeyRing(tmp_path, {}).published() == {}


def test_revoked_key_is_forgotten(tmp_path):
    ring = KeyRing.development(tmp_path)
    new = make_key(tmp_path, "timestamp-2")
    coming = ring.with_coming([new])
    assert coming.uri_of(new.keyid) == "file2:timestamp-2.pem"
    after = coming.as_published({**ring.roles, "timestamp": RoleKeys(1, (new,))})
    assert after.coming == ()
    assert after.uri_of(ring.roles["timestamp"].keys[0].keyid) is None
    assert json.loads((tmp_path / "keys.json").read_bytes())["roles"]["timestamp"]["threshold"] == 1
