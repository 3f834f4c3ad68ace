"""Galleries with right hashes and harmful content, as tests/hostile_galleries.py makes them."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.bundle.bundle import check_compatible, read_bundle
from edge.bundle.gallery_proof import prove_gallery
from edge.errors import FinesightError, GalleryError
from edge.gallery.generation import read_gallery, write_gallery_index
from edge.gallery.limits import MAX_ID_CHARACTERS, MAX_LABEL_CHARACTERS
from edge.gallery.loaded_gallery import load_gallery
from edge.gallery.search import Index
from edge.gallery.store import read_category, read_silhouettes, read_thumbnail, read_thumbnails
from edge.gallery.store_file import open_store
from edge.gallery.writer import GalleryWriter
from edge.imaging.image import encode_image
from edge.manifest.embedder import EmbedderModel
from edge.types import Hit
from tests.hostile_galleries import HOSTILE, first_store, make_hostile, read_index, write_index
from tests.store_samples import HEADS, SPACE, make_bundle, unit_rows

THUMBNAIL = encode_image(np.full((8, 8, 3), 90, np.uint8), ".jpg", 80)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return read_bundle(make_bundle(tmp_path_factory.mktemp("bundle"), "b-1"))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    for category in ("tyre", "wheel"):  # the bundle has no embedder for wheels
        with GalleryWriter(folder, category, SPACE, HEADS) as writer:
            for i in range(4):
                writer.add(
                    f"i{i}", f"Item {i}", unit_rows(3, seed=i), {"size": i}, thumbnail=THUMBNAIL, silhouettes=b"o" * 512
                )
            writer.delete("i3")
    write_gallery_index(folder, "2026-01-01T00:00:00Z")
    return folder


def prove(bundle, folder):
    """Do all that stands before a switch: the hashes, the embedding spaces, the proof."""
    gallery = read_gallery(folder)
    check_compatible(bundle, gallery)
    prove_gallery(bundle, gallery)
    return gallery


def test_good_gallery_passes_the_proof(bundle, good):
    assert prove(bundle, good).items == 6


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_gallery_is_refused_before_the_switch(tmp_path, bundle, good, name):
    folder = make_hostile(good, tmp_path / "g", name)
    with pytest.raises(FinesightError) as caught:
        prove(bundle, folder)
    message = str(caught.value)
    assert str(folder) in message or "tyre" in message or "category" in message
    assert "\n" not in message
    assert len(message) < 2000


@pytest.mark.parametrize("name", sorted(name for name in HOSTILE if not name.startswith(("index", "store"))))
def test_readers_raise_gallery_errors_alone(tmp_path, good, name):
    """Also where nobody proved the gallery: a kiosk reads thumbnails of whatever is on the disk."""
    path = first_store(make_hostile(good, tmp_path / "g", name))
    raised = 0
    for read in (
        lambda: read_category(path, SPACE, 12),
        lambda: read_silhouettes(path),
        lambda: read_thumbnail(path, "i0"),
        lambda: list(read_thumbnails(path)),
        lambda: write_gallery_index(path.parent, "2026-01-01T00:00:00Z"),
    ):
        try:
            read()
        except GalleryError as error:
            raised += 1
            assert str(path) in str(error)  # noqa: PT017  some readers see the harm, some need not
    assert raised or name.startswith(("thumbnail_cut", "thumbnail_bomb", "everything", "vectors_doubled"))


@pytest.mark.parametrize("name", ["tyre", "wheel"])
def test_category_is_proved_whether_or_not_the_bundle_searches_it(tmp_path, bundle, good, name):
    folder = shutil.copytree(good, tmp_path / "g")
    with closing(sqlite3.connect(folder / f"{name}.sqlite", isolation_level=None)) as store:
        store.execute("UPDATE items SET label = x'00'")
    write_index(folder, read_index(folder))
    with pytest.raises(GalleryError, match=rf"{name}\.sqlite: item 'i0': the label: found a bytes, expected text"):
        prove(bundle, folder)


def test_query_that_takes_too_long_is_a_gallery_error(good):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with (
        pytest.raises(GalleryError, match=r"tyre\.sqlite: damaged store: interrupted"),
        open_store(good / "tyre.sqlite", limit_s=0.0) as store,
    ):
        store.execute(endless).fetchall()


def test_store_cannot_be_written_through_the_door(good):
    for statement in ("DELETE FROM items", "CREATE TABLE x (y)", "PRAGMA user_version = 5"):
        before = (good / "tyre.sqlite").read_bytes()
        with contextlib.suppress(GalleryError), open_store(good / "tyre.sqlite") as store:
            store.execute(statement)
        assert before == (good / "tyre.sqlite").read_bytes()


def test_alike_items_do_not_fail_the_proof(tmp_path, bundle):
    """Thirty items with the same pictures: each is as near as the others."""
    with GalleryWriter(tmp_path, "tyre", SPACE, HEADS) as writer:
        for i in range(30):
            writer.add(f"i{i}", "Same", unit_rows(2, seed=1))
    write_gallery_index(tmp_path, "2026-01-01T00:00:00Z")
    prove(bundle, tmp_path)


def test_empty_gallery_and_empty_category_pass(tmp_path, bundle):
    (tmp_path / "none").mkdir()
    write_gallery_index(tmp_path / "none", "2026-01-01T00:00:00Z")
    prove(bundle, tmp_path / "none")
    GalleryWriter(tmp_path / "empty", "tyre", SPACE, HEADS).close()
    write_gallery_index(tmp_path / "empty", "2026-01-01T00:00:00Z")
    prove(bundle, tmp_path / "empty")


def answers(score):
    """A search that finds one item with this score, whatever the query."""
    return lambda self, queries, k: [[Hit("i0", "Item 0", score)] for _ in queries]


def test_a_search_that_misses_its_own_items_fails_the_proof(bundle, good, monkeypatch):
    """As would an index that a fault in this program builds wrong."""
    monkeypatch.setattr(Index, "search", answers(0.5))
    with pytest.raises(GalleryError, match=r"tyre\.sqlite: 9 of 9 stored vectors do not find their own item"):
        prove_gallery(bundle, read_gallery(good))


def test_scores_that_are_not_finite_fail_the_proof(bundle, good, monkeypatch):
    monkeypatch.setattr(Index, "search", answers(float("nan")))
    with pytest.raises(GalleryError, match="a search gives the scores"):
        prove_gallery(bundle, read_gallery(good))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"item_id": "x" * (MAX_ID_CHARACTERS + 1)}, "found 1025 characters, expected 1024 at most"),
        ({"label": "x" * (MAX_LABEL_CHARACTERS + 1)}, "found 1025 characters"),
        ({"label": "a\0b"}, "expected Unicode characters other than NUL"),
        ({"item_id": "\ud800"}, "expected Unicode characters other than NUL"),
        ({"metadata": {"a": float("nan")}}, "metadata: "),
        ({"metadata": {"a": "x" * 70_000}}, "metadata: found 70009 bytes of JSON"),
        ({"metadata": {"negative": "yes"}}, "metadata: found negative 'yes', expected true or false"),
        ({"metadata": {"a": {1, 2}}}, "metadata: "),
        ({"thumbnail": b"GIF89a"}, "found a thumbnail that is neither JPEG nor PNG"),
        ({"thumbnail": THUMBNAIL + bytes(5 << 20)}, "found a thumbnail of"),
    ],
)
def test_writer_writes_nothing_that_readers_refuse(tmp_path, changes, message):
    given_item = {"item_id": "x", "label": "x", "vectors": unit_rows(1), **changes}
    with pytest.raises(GalleryError, match=message), GalleryWriter(tmp_path, "tyre", SPACE, HEADS) as writer:
        writer.add(**given_item)


def test_writer_rejects_a_category_name_that_no_index_can_hold(tmp_path):
    for name, message in (("x" * 513, "found 513 characters"), ("a\0", "other than NUL"), ("", "is empty")):
        with pytest.raises(GalleryError, match=message):
            GalleryWriter(tmp_path, name, SPACE, HEADS)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(damage=st.lists(st.tuples(st.integers(0, 10**9), st.binary(min_size=1, max_size=40)), min_size=1, max_size=4))
def test_any_damage_gives_the_same_items_or_a_gallery_error(tmp_path_factory, bundle, good, damage):
    folder = shutil.copytree(good, tmp_path_factory.mktemp("damaged") / "g")
    path = first_store(folder)
    data = bytearray(path.read_bytes())
    for at, noise in damage:
        data[at % len(data) : at % len(data) + len(noise)] = noise
    path.write_bytes(data)
    write_index(folder, read_index(folder))
    try:
        gallery = prove(bundle, folder)
    except FinesightError:
        return
    indexes = load_gallery(bundle.manifest, gallery).indexes
    assert all(np.isfinite(hit.score) for hits in indexes["tyre"].search(unit_rows(5), 10) for hit in hits)


@settings(derandomize=True, max_examples=30, deadline=None)
@given(
    ids=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30),
        unique=True,
        max_size=5,
    ),
    label=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50),
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=10,
    ),
    scale=st.floats(0.96, 1.04),
)
def test_whatever_the_writer_takes_passes_the_proof(tmp_path_factory, bundle, ids, label, value, scale):
    folder = tmp_path_factory.mktemp("any")
    with GalleryWriter(folder, "tyre", SPACE, HEADS) as writer:
        for seed, item_id in enumerate(ids):
            writer.add(item_id, label, unit_rows(2, seed=seed) * np.float32(scale), {"value": value})
    write_gallery_index(folder, "2026-01-01T00:00:00Z")
    assert prove(bundle, folder).items == len(ids)


def test_silhouettes_of_a_bundle_that_weighs_them_are_loaded(bundle, good):
    model = bundle.manifest.embedders[0].model_dump()
    model["outline"] = {"tyre": {"mode": "absolute", "weight": 0.2}}
    manifest = bundle.manifest.model_copy(update={"embedders": [EmbedderModel.model_validate(model)]})
    loaded = load_gallery(manifest, read_gallery(good))
    assert sorted(loaded.silhouettes["tyre"].by_item) == ["i0", "i1", "i2"]
