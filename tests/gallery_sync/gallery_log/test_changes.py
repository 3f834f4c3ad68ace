"""The difference of two stores is what makes one the other."""

from __future__ import annotations

import pytest

from edge.errors import SyncError
from gallery_sync.gallery_log.changes import between
from tests.gallery_sync.gallery_log.log_samples import delete, upsert, write_store

OLD = [upsert("same"), upsert("gone"), upsert("renamed"), upsert("moved"), upsert("pictured")]
RENAMED, MOVED = upsert("renamed", "Another label"), upsert("moved", seed=77)
PICTURED = upsert("pictured", thumbnail=b"\xff\xd8\xff another")
NEW = [MOVED, upsert("new"), RENAMED, upsert("same"), PICTURED]


def test_only_what_differs_is_a_change(tmp_path):
    old, new = write_store(tmp_path / "old", OLD), write_store(tmp_path / "new", NEW)
    assert list(between(old, new)) == [MOVED, upsert("new"), RENAMED, PICTURED, *delete("gone")]


def test_equal_stores_have_no_changes(tmp_path):
    old, new = write_store(tmp_path / "old", OLD), write_store(tmp_path / "new", reversed(OLD))
    assert not list(between(old, new))


def test_g6_all_items_deleted(tmp_path):
    old, new = write_store(tmp_path / "old", OLD), write_store(tmp_path / "new", [])
    assert list(between(old, new)) == delete("gone", "moved", "pictured", "renamed", "same")


@pytest.mark.parametrize("other", [{"space_id": "b" * 64}, {"category": "bolt"}])
def test_g4_stores_of_different_kinds_have_no_difference(tmp_path, other):
    old, new = write_store(tmp_path / "old", OLD), write_store(tmp_path / "new", NEW, **other)
    with pytest.raises(SyncError, match=r"found (embedding space|category) .*; publish a new base"):
        list(between(old, new))
