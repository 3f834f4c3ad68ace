"""Thumbnails of items, from the gallery and from taught items."""

from __future__ import annotations

from edge.bundle.layout import gallery_folder
from edge.gallery.writer import GalleryWriter
from edge.kiosk.taught_store import TaughtStore
from edge.kiosk.thumbnails import ItemThumbnails
from tests.store_samples import HEADS, SPACE, unit_rows


def jpeg(text):
    return b"\xff\xd8\xff" + text.encode()


def make_thumbnails(folder):
    for category in ("tyre", "can"):
        with GalleryWriter(gallery_folder(folder, "g1"), category, SPACE, HEADS) as writer:
            writer.add("i1", "Item", unit_rows(1), thumbnail=jpeg(category))
            writer.add("bare", "Item", unit_rows(1))
    return ItemThumbnails(folder, TaughtStore(folder / "overlay", 5))


def test_first_category_with_the_item_is_used(tmp_path):
    thumbnails = make_thumbnails(tmp_path)
    assert thumbnails.thumbnail("g1", ["jar", "can", "tyre"], "i1") == jpeg("can")
    assert thumbnails.thumbnail("g1", ["tyre"], "i1") == jpeg("tyre")


def test_missing_thumbnail_is_none(tmp_path):
    thumbnails = make_thumbnails(tmp_path)
    for item, categories in (("bare", ["can"]), ("other", ["can"]), ("i1", []), ("i1", ["jar"])):
        assert thumbnails.thumbnail("g1", categories, item) is None
    assert thumbnails.thumbnail("gone", ["can"], "i1") is None


def test_items_that_a_gallery_has_or_had_are_held(tmp_path):
    thumbnails = make_thumbnails(tmp_path)
    with GalleryWriter(gallery_folder(tmp_path, "g1"), "jar", SPACE, HEADS) as writer:
        writer.add("jam", "Jam", unit_rows(1), {"also": ["i2", 7], "sku": 1})
        writer.add("odd", "Odd", unit_rows(1), {"also": "i3"})
    ids = ["i1", "i2", "i3"]
    assert thumbnails.held("g1", "can", ids) == {"i1"}
    assert thumbnails.held("g1", "jar", ids) == {"i2"}
    assert thumbnails.held("gone", "can", ids) == frozenset()


def test_taught_item_shows_its_first_picture(tmp_path):
    thumbnails = make_thumbnails(tmp_path)
    item = thumbnails._store.save("Oats", None, [b"one", b"two"], "2026-01-01T00:00:00Z")
    assert thumbnails.thumbnail("g1", [], item.item_id) == b"one"
