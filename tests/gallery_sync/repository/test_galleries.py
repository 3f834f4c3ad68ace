"""Changes of single items: segments, bases, spaces, urgent deletions."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.errors import SyncError
from edge.gallery.store import quantise
from gallery_sync.gallery_log import live_root
from gallery_sync.gallery_log.records import Delete, Upsert
from gallery_sync.gallery_log.store_records import read_records
from gallery_sync.repository.galleries import make_store, newest_root
from gallery_sync.repository.items.edit import list_items
from gallery_sync.repository.publish import publish, publish_gallery_change
from gallery_sync.repository.releases import rollback
from gallery_sync.repository.upkeep.check import check_repository
from tests.store_samples import SPACE, make_bundle, make_gallery, unit_rows
from tests.sync_samples import keys_of, published, time_now


def item(item_id: str, seed: int = 1) -> Upsert:
    vectors, scales = quantise(unit_rows(1, seed=seed))
    return Upsert(item_id, f"Item {item_id}", "{}", None, None, vectors, scales)


def change(repo: Path, *records: Upsert | Delete, space_id: str = SPACE, urgent: bool = False):
    changes = {"tyre": {space_id: list(records)}}
    return publish_gallery_change(repo, keys_of(repo), time_now(), changes, urgent=urgent)


def space_of(repo: Path):
    return published(repo).logs["tyre"].spaces[0]


def items_of(repo: Path, tmp_path: Path, sequence: int) -> list[str]:
    store = make_store(repo, "tyre", space_of(repo), sequence, tmp_path / "made")
    return sorted(record.item_id for record in read_records(store))


def test_changed_items_are_a_new_release(repo, tmp_path):
    release = change(repo, item("new"), Delete("i0")).release
    assert (release.sequence, release.bundle_id, release.gallery_sequence) == (4, "two", 3)
    segment = space_of(repo).segments[-1]
    assert (segment.after, segment.sequence, segment.upserts, segment.deletes, segment.urgent) == (2, 3, 1, 1, False)
    assert items_of(repo, tmp_path, 3) == ["i1", "i2", "i3", "new"]
    assert items_of(repo, tmp_path, 2) == ["i0", "i1", "i2", "i3"]
    assert check_repository(repo, time_now(), history=True).problems == []


def test_root_of_a_segment_is_that_of_the_store_it_makes(repo, tmp_path):
    change(repo, item("new"), item("i1", seed=9), Delete("i0"))
    store = make_store(repo, "tyre", space_of(repo), 3, tmp_path / "made")
    assert live_root.of_store(store) == newest_root(space_of(repo))


def test_change_that_changes_nothing_makes_no_release(repo):
    change(repo, item("new"))
    done = change(repo, item("new"), Delete("nobody"))
    assert (done.is_new, done.release.sequence) == (False, 4)


def test_urgent_deletion_is_kept_where_the_item_is_gone_already(repo):
    change(repo, Delete("i0"))
    done = change(repo, Delete("i0"), urgent=True)
    assert done.is_new
    first, second = space_of(repo).segments[-2:]
    assert (second.urgent, second.deletes, second.live_root == first.live_root) == (True, 1, True)


def test_urgent_deletion_reaches_devices_after_a_rollback(repo):
    rollback(repo, keys_of(repo), time_now(), "demo", 1)
    done = change(repo, Delete("i0"), urgent=True)
    assert (done.is_new, done.release.gallery_sequence) == (False, 1)
    assert space_of(repo).segments[-1].urgent
    assert check_repository(repo, time_now(), history=True).problems == []


def editable(repo: Path) -> dict[str, str]:
    return {str(one["item"]): str(one["label"]) for one in list_items(published(repo)) if one["category"] == "tyre"}


def go_back(repo: Path) -> None:
    """Return to the release before."""
    rollback(repo, keys_of(repo), time_now(), "demo", published(repo).release.sequence - 1)


def test_change_after_a_rollback_takes_back_what_came_after(repo):
    """The log goes on from its newest state, and devices get the earlier items with the change alone."""
    before = editable(repo)
    change(repo, Delete("i0"), item("wrong"))
    go_back(repo)
    assert editable(repo) == before
    release = change(repo, item("new")).release
    assert release.gallery_sequence == published(repo).gallery_sequence
    assert editable(repo) == before | {"new": "Item new"}
    assert check_repository(repo, time_now(), history=True).problems == []


def test_urgent_deletion_does_not_come_back_with_an_earlier_state(repo):
    change(repo, item("wrong"))
    go_back(repo)
    change(repo, Delete("i0"), urgent=True)
    change(repo, item("new"))
    assert editable(repo).keys() == {"i1", "i2", "i3", "new"}
    assert check_repository(repo, time_now(), history=True).problems == []


def test_category_that_began_after_the_state_has_no_items(repo, tmp_path):
    gallery = make_gallery(tmp_path / "g", 4, categories=("tyre", "rim"))
    publish(repo, keys_of(repo), time_now(), gallery_folder=gallery)
    go_back(repo)
    change(repo, item("new"))
    log = published(repo).logs["rim"].spaces[0]
    assert newest_root(log) == live_root.EMPTY
    assert check_repository(repo, time_now(), history=True).problems == []


@pytest.mark.parametrize(("category", "space_id"), [("car", SPACE), ("tyre", "b" * 64)])
def test_unknown_category_or_space_is_refused(repo, category, space_id):
    with pytest.raises(SyncError, match=f"'{category}' has no gallery in embedding space {space_id}"):
        publish_gallery_change(repo, keys_of(repo), time_now(), {category: {space_id: [item("new")]}})
    assert published(repo).release.sequence == 3


def test_one_gallery_sequence_is_shared_by_spaces_and_categories(repo, tmp_path):
    bundle = make_bundle(tmp_path / "b", "three", 3, space_id="b" * 64)
    gallery = make_gallery(tmp_path / "g", 3, space_id="b" * 64)
    publish(repo, keys_of(repo), time_now(), bundle_folder=bundle, gallery_folder=gallery)
    changes = {"tyre": {SPACE: [Delete("i0")], "b" * 64: [Delete("i0")]}}
    publish_gallery_change(repo, keys_of(repo), time_now(), changes, urgent=True)
    assert [space.segments[-1].sequence for space in published(repo).logs["tyre"].spaces] == [4, 4]


def test_many_deletions_make_a_new_base(repo, tmp_path):
    change(repo, Delete("i0"), Delete("i1"), Delete("i2"))
    space = space_of(repo)
    assert [base.sequence for base in space.bases] == [1, 3]
    assert space.bases[-1].items == 1
    assert space.segments[-1].sequence == 3  # devices near by take the segment
    assert items_of(repo, tmp_path, 3) == ["i3"]
    assert check_repository(repo, time_now(), history=True).problems == []
