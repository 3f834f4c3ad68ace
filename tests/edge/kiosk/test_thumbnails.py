"""Pictures of items, from the gallery and from what was taught."""

from __future__ import annotations

from edge.bundle.slots import gallery_folder
from edge.gallery.writer import GalleryWriter
from edge.kiosk.taught_store import TaughtStore
from edge.kiosk.thumbnails import ItemThumbnails
from tests.store_samples import HEADS, SPACE, unit_rows


def pictures_of(folder):
    for category in ("tyre", "can"):
        with GalleryWriter(gallery_folder(folder, "g1"), category, SPACE, HEADS) as writer:
            writer.add("i1", "Item", unit_rows(1), thumbnail=category.encode())
            writer.add("bare", "Item", unit_rows(1))
    return ItemThumbnails(folder, TaughtStore(folder / "overlay", 5))


def test_the_first_category_that_has_the_item_is_asked(tmp_path):
    pictures = pictures_of(tmp_path)
    assert pictures.picture("g1", ["jar", "can", "tyre"], "i1") == b"can"
    assert pictures.picture("g1", ["tyre"], "i1") == b"tyre"


def test_there_may_be_none(tmp_path):
    pictures = pictures_of(tmp_path)
    for item, categories in (("bare", ["can"]), ("other", ["can"]), ("i1", []), ("i1", ["jar"])):
        assert pictures.picture("g1", categories, item) is None
    assert pictures.picture("gone", ["can"], "i1") is None


def test_a_gallery_has_an_item_or_not(tmp_path):
    pictures = pictures_of(tmp_path)
    assert pictures.has_item("g1", "can", "i1")
    assert not pictures.has_item("g1", "can", "i2")
    assert not pictures.has_item("gone", "can", "i1")


def test_what_was_taught_shows_its_first_picture(tmp_path):
    pictures = pictures_of(tmp_path)
    item = pictures._store.keep("Oats", None, [b"one", b"two"], "2026-01-01T00:00:00Z")
    assert pictures.picture("g1", [], item.item_id) == b"one"
