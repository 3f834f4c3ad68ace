"""Private keys: made, read from their address, and refused."""

from __future__ import annotations

import pytest

from edge.errors import SyncError
from gallery_sync.repository.private_keys import first_that_signs, make_key, open_signer, public_of, sign


def test_private_key_is_for_its_owner_alone(tmp_path):
    make_key(tmp_path, "alice")
    assert (tmp_path / "alice.pem").stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in (tmp_path / "alice.pub").read_bytes()


def test_key_is_never_overwritten(tmp_path):
    make_key(tmp_path, "alice")
    before = (tmp_path / "alice.pem").read_bytes()
    with pytest.raises(SyncError, match="exists; keys are never overwritten"):
        make_key(tmp_path, "alice")
    assert (tmp_path / "alice.pem").read_bytes() == before


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".a"])
def test_name_of_a_key_is_a_file_name(tmp_path, name):
    with pytest.raises(SyncError, match="as the name of a key"):
        make_key(tmp_path, name)


def test_key_that_others_can_read_is_refused(tmp_path):
    key = make_key(tmp_path, "alice")
    (tmp_path / "alice.pem").chmod(0o644)
    with pytest.raises(SyncError, match="chmod 600"):
        open_signer("file2:alice.pem", key.public, tmp_path)


def test_key_in_the_environment_signs(tmp_path):
    key = make_key(tmp_path, "alice")
    environment = {"ALICE": (tmp_path / "alice.pem").read_text()}
    signer = open_signer("envvar:ALICE", key.public, tmp_path, environment)
    sign(signer, b"some bytes", "envvar:ALICE")
    with pytest.raises(SyncError, match="the variable is not set"):
        open_signer("envvar:BOB", key.public, tmp_path, environment)


def test_other_private_key_is_refused(tmp_path):
    alice, _ = make_key(tmp_path, "alice"), make_key(tmp_path, "bob")
    with pytest.raises(SyncError, match="private key of another public key"):
        open_signer("file2:bob.pem", alice.public, tmp_path)


def test_key_finds_its_public_half(tmp_path):
    alice, bob = make_key(tmp_path, "alice"), make_key(tmp_path, "bob")
    found = first_that_signs("file2:bob.pem", [alice.public, bob.public], tmp_path)
    assert found is not None
    assert found[0].keyid == bob.keyid
    assert first_that_signs("file2:bob.pem", [alice.public], tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"x", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_file_that_is_no_key_is_refused(tmp_path, content):
    key = make_key(tmp_path, "alice")
    path = tmp_path / "bad.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SyncError, match="not a private key in PEM") as caught:
        open_signer("file2:bad.pem", key.public, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("awskms:alias", r"securesystemslib\[awskms\]"),
        ("gcpkms:projects/x", r"securesystemslib\[gcpkms\]"),
        ("azurekms://x.vault.azure.net/keys/k/1", r"securesystemslib\[azurekms\]"),
        ("hsm:2", r"securesystemslib\[hsm\]"),
        ("hv:key/1", r"securesystemslib\[vault\]"),
        ("magic:key", "expected the address of a key"),
        ("file2:missing.pem", "No such file"),
    ],
)
def test_key_that_cannot_be_used_is_one_clear_error(tmp_path, uri, said, monkeypatch):
    monkeypatch.setenv("EDGE_SYNC_PIN", "1234")
    key = make_key(tmp_path, "alice")
    with pytest.raises(SyncError, match=said) as caught:
        sign(open_signer(uri, key.public, tmp_path), b"x", uri)
    assert "\n" not in str(caught.value)


def test_public_key_of_a_service_needs_its_library():
    with pytest.raises(SyncError, match=r"securesystemslib\[awskms\]"):
        public_of("awskms:alias")
    with pytest.raises(SyncError, match=r"others have a .pub file"):
        public_of("file2:x.pem")
