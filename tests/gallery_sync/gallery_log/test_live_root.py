"""Live roots: the items alone decide, and a change adds and subtracts."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import GalleryError
from edge.gallery.writer import GalleryWriter
from gallery_sync.gallery_log import live_root
from gallery_sync.gallery_log.records import digest, encode
from gallery_sync.gallery_log.store_records import read_records
from tests.gallery_sync.gallery_log.log_samples import upsert, write_store
from tests.store_samples import HEADS, SPACE

ITEMS = [upsert("a", silhouettes=b"\1" * 512), upsert("b", thumbnail=None), upsert("ü")]


def test_root_does_not_depend_on_the_order(tmp_path):
    roots = {live_root.of_store(write_store(tmp_path / str(n), ITEMS[n:] + ITEMS[:n])) for n in range(3)}
    assert roots == {live_root.root_text(sum(map(digest, ITEMS)))}


def test_g6_root_of_an_empty_store(tmp_path):
    assert live_root.of_store(write_store(tmp_path, [])) == live_root.EMPTY


def test_records_of_a_store_are_those_it_was_made_of(tmp_path):
    assert [encode(one) for one in read_records(write_store(tmp_path, ITEMS))] == [encode(one) for one in ITEMS]


def test_tombstones_of_a_store_do_not_count(tmp_path):
    base = write_store(tmp_path / "a", ITEMS)
    with GalleryWriter(tmp_path / "b", "tyre", SPACE, HEADS, base=base) as writer:
        writer.delete("b")
    rest = write_store(tmp_path / "c", [ITEMS[0], ITEMS[2]])
    assert live_root.of_store(tmp_path / "b/tyre.sqlite") == live_root.of_store(rest)


@pytest.mark.parametrize("field", ["label", "metadata", "thumbnail", "silhouettes", "scales", "vectors_i8"])
def test_every_part_of_an_item_counts(field):
    one = upsert("a")
    other = {"label": "other", "metadata": '{"a": 1}', "thumbnail": None, "silhouettes": b"\0" * 512}
    other |= {"scales": one.scales * np.float32(1.001), "vectors_i8": one.vectors_i8[::-1]}
    assert digest(one) != digest(upsert("a", **{field: other[field]}))


@given(st.lists(st.integers(0, 20), max_size=30))
def test_root_that_follows_changes_is_that_of_the_items(toggles):
    root, held = 0, {}
    for number in toggles:
        one = upsert(f"i{number}")
        root += -digest(held.pop(number)) if number in held else digest(held.setdefault(number, one))
    assert live_root.root_text(root) == live_root.root_text(sum(map(digest, held.values())))


def test_rows_out_of_order_are_sorted(tmp_path):
    """A store of another tool may mix the rows of its items."""
    store = write_store(tmp_path, ITEMS)
    root = live_root.of_store(store)
    with sqlite3.connect(store) as opened:
        rows = opened.execute("SELECT item_id, vector, scale FROM vectors ORDER BY row").fetchall()
        opened.execute("DELETE FROM vectors")
        mixed = [*rows[0::2], *rows[1::2]]
        opened.executemany("INSERT INTO vectors (item_id, vector, scale) VALUES (?, ?, ?)", mixed)
    opened.close()
    assert live_root.of_store(store) == root


def test_damaged_store_has_no_root(tmp_path):
    store = write_store(tmp_path, ITEMS)
    with sqlite3.connect(store) as opened:
        opened.execute("DELETE FROM vectors WHERE item_id = 'b'")
    opened.close()
    with pytest.raises(GalleryError, match="has no vector"):
        live_root.of_store(store)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ("UPDATE items SET outline = 'text'", "silhouettes of type str"),
        ("UPDATE items SET thumbnail = 'text'", "neither JPEG nor PNG"),
        ("UPDATE items SET label = x'00ff'", "the label: found a bytes"),
        ("UPDATE items SET metadata = '{'", "the metadata"),
        ("UPDATE vectors SET scale = 9e999", "vector of length"),
        ("UPDATE vectors SET scale = 'x'", "damaged vectors"),
        ("UPDATE vectors SET vector = x'00'", "damaged vectors"),
        ("UPDATE vectors SET item_id = x'00'", "no vector"),
    ],
)
def test_hostile_rows_are_refused(tmp_path, change, wrong):
    store = write_store(tmp_path, ITEMS)
    with sqlite3.connect(store) as opened:
        opened.execute(change)
    opened.close()
    with pytest.raises(GalleryError, match=wrong):
        live_root.of_store(store)
