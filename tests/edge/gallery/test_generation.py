"""The gallery store."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import GalleryError
from edge.gallery.generation import generation_id, read_gallery, write_gallery_index
from edge.gallery.store import CategoryEntry, read_category, read_silhouettes, read_thumbnail
from edge.gallery.writer import GalleryWriter
from edge.manifest.embedder import Head

SPACE = "a" * 64
HEADS = [Head(name="class", dim=8), Head(name="local", dim=4)]
NOW = "2026-01-01T00:00:00Z"
JPEG = b"\xff\xd8\xff then the rest"


def unit_rows(n: int, dim: int = 12, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write(folder: Path, category: str = "tyre", n: int = 3) -> Path:
    with GalleryWriter(folder, category, SPACE, HEADS) as writer:
        for i in range(n):
            writer.add(f"i{i}", f"Item {i}", unit_rows(2, seed=i), {"size": i}, thumbnail=JPEG, silhouettes=b"o" * 512)
    return folder / f"{category}.sqlite"


def test_reading_returns_what_was_written(tmp_path):
    items = read_category(write(tmp_path), SPACE, 12)
    assert tuple(items.item_ids) == ("i0", "i1", "i2")
    assert items.labels[1] == "Item 1"
    assert items.negative.tolist() == [False, False, False]
    assert items.row_item.tolist() == [0, 0, 1, 1, 2, 2]
    assert [head.name for head in items.heads] == ["class", "local"]
    restored = items.vectors_i8[2:4] * items.scales[2:4, None]
    assert np.abs(restored - unit_rows(2, seed=1)).max() <= items.scales.max() / 2 + 1e-6
    assert read_thumbnail(tmp_path / "tyre.sqlite", "i1") == JPEG
    assert read_silhouettes(tmp_path / "tyre.sqlite")["i1"].tobytes() == b"o" * 512


def test_same_input_gives_the_same_bytes(tmp_path):
    assert write(tmp_path / "1").read_bytes() == write(tmp_path / "2").read_bytes()


def test_deleted_item_is_erased_and_can_be_added_again(tmp_path):
    base = write(tmp_path / "old")
    with GalleryWriter(tmp_path, "tyre", SPACE, HEADS, base=base) as writer:
        writer.delete("i1")
    items = read_category(tmp_path / "tyre.sqlite", SPACE, 12)
    assert tuple(items.item_ids) == ("i0", "i2")
    assert items.row_item.tolist() == [0, 0, 1, 1]
    with pytest.raises(GalleryError, match="no item 'i1'"):
        read_thumbnail(tmp_path / "tyre.sqlite", "i1")
    with GalleryWriter(tmp_path, "tyre", SPACE, HEADS, base=tmp_path / "tyre.sqlite") as writer:
        with pytest.raises(GalleryError, match="no live item 'i1'"):
            writer.delete("i1")
        writer.add("i1", "Again", unit_rows(1))
    assert tuple(read_category(tmp_path / "tyre.sqlite", SPACE, 12).labels) == ("Item 0", "Item 2", "Again")


def test_empty_category_can_be_read(tmp_path):
    items = read_category(write(tmp_path, n=0), SPACE, 12)
    assert items.vectors_i8.shape == (0, 12)
    assert tuple(items.item_ids) == ()


def test_failed_writer_keeps_the_old_store(tmp_path):
    before = write(tmp_path).read_bytes()
    with pytest.raises(GalleryError), GalleryWriter(tmp_path, "tyre", SPACE, HEADS) as writer:
        writer.delete("never there")
    assert before == (tmp_path / "tyre.sqlite").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["tyre.sqlite"]


def test_wrong_embedding_space_is_rejected_naming_both(tmp_path):
    with pytest.raises(GalleryError, match=f"found embedding space {SPACE}, expected {'b' * 64}"):
        read_category(write(tmp_path), "b" * 64, 12)


def test_wrong_vector_length_is_rejected(tmp_path):
    with pytest.raises(GalleryError, match="found vectors of 12 numbers, expected 13"):
        read_category(write(tmp_path), SPACE, 13)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (unit_rows(1, dim=5), r"found vectors of shape \(1, 5\), expected"),
        (unit_rows(0), "found vectors of shape"),
        (unit_rows(1) * 3, "found vector lengths 3.000"),
        (unit_rows(1) * np.nan, "found vector lengths nan"),
        (unit_rows(1) * 0, "found vector lengths 0.000"),
    ],
)
def test_vectors_that_are_not_unit_rows_are_rejected(tmp_path, vectors, message):
    with (
        pytest.raises(GalleryError, match=f"item 'x': {message}"),
        GalleryWriter(tmp_path, "tyre", SPACE, HEADS) as writer,
    ):
        writer.add("x", "x", vectors)


def test_adding_an_item_twice_is_rejected(tmp_path):
    with GalleryWriter(tmp_path, "tyre", SPACE, HEADS) as writer:
        writer.add("x", "x", unit_rows(1))
        with pytest.raises(GalleryError, match="item 'x': exists already"):
            writer.add("x", "x", unit_rows(1))


ANY_NAMES = [
    "AM General", "Jus d'orange 1 l", "果汁", "عصير", "a/b", "..", "../up", " leading blank", "😀", "x" * 300, "é",
    "e\u0301",
]  # fmt: skip


@pytest.mark.parametrize("name", ANY_NAMES)
def test_any_text_names_a_category_and_an_item(tmp_path, name):
    with GalleryWriter(tmp_path / "new", name, SPACE, HEADS) as writer:
        writer.add(name, name, unit_rows(1), thumbnail=JPEG)
    write_gallery_index(tmp_path / "new", NOW)
    gallery = read_gallery(tmp_path / "new")
    assert list(gallery.categories) == [name]
    assert gallery.path(name).parent == tmp_path / "new"
    assert list(read_category(gallery.path(name), SPACE, 12).item_ids) == [name]
    assert read_thumbnail(gallery.path(name), name) == JPEG


def test_categories_that_differ_in_case_have_a_store_each(tmp_path):
    for name in ("Cola", "cola", "Cola"):  # the third is written again
        with GalleryWriter(tmp_path, name, SPACE, HEADS) as writer:
            writer.add(name, name, unit_rows(1))
    gallery = write_gallery_index(tmp_path, NOW)
    assert len({path.name.casefold() for path in tmp_path.glob("*.sqlite")}) == 2
    assert read_gallery(tmp_path).categories == gallery.categories
    assert [list(read_category(gallery.path(name), SPACE, 12).item_ids) for name in ("Cola", "cola")] == [
        ["Cola"],
        ["cola"],
    ]


def test_category_needs_a_name(tmp_path):
    with pytest.raises(GalleryError, match="name of a category is empty"):
        GalleryWriter(tmp_path, "", SPACE, HEADS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE vectors SET scale = -1.0", "found a vector of length -"),
        ("UPDATE vectors SET scale = 9e999", "found a vector of length inf, expected 1"),
        ("UPDATE vectors SET scale = 'x'", "found scale 'x', expected a number"),
        ("UPDATE vectors SET vector = zeroblob(12)", "found a vector of length 0, expected 1"),
        ("UPDATE vectors SET vector = x'01'", "damaged vector"),
        ("UPDATE vectors SET item_id = 'ghost'", "a vector belongs to 'ghost'"),
        ("UPDATE items SET metadata = '{'", "damaged metadata"),
        ("UPDATE meta SET value = '9' WHERE key = 'schema'", "it has format 9, and finesight"),
        ("UPDATE meta SET value = 'x' WHERE key = 'schema'", "damaged store: no format"),
        ("UPDATE meta SET value = 'x' WHERE key = 'heads'", "damaged heads"),
        ("DROP TABLE vectors", "damaged store: its tables are not those of a gallery"),
    ],
)
def test_damaged_store_is_rejected_naming_its_path(tmp_path, change, message):
    path = write(tmp_path)
    store = sqlite3.connect(path)
    store.execute(change)
    store.commit()
    store.close()
    with pytest.raises(GalleryError, match=message) as caught:
        read_category(path, SPACE, 12)
    assert str(path) in str(caught.value)


def test_truncated_or_missing_store_is_rejected(tmp_path):
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(GalleryError, match="damaged store"):
        read_category(path, SPACE, 12)
    with pytest.raises(GalleryError, match="there is no such gallery store"):
        read_category(tmp_path / "none.sqlite", SPACE, 12)


def test_generation_id_depends_on_contents_only(tmp_path):
    for folder, when in (("1", "2026-01-01T00:00:00Z"), ("2", "2026-02-02T00:00:00Z")):
        write(tmp_path / folder)
        write(tmp_path / folder, "car", n=1)
        write_gallery_index(tmp_path / folder, when)
    one, two = read_gallery(tmp_path / "1"), read_gallery(tmp_path / "2")
    assert one.generation == two.generation
    assert (one.items, one.categories["tyre"].items, one.categories["tyre"].vectors) == (4, 3, 6)
    assert two.created_at == "2026-02-02T00:00:00Z"
    write(tmp_path / "2", "car", n=2)
    assert write_gallery_index(tmp_path / "2", NOW).generation != one.generation


def test_generation_with_an_altered_store_is_rejected(tmp_path):
    path = write(tmp_path)
    write_gallery_index(tmp_path, NOW)
    altered = bytearray(path.read_bytes())
    altered[-1] ^= 1
    path.write_bytes(bytes(altered))
    with pytest.raises(GalleryError, match=r"tyre\.sqlite: found SHA-256 .*, expected"):
        read_gallery(tmp_path)


def test_altered_index_is_rejected(tmp_path):
    write(tmp_path)
    generation = write_gallery_index(tmp_path, NOW).generation
    index = json.loads((tmp_path / "gallery.json").read_text())
    index["categories"]["tyre"]["items"] = 99
    (tmp_path / "gallery.json").write_text(json.dumps(index))
    with pytest.raises(GalleryError, match=f"expected {generation}"):
        read_gallery(tmp_path)
    index["categories"]["../../tyre"] = index["categories"].pop("tyre")
    (tmp_path / "gallery.json").write_text(json.dumps(index))
    with pytest.raises(GalleryError, match=f"expected {generation}"):
        read_gallery(tmp_path)
    (tmp_path / "gallery.json").unlink()
    with pytest.raises(GalleryError, match=r"gallery\.json: cannot be read"):
        read_gallery(tmp_path)


def test_silhouettes_are_one_row_per_picture(tmp_path):
    with GalleryWriter(tmp_path, "tyre", SPACE, HEADS) as writer:
        writer.add("round", "Round", unit_rows(2), silhouettes=bytes(range(256)) * 4)
        writer.add("plain", "Plain", unit_rows(1))
    silhouettes = read_silhouettes(tmp_path / "tyre.sqlite")
    assert list(silhouettes) == ["round"]
    assert silhouettes["round"].shape == (2, 512)
    assert silhouettes["round"][1, :3].tolist() == [0, 1, 2]


def test_incomplete_silhouette_is_rejected(tmp_path):
    with (
        pytest.raises(GalleryError, match="item 'i0': found silhouettes of 511 bytes, expected a multiple of 512"),
        GalleryWriter(tmp_path, "tyre", SPACE, HEADS) as writer,
    ):
        writer.add("i0", "Item", unit_rows(1), silhouettes=b"o" * 511)
    path = write(tmp_path)
    with sqlite3.connect(path) as store:
        store.execute("UPDATE items SET outline = x'00' WHERE item_id = 'i2'")
    with pytest.raises(GalleryError, match="item 'i2': damaged silhouettes"):
        read_silhouettes(path)


def test_shipped_gallery_has_no_silhouettes():
    assert read_silhouettes(Path(__file__).parents[3] / "demo/gallery/can.sqlite") == {}


VALUES = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from([SPACE, "tyre", "../x"]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=8), values, max_size=3),
    max_leaves=10,
)
ENTRY = {
    "size": st.integers(0, 10**9),
    "sha256": st.just(SPACE),
    "space_id": st.just(SPACE),
    "heads": st.lists(st.just({"name": "class", "dim": 8}), min_size=1, max_size=3),
    "items": st.integers(0, 10**6),
    "vectors": st.integers(0, 10**6),
}
INDEXES = st.fixed_dictionaries(
    {
        "schema": st.just(1) | VALUES,
        "generation": st.text(max_size=16) | VALUES,
        "created_at": st.text(max_size=20),
        "categories": st.dictionaries(st.text(max_size=8), st.fixed_dictionaries(ENTRY) | VALUES, max_size=2),
    }
)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(index=st.binary(max_size=40) | VALUES | INDEXES)
def test_any_index_gives_a_gallery_or_a_gallery_error(tmp_path_factory, index):
    folder = tmp_path_factory.mktemp("index")
    (folder / "gallery.json").write_bytes(index if isinstance(index, bytes) else json.dumps(index).encode())
    for verify in (True, False):
        with pytest.raises(GalleryError, match=r"gallery\.json: "):
            read_gallery(folder, verify=verify)


@settings(derandomize=True, max_examples=50, deadline=None)
@given(
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=90),
    entry=st.fixed_dictionaries(ENTRY),
)
def test_any_intact_index_of_missing_stores_is_a_gallery_error(tmp_path_factory, name, entry):
    folder = tmp_path_factory.mktemp("index")
    parsed = CategoryEntry.model_validate(entry)
    generation = generation_id({name: parsed})
    index = {"schema": 1, "generation": generation, "created_at": NOW, "categories": {name: parsed.model_dump()}}
    (folder / "gallery.json").write_text(json.dumps(index))
    assert read_gallery(folder, verify=False).generation == generation
    with pytest.raises(GalleryError, match=r"\.sqlite: "):
        read_gallery(folder)
