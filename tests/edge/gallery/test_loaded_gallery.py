"""Loading a gallery beside another one: what both hold is taken over."""

from __future__ import annotations

import shutil
import sqlite3

import numpy as np
import pytest

from edge.bundle.bundle import read_bundle
from edge.errors import GalleryError
from edge.gallery.changes import Digests, find_changes
from edge.gallery.generation import read_gallery, write_gallery_index
from edge.gallery.index_cache import IndexCache
from edge.gallery.loaded_gallery import Update, load_gallery
from edge.gallery.store import CategoryItems, read_category
from edge.gallery.store_file import open_store
from edge.gallery.store_rows import read_vectors
from edge.gallery.texts import Texts
from edge.gallery.writer import GalleryWriter
from edge.manifest.embedder import SilhouetteRule
from tests.edge.gallery.conftest import LISTS_FROM
from tests.store_samples import HEADS, SPACE, make_bundle, make_gallery, unit_rows

LARGE = LISTS_FROM + 100


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    manifest = read_bundle(make_bundle(tmp_path_factory.mktemp("bundle"), "b-1")).manifest
    embedder = manifest.embedders[0].model_copy(update={"gathering": 0.5})
    return manifest.model_copy(update={"embedders": [embedder]})


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A gallery of as many items as make a category large, each with one vector, but the first with three."""
    folder, rows = tmp_path_factory.mktemp("first"), unit_rows(LARGE + 2)
    with GalleryWriter(folder, "tyre", SPACE, HEADS) as writer:
        writer.add("i0", "Item 0", rows[:3], {"attributes": {"colour": "red"}})
        for i in range(1, LARGE):
            writer.add(f"i{i}", f"Item {i}", rows[i + 2 : i + 3])
    write_gallery_index(folder, "2026-01-01T00:00:00Z")
    return read_gallery(folder)


def changed_gallery(first, folder):
    """The gallery without `i1` and with `new`; `i2` has another label."""
    with GalleryWriter(folder, "tyre", SPACE, HEADS, base=first.path("tyre")) as writer:
        for item in ("i1", "i2"):
            writer.delete(item)
        writer.add("i2", "Renamed", unit_rows(LARGE + 2)[4:5])
        writer.add("new", "New", unit_rows(1, seed=9))
    write_gallery_index(folder, "2026-01-02T00:00:00Z")
    return read_gallery(folder)


def found(loaded, query):
    hit = loaded.indexes["tyre"].search(query[None], 1)[0][0]
    return hit.item_id, hit.label


def test_index_follows_the_items_that_changed(manifest, first, tmp_path, caplog):
    caplog.set_level("INFO")
    old = load_gallery(manifest, first)
    new = load_gallery(manifest, changed_gallery(first, tmp_path / "g"), old)
    assert new.updates == {"tyre": Update(added=2, removed=2, kept=LARGE - 2)}
    assert "gallery of tyre: 2 added, 2 removed" in caplog.text
    rows = unit_rows(LARGE + 2)
    assert found(new, unit_rows(1, seed=9)[0]) == ("new", "New")
    assert found(new, rows[4]) == ("i2", "Renamed")
    assert found(new, rows[3])[0] != "i1"
    assert found(new, rows[50]) == ("i48", "Item 48")
    assert found(old, rows[3]) == ("i1", "Item 1")  # the old one stays


def test_lists_of_a_gallery_that_was_removed_are_not_kept(manifest, first, tmp_path):
    """Items were deleted from it everywhere, while a device that still served it made its lists."""
    shutil.copytree(first.folder, tmp_path / "g")
    cache = IndexCache(tmp_path / "cache")
    loaded = load_gallery(manifest, read_gallery(tmp_path / "g"), cache=cache)
    shutil.rmtree(tmp_path / "g")
    loaded.indexes["tyre"].build_lists()
    assert loaded.indexes["tyre"].method == "lists"
    assert not cache.folder.exists()
    kept = load_gallery(manifest, first, cache=cache)
    kept.indexes["tyre"].build_lists()
    assert len(list(cache.folder.iterdir())) == 1


def test_unchanged_category_is_taken_over_as_it_is(manifest, first):
    old = load_gallery(manifest, first)
    new = load_gallery(manifest, first, old)
    assert new.indexes["tyre"] is old.indexes["tyre"]
    assert new.attributes["tyre"] is old.attributes["tyre"]
    assert new.updates == {}


def test_other_shrinking_builds_the_index_again(manifest, first):
    old = load_gallery(manifest, first)
    embedder = manifest.embedders[0].model_copy(update={"gathering": 0.25})
    new = load_gallery(manifest.model_copy(update={"embedders": [embedder]}), first, old)
    assert new.indexes["tyre"] is not old.indexes["tyre"]
    assert new.updates == {}


def test_gallery_that_shares_little_is_built_again(manifest, first, tmp_path):
    with GalleryWriter(tmp_path, "tyre", SPACE, HEADS) as writer:
        for i, row in enumerate(unit_rows(LARGE, seed=4)):
            writer.add(f"i{i}", "Other", row[None])
    write_gallery_index(tmp_path, "2026-01-02T00:00:00Z")
    new = load_gallery(manifest, read_gallery(tmp_path), load_gallery(manifest, first))
    assert new.updates == {}
    assert found(new, unit_rows(LARGE, seed=4)[7]) == ("i7", "Other")


def test_store_with_scattered_rows_is_built_again(manifest, first, tmp_path):
    path = tmp_path / "tyre.sqlite"
    path.write_bytes(first.path("tyre").read_bytes())
    with sqlite3.connect(path) as store:
        store.execute("UPDATE vectors SET row = row + 100000 WHERE row <= 2")
    write_gallery_index(tmp_path, "2026-01-02T00:00:00Z")
    new = load_gallery(manifest, read_gallery(tmp_path), load_gallery(manifest, first))
    assert new.updates == {}
    assert found(new, unit_rows(LARGE + 2)[50]) == ("i48", "Item 48")


def test_lists_are_built_once_and_change_no_answer(manifest, first):
    loaded = load_gallery(manifest, first)
    before = [found(loaded, row) for row in unit_rows(LARGE + 2)[:20]]
    assert loaded.needs_lists
    loaded.build_lists()
    assert not loaded.needs_lists
    assert [found(loaded, row) for row in unit_rows(LARGE + 2)[:20]] == before


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE items SET label = 'x' WHERE item_id = 'i0'",
        """UPDATE items SET metadata = '{"negative": true}' WHERE item_id = 'i0'""",
        "UPDATE vectors SET (vector, scale) = (SELECT vector, scale FROM vectors WHERE row = 9) WHERE row = 1",
        "UPDATE vectors SET row = row + 100000 WHERE row = 1",
    ],
)
def test_digest_covers_label_negative_and_vectors(first, tmp_path, sql):
    before = read_category(first.path("tyre"), SPACE, 12)
    path = tmp_path / "tyre.sqlite"
    path.write_bytes(first.path("tyre").read_bytes())
    with sqlite3.connect(path) as store:
        store.execute(sql)
    after = read_category(path, SPACE, 12)
    change = find_changes(Digests.of(before), [after], len(after.row_item))
    assert (change.removed, list(change.added.item_ids), change.kept) == (["i0"], ["i0"], LARGE - 1)
    assert len(change.added.row_item) == 3


def test_rows_in_any_order_are_grouped_by_item(first, tmp_path):
    path = tmp_path / "tyre.sqlite"
    path.write_bytes(first.path("tyre").read_bytes())
    with sqlite3.connect(path) as store:
        store.execute("UPDATE vectors SET row = row + 100000 WHERE row <= 2")
    items = read_category(path, SPACE, 12)
    assert np.all(np.diff(items.row_item) >= 0)
    assert np.array_equal(items.row_item, read_category(first.path("tyre"), SPACE, 12).row_item)


def test_item_id_that_is_there_twice_is_damage(first):
    path = first.path("tyre")
    with open_store(path) as store, pytest.raises(GalleryError, match="an item id is there twice"):
        list(read_vectors(store, path, Texts.of(["i0", "i0"]), 0, 12))


def test_empty_items_have_no_digests():
    none = CategoryItems(
        Texts.of([]), Texts.of([]), np.zeros(0, np.bool_), np.zeros((0, 12), np.int8), np.zeros(0, np.float32),
        np.zeros(0, np.int32), (),
    )  # fmt: skip
    digests = Digests.of(none)
    assert len(digests.digests) == 0
    assert find_changes(digests, [none], 0).removed == []


def test_texts_are_a_sequence_of_any_text():
    given = ["", "a", "é", "果汁", "😀" * 3, ""]
    texts = Texts.joined([Texts.of(given[:2]), Texts.of([]), Texts.of(given[2:])])
    assert (list(texts), len(texts), texts[-2], texts[1:4]) == (given, 6, "😀😀😀", given[1:4])
    with pytest.raises(IndexError):
        texts[6]


def test_gallery_without_the_silhouettes_that_thresholds_count_is_logged(manifest, tmp_path, caplog):
    """It is not refused: a localiser may find nothing in the few pictures of a new category."""
    rule = SilhouetteRule(mode="iou_only", weight=1.0)
    embedder = manifest.embedders[0].model_copy(update={"outline": {"tyre": rule}})
    weighing = manifest.model_copy(update={"embedders": [embedder]})
    plain = read_gallery(make_gallery(tmp_path / "plain"))
    assert load_gallery(manifest, plain).silhouettes == {}
    assert caplog.text == ""
    assert load_gallery(weighing, plain).silhouettes == {}
    assert "has no silhouettes, and the bundle's thresholds of category 'tyre' count them" in caplog.text
    empty = read_gallery(make_gallery(tmp_path / "empty", n=0))
    assert load_gallery(weighing, empty).indexes["tyre"].search(unit_rows(1), 1) == [[]]
