"""A store from a gallery log: its live root is the identity of what it holds."""

from __future__ import annotations

import json
import sqlite3

import pytest

from edge.errors import GalleryError
from edge.gallery.generation import generation_id, read_gallery, write_gallery_index
from edge.gallery.store import CategoryEntry, read_category
from edge.gallery.writer import GalleryWriter
from tests.store_samples import HEADS, SPACE, make_gallery, unit_rows

ROOT, DIM = "1" * 64, sum(head.dim for head in HEADS)


def rooted(folder, order=(0, 1, 2), root=ROOT):
    """A gallery whose store says that it is from a log."""
    with GalleryWriter(folder, "tyre", SPACE, HEADS) as writer:
        for i in order:
            writer.add(f"i{i}", f"Item {i}", unit_rows(2, seed=i))
    set_root(folder / "tyre.sqlite", root)
    return write_gallery_index(folder, "2026-01-01T00:00:00Z")


def set_root(store, root):
    with sqlite3.connect(store) as opened:
        opened.execute("REPLACE INTO meta VALUES ('live_root', ?)", (root,))
    opened.close()


def test_same_root_has_the_same_generation_id(tmp_path):
    one, other = rooted(tmp_path / "a"), rooted(tmp_path / "b", order=(2, 0, 1))
    assert one.categories["tyre"].sha256 != other.categories["tyre"].sha256
    assert one.generation == other.generation == read_gallery(tmp_path / "b").generation
    assert one.generation != rooted(tmp_path / "c", root="2" * 64).generation


def test_space_and_heads_are_part_of_the_id(tmp_path):
    entry = rooted(tmp_path).categories["tyre"]
    changed = [{"space_id": "b" * 64}, {"heads": entry.heads[:1]}]
    ids = {generation_id({"tyre": entry.model_copy(update=one)}) for one in ({}, *changed)}
    assert len(ids) == 3


def test_stores_without_a_root_keep_their_id(tmp_path):
    """Ids of galleries that were made before there were gallery logs."""
    folder = make_gallery(tmp_path)
    gallery = read_gallery(folder)
    entry = CategoryEntry(size=1, sha256="a" * 64, space_id=SPACE, heads=HEADS, items=1, vectors=2)
    assert generation_id({"tyre": entry}) == "ddb4fa07b795043b"
    assert gallery.categories["tyre"].live_root is None
    assert "live_root" not in (folder / "gallery.json").read_text()
    assert generation_id({}) == "44136fa355b3678a"


def test_one_store_without_a_root_makes_the_id_depend_on_bytes(tmp_path):
    plain = read_gallery(make_gallery(tmp_path / "plain")).categories["tyre"]
    one, other = (rooted(tmp_path / str(n), order=order).categories["tyre"] for n, order in enumerate([(0, 1), (1, 0)]))
    assert generation_id({"a": plain, "b": one}) != generation_id({"a": plain, "b": other})


def test_store_of_another_root_than_the_index_says_is_refused(tmp_path):
    gallery = rooted(tmp_path)
    store = tmp_path / "tyre.sqlite"
    for root in ("2" * 64, "no root"):
        set_root(store, root)
        with pytest.raises(GalleryError, match="found live root"):
            read_category(store, SPACE, DIM, gallery.categories["tyre"])


def test_file_is_still_verified(tmp_path):
    rooted(tmp_path)
    set_root(tmp_path / "tyre.sqlite", ROOT.replace("1", "3"))
    with pytest.raises(GalleryError, match="expected"):
        read_gallery(tmp_path)


@pytest.mark.parametrize("root", ["", "g" * 64, "1" * 63, "F" * 64])
def test_damaged_root_is_an_error(tmp_path, root):
    with pytest.raises(GalleryError, match="live_root"):
        rooted(tmp_path, root=root)
    text = json.loads((rooted(tmp_path / "good").folder / "gallery.json").read_text())
    text["categories"]["tyre"]["live_root"] = root
    (tmp_path / "good/gallery.json").write_text(json.dumps(text))
    with pytest.raises(GalleryError, match="live_root"):
        read_gallery(tmp_path / "good")
