"""Any repository file, response or URL gives a value or a FinesightError."""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import FinesightError, SyncError
from gallery_sync.formats.fields import object_path, parse
from gallery_sync.formats.unsigned import BundleHead, Envelope, GalleryHead
from gallery_sync.repository.upkeep.check import check_repository
from gallery_sync.repository.upkeep.unsigned_folder import read_history, read_release
from gallery_sync.transport.addresses import follow_redirect, parse_address
from gallery_sync.transport.repository_files import FolderTransport, HttpTransport, _offset, open_transport

ANY_INPUT = settings(derandomize=True, max_examples=60, deadline=None)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
HASHES = st.sampled_from(["a" * 64, "b" * 64])


def document(**fields: st.SearchStrategy) -> st.SearchStrategy:
    """A JSON object with these fields, whole or with any of them missing or of any value."""
    damaged = st.fixed_dictionaries({}, optional={name: field | VALUES for name, field in fields.items()})
    return st.fixed_dictionaries(fields) | damaged | VALUES


NUMBERS = st.integers(min_value=-1)
NAMES = st.sampled_from(["demo", "tyre", "../x", ""])
REFERENCES = document(sha256=HASHES, size=NUMBERS)
HEADS = st.lists(document(name=NAMES, dim=NUMBERS), max_size=2)
BUNDLE_HEADS = document(schema=st.just(1), line=NAMES, bundle_id=NAMES, sequence=NUMBERS, manifest=REFERENCES)
GALLERY_HEADS = document(
    schema=st.just(1), line=NAMES, category=NAMES, space_id=HASHES, heads=HEADS, sequence=NUMBERS, base=REFERENCES,
    items=NUMBERS, vectors=NUMBERS,
)  # fmt: skip
GALLERIES = document(generation=NAMES, created_at=NAMES, heads=st.dictionaries(NAMES, REFERENCES, max_size=2))
RELEASES = document(
    schema=st.just(1), line=NAMES, sequence=NUMBERS, created_at=NAMES, bundle=REFERENCES, gallery=GALLERIES
)


@ANY_INPUT
@given(st.binary(max_size=80), BUNDLE_HEADS, GALLERY_HEADS, document(signed=RELEASES))
def test_any_document_is_parsed_or_our_error(noise, bundle_head, gallery_head, envelope):
    for kind, tree in (BundleHead, bundle_head), (GalleryHead, gallery_head), (Envelope, envelope):
        for data in (json.dumps(tree).encode(), noise):
            with suppress(FinesightError):
                parse(kind, data, "document")


def whole_release(bundle: str, gallery: str) -> bytes:
    release = {
        "line": "demo", "sequence": 1, "created_at": "now", "bundle": {"sha256": bundle, "size": 1},
        "gallery": {"generation": "0" * 16, "created_at": "now", "heads": {"tyre": {"sha256": gallery, "size": 1}}},
    }  # fmt: skip
    return json.dumps({"signed": release}).encode()


@ANY_INPUT
@given(st.binary(max_size=80) | st.builds(whole_release, HASHES, HASHES), st.binary(max_size=1))
def test_any_repository_is_checked_or_our_error(release, content):
    with tempfile.TemporaryDirectory() as folder:
        stored = hashlib.sha256(content).hexdigest()
        (Path(folder) / "release.json").write_bytes(release.replace(b"a" * 64, stored.encode()))
        path = Path(folder) / object_path(stored)
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        with suppress(FinesightError):
            check_repository(Path(folder), datetime(2026, 1, 1, tzinfo=timezone.utc))


@ANY_INPUT
@given(st.binary(max_size=40), st.text(max_size=20))
def test_any_history_is_read_or_left_out(data, name):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "releases").mkdir()
        with suppress(OSError, ValueError):
            (Path(folder) / "releases" / f"{name}.json").write_bytes(data)
        (Path(folder) / "releases" / "1.json").write_bytes(whole_release("a" * 64, "b" * 64))
        (Path(folder) / "releases" / "2.json").write_bytes(data)
        assert [release.sequence for release in read_history(Path(folder))] == [1]


@ANY_INPUT
@given(st.text(max_size=40) | st.sampled_from(["http", "https", "ftp", ""]).flatmap(
    lambda scheme: st.text(max_size=30).map(lambda rest: f"{scheme}://{rest}")))  # fmt: skip
def test_any_redirect_leads_to_the_same_host_or_is_our_error(location):
    here = parse_address("https://shop.example/repo/release.json")
    with suppress(SyncError):
        there = follow_redirect(here, location, ())
        assert (there.scheme, there.host) == ("https", "shop.example")
        assert there.target.isascii()
        assert there.target.isprintable()
        assert " " not in there.target


@ANY_INPUT
@given(st.text(max_size=40) | st.text(max_size=20).map("http://127.0.0.1:9/".__add__))
def test_any_url_is_a_transport_or_our_error(url):
    with suppress(FinesightError):
        open_transport(url)


@ANY_INPUT
@given(st.text(max_size=30) | st.sampled_from(["a", "./a", "../a", "a/", "a\0"]))
def test_any_file_name_is_read_or_our_error(name):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a").write_bytes(b"content")
        for transport in FolderTransport(Path(folder)), HttpTransport("http://127.0.0.1:9", 1.0):
            with suppress(FinesightError), transport.get(name, 0) as body:
                list(body.chunks)


@ANY_INPUT
@given(st.text(max_size=40) | st.from_regex(r"bytes [0-9]-\d*/\d*"), st.integers(0, 9))
def test_any_content_range_is_an_offset_or_our_error(text, requested):
    response = SimpleNamespace(headers={"Content-Range": text}, status=206)
    with suppress(FinesightError):
        assert _offset(response, requested, "url")[0] == requested


@pytest.mark.parametrize("text", ["bytes " + "9" * 5000 + "-", "bytes \u0663-"])
def test_content_range_without_a_small_decimal_number_is_our_error(text):
    with pytest.raises(FinesightError, match="found content range"):
        _offset(SimpleNamespace(headers={"Content-Range": text}, status=206), 3, "url")


def test_missing_release_is_none(tmp_path):
    assert read_release(tmp_path) is None
