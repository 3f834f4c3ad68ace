"""Names of uploaded files."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.sets.file_names import names_with_hash, safe_name, split_hash


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
def test_any_name_becomes_a_plain_one(name):
    safe = safe_name(name, ".jpg")
    parts = safe.split("/")
    assert len(parts) <= 5
    assert all(part.strip(" .") and len(part.encode()) < 250 and part not in (".", "..") for part in parts)
    assert safe.isprintable()
    assert safe.lower().endswith((".jpg", ".jpeg"))


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "etc/passwd.jpg"),
        ("C:\\photos\\a.jpg", "C_/photos/a.jpg"),
        ("CON.jpg", "_CON.jpg"),
        ("a\0b.jpg", "a_b.jpg"),
        (".hidden.jpg", "hidden.jpg"),
        ("", "picture.jpg"),
        ("photo.JPEG", "photo.JPEG"),
        ("photo.png", "photo.png.jpg"),
    ],
)
def test_names_from_outside(name, safe):
    assert safe_name(name, ".jpg") == safe


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300), st.binary(max_size=8))
def test_the_hash_that_an_upload_puts_into_a_name_is_found_again(name, content):
    safe, sha256 = safe_name(name, ".jpg"), hashlib.sha256(content).hexdigest()
    for one in names_with_hash(safe, sha256):
        plain, digits = split_hash(one)
        assert plain == safe
        assert digits
        assert sha256.startswith(digits)


@pytest.mark.parametrize("name", ["shelf.png", "shelf~1234567.png", "shelf~12345678.old.png", "~12345678.png"])
def test_a_name_without_a_hash_stays(name):
    assert split_hash(name) == (name, "")
