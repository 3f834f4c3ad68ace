"""Any signed document, record of a device or manifest gives a value or one of our errors."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import SyncError
from gallery_sync.device.last_release import newest_sequence
from gallery_sync.device.root_of_trust import trusted_root
from gallery_sync.device.security_floor import NAMES, read_security_floor
from gallery_sync.device.wanted import Known, check_log, read_wanted, runs_with
from gallery_sync.formats.documents import GalleryLog
from gallery_sync.formats.fields import parse
from tests.gallery_sync.device.test_wanted import FakeRepository, space

ANY_INPUT = settings(derandomize=True, max_examples=60, deadline=None)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
HASHES = st.sampled_from(["a" * 64, "b" * 64])
NUMBERS = st.integers(min_value=-1, max_value=4)
NAMES_OF_LINES = st.sampled_from(["demo", "tyre", "../x", ""])
PATHS = ["a.bin", "b/c.bin", "./a.bin", "A.bin", "bundle.json", "a.bin/b.bin", "../x.bin"]
FILES = {"path": st.sampled_from(PATHS), "size": st.integers(0, 9), "sha256": HASHES}


def document(**fields: st.SearchStrategy) -> st.SearchStrategy:
    """A JSON object with these fields, whole or with any of them missing or of any value."""
    damaged = st.fixed_dictionaries({}, optional={name: field | VALUES for name, field in fields.items()})
    return st.fixed_dictionaries(fields) | damaged


MANIFEST = {
    "schema": st.just(1), "bundle_id": st.just("demo"), "sequence": st.just(1), "runtimes": st.just(["fp32"]),
    "created_at": st.just("2026-01-01T00:00:00Z"),
    "files": st.lists(st.fixed_dictionaries(FILES) | document(**FILES), min_size=1, max_size=3),
}  # fmt: skip
RELEASE = {
    "schema": st.just(2), "line": st.just("demo"), "sequence": st.just(1), "created_at": st.just("now"),
    "bundle_id": st.just("demo"), "gallery_sequence": NUMBERS,
}  # fmt: skip
HEAD = {
    "schema": st.just(2), "line": st.just("demo"), "bundle_id": st.just("demo"), "sequence": st.just(1),
    "needs": st.sampled_from(["0", "0.1", "9"]),
}  # fmt: skip
RECORDS = document(lines=st.dictionaries(NAMES_OF_LINES, NUMBERS))
STATES = st.lists(NUMBERS, max_size=3)


def test_any_documents_are_a_release_or_our_error():
    found = []

    @ANY_INPUT
    @given(
        st.fixed_dictionaries(RELEASE) | document(**RELEASE),
        st.fixed_dictionaries(HEAD) | document(**HEAD),
        st.fixed_dictionaries(MANIFEST) | document(**MANIFEST),
    )
    def check(release, head, manifest):
        documents = {"rollout/demo.json": {"bundle_id": "demo"} | release, "models/demo/demo.json": head}
        repository = FakeRepository(documents, manifest)
        with suppress(SyncError, TypeError):  # the fake cannot add a manifest to what is no reference
            found.append(read_wanted(repository, repository, Known("demo")))

    check()
    assert len(found) > 1
    for wanted in found:
        paths = [path.casefold() for path in wanted.files()]
        assert len(set(paths)) == len(paths)
        assert set(paths) <= {"a.bin", "b/c.bin", "a.bin/b.bin"}
        assert not {"a.bin", "a.bin/b.bin"} <= set(paths)


@ANY_INPUT
@given(STATES, st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3), NUMBERS)
def test_any_gallery_log_is_checked_or_our_error(bases, segments, sequence):
    counts = {"object": {"sha256": "c" * 64, "size": 1}, "live_root": "0" * 64}
    tree = space(
        bases=[{"sequence": one, "items": 1, "vectors": 1, **counts} for one in bases],
        segments=[{"after": a, "sequence": b, "upserts": 1, "deletes": 0, **counts} for a, b in segments],
    )
    log = {"schema": 2, "line": "demo", "category": "tyre", "sequence": sequence, "spaces": [tree]}
    with suppress(SyncError):
        check_log(parse(GalleryLog, json.dumps(log).encode(), "log"), "demo", "log")


@ANY_INPUT
@given(
    st.binary(max_size=40) | document(lines=st.dictionaries(NAMES_OF_LINES, NUMBERS)).map(json.dumps).map(str.encode)
)
def test_any_record_of_a_device_is_read(data):
    with tempfile.TemporaryDirectory() as folder:
        device = Path(folder)
        (device / "trust").mkdir()
        for name in (*(f"trust/{name}" for name in NAMES), "current", "staged"):
            (device / name).write_bytes(data)
        assert 0 <= read_security_floor(device, "demo") < 2**53
        assert newest_sequence(device, "demo") == 0


@ANY_INPUT
@given(st.binary(max_size=20), st.binary(max_size=20), st.binary(min_size=1, max_size=20))
def test_any_copies_of_the_root_give_one_or_our_error(first, second, given_root):
    with tempfile.TemporaryDirectory() as folder:
        trust = Path(folder, "trust")
        trust.mkdir()
        (trust / "root").write_bytes(first)
        (trust / "root.copy").write_bytes(second)
        with suppress(SyncError):
            assert trusted_root(Path(folder), given_root) == given_root


@ANY_INPUT
@given(st.text(max_size=12), st.text(max_size=12))
def test_any_versions_are_compared(version, needs):
    assert runs_with(version, needs) in (True, False)
