"""The files of public keys."""

from __future__ import annotations

import pytest

from edge.errors import SyncError
from gallery_sync.repository.private_keys import make_key
from gallery_sync.repository.public_keys import read_public


def test_private_key_given_as_public_is_refused(tmp_path):
    make_key(tmp_path, "alice")
    with pytest.raises(SyncError, match="never send this one to anybody"):
        read_public(tmp_path / "alice.pem")


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"keyid":"a","keytype":"x","scheme":"y","keyval":{}}', b"\xff"]
)
def test_damaged_public_key_is_refused(tmp_path, content):
    (tmp_path / "a.pub").write_bytes(content)
    with pytest.raises(SyncError, match="not a public key"):
        read_public(tmp_path / "a.pub")
