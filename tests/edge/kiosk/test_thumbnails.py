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


def test_has_item(tmp_path):
    thumbnails = make_thumbnails(tmp_path)
    assert thumbnails.has_item("g1", "can", "i1")
    assert not thumbnails.has_item("g1", "can", "i2")
    assert not thumbnails.has_item("gone", "can", "i1")


def test_taught_item_shows_its_first_picture(tmp_path):
    thumbnails = make_thumbnails(tmp_path)
    item = thumbnails._store.save("Oats", None, [b"one", b"two"], "2026-01-01T00:00:00Z")
    assert thumbnails.thumbnail("g1", [], item.item_id) == b"one"
