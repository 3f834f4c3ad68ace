"""The store of one category: a sqlite file with its items, their vectors and their thumbnails.

Rules this module keeps:
1. Vectors are the source of truth. Search indexes are built from them.
2. A store names its embedding space. To read it, a caller must name the same space and vector length.
3. A store is data from outside, also where its hash is right: everything in it is checked when it is read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge.durable import sha256_of
from edge.errors import GalleryError, first_validation_error, one_line
from edge.file_names import file_name, hashed_file_name
from edge.gallery import limits
from edge.gallery.limits import text_problem, thumbnail_problem
from edge.gallery.store_file import check_pages, open_store
from edge.gallery.store_rows import Heads, count_rows, read_items, read_properties, read_vectors
from edge.manifest.embedder import Head
from edge.manifest.fields import Sha256
from edge.manifest.model import MAX_DIM
from edge.silhouettes.silhouette import SIZE as SILHOUETTE_SIZE
from edge.types import FloatArray

SUFFIX = ".sqlite"
_MAX_HELD_ROWS = 65_536  # of one item, to read a store item by item


@dataclass(frozen=True, slots=True)
class CategoryItems:
    """The live items of one category, in the form that search needs. As read, the rows of an item follow each other."""

    item_ids: Sequence[str]
    labels: Sequence[str]
    negative: NDArray[np.bool_]  # (items,), must not be named: see edge.gallery.limits.NEGATIVE
    vectors_i8: NDArray[np.int8]  # (n, dim), the joint vector in head order
    scales: FloatArray  # (n,), vector = int8 * scale
    row_item: NDArray[np.int32]  # (n,), index of the item that a row belongs to
    heads: tuple[Head, ...]


class CategoryEntry(BaseModel):
    """The entry of one category's store in a gallery index."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    size: Annotated[int, Field(ge=0, le=limits.MAX_STORE_BYTES)]  # bytes of the store
    sha256: Sha256  # of the store
    space_id: Sha256  # embedding space of the vectors
    heads: Heads  # parts of a vector, in order
    items: Annotated[int, Field(ge=0, le=limits.MAX_ITEMS)]  # live items
    vectors: Annotated[int, Field(ge=0, le=limits.MAX_VECTORS)]  # number of vectors
    live_root: Sha256 | None = None  # stands for its items in any order; None: the store is not from a gallery log

    @model_validator(mode="after")
    def _is_bounded(self) -> CategoryEntry:
        if self.dim > MAX_DIM or self.dim * self.vectors > limits.MAX_VECTOR_BYTES:
            raise ValueError(
                f"found {self.vectors} vectors of {self.dim} numbers, expected at most {MAX_DIM} numbers each and "
                f"{limits.MAX_VECTOR_BYTES} together"
            )
        return self

    @property
    def dim(self) -> int:
        """Length of the joint vector."""
        return sum(head.dim for head in self.heads)


def store_path(folder: Path, category: str) -> Path:
    """Return the path of the store of a category in the folder of a generation."""
    hashed = folder / f"{hashed_file_name(category)}{SUFFIX}"
    return hashed if hashed.is_file() else folder / f"{file_name(category)}{SUFFIX}"


def new_store_path(folder: Path, category: str) -> Path:
    """Return where to write the store of a category: beside one whose name differs in case alone, under a hash."""
    path = store_path(folder, category)
    taken = {other.name for other in folder.glob(f"*{SUFFIX}")} - {path.name}
    if path.name.casefold() in {name.casefold() for name in taken}:
        return folder / f"{hashed_file_name(category)}{SUFFIX}"
    return path


def quantise(vectors: FloatArray) -> tuple[NDArray[np.int8], FloatArray]:
    """Quantise float32 rows to int8 rows with one scale each: the largest component of a row becomes 127."""
    scales = (np.abs(vectors).max(axis=1) / 127.0).astype(np.float32)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales


def group_rows(items: CategoryItems) -> CategoryItems:
    """Return items with the rows of each together, in the order of the items."""
    if np.all(items.row_item[1:] >= items.row_item[:-1]):
        return items
    order = np.argsort(items.row_item, kind="stable")
    return replace(
        items, vectors_i8=items.vectors_i8[order], scales=items.scales[order], row_item=items.row_item[order]
    )


def read_category(path: Path, space_id: str, dim: int, entry: CategoryEntry | None = None) -> CategoryItems:
    """Read the live items of one store, and check everything in it that search and events need.

    Args:
        path: the store.
        space_id: embedding space of the queries.
        dim: length of their vectors.
        entry: of the store in the gallery's index; its counts must be right. None: there is no index.

    Raises:
        GalleryError: the store is missing, damaged, not as its entry says, or in another embedding space.
    """
    with _open_category(path, space_id, dim, entry) as (store, heads, count):
        ids, labels, negative = read_items(store, path)
        vectors_i8, scales = np.empty((count, dim), np.int8), np.empty(count, np.float32)
        row_item = np.empty(count, np.int32)
        done = 0
        for items, rows, factors in read_vectors(store, path, ids, count, dim):
            part = slice(done, done + len(rows))
            row_item[part], vectors_i8[part], scales[part] = items, rows, factors
            done += len(rows)
    return group_rows(CategoryItems(ids, labels, negative, vectors_i8, scales, row_item, tuple(heads)))


def iterate_category(path: Path, space_id: str, dim: int, entry: CategoryEntry) -> Generator[CategoryItems, None, None]:
    """Yield the same items in the same order, some thousand rows at a time, with all rows of each.

    Raises:
        UngroupedError: the rows of an item do not follow each other, as GalleryWriter writes them, or are very many.
        GalleryError: as `read_category`.
    """
    with _open_category(path, space_id, dim, entry) as (store, heads, count):
        ids, labels, negative = read_items(store, path)
        items, rows, scales = np.zeros(0, np.int32), np.zeros((0, dim), np.int8), np.zeros(0, np.float64)
        first = 0  # item that was not yielded yet

        def batch(end: int, count: int) -> CategoryItems:
            some = slice(first, end)
            vectors = rows[:count], scales[:count].astype(np.float32), items[:count] - np.int32(first)
            return CategoryItems(ids[some], labels[some], negative[some], *vectors, tuple(heads))

        for more in read_vectors(store, path, ids, count, dim):
            items, rows = np.concatenate([items, more[0]]), np.concatenate([rows, more[1]])
            scales = np.concatenate([scales, more[2]])
            if items[0] < first or np.any(items[1:] < items[:-1]) or len(items) > _MAX_HELD_ROWS:
                raise UngroupedError(path)
            if (last := int(items[-1])) > first:  # which may have more rows
                done = int(np.searchsorted(items, last))
                yield batch(last, done)
                first, items, rows, scales = last, items[done:], rows[done:], scales[done:]
        yield batch(len(ids), len(items))


class UngroupedError(Exception):
    """A store cannot be read item by item."""


@contextmanager
def _open_category(
    path: Path, space_id: str, dim: int, entry: CategoryEntry | None
) -> Iterator[tuple[sqlite3.Connection, list[Head], int]]:
    """Open a store and check all but its rows; give its heads and the number of its vectors."""
    with open_store(path) as store:
        properties, heads = read_properties(store, path)
        if properties.get("space_id") != space_id:
            raise GalleryError(f"{path}: found embedding space {properties.get('space_id')}, expected {space_id}")
        if (found_dim := sum(head.dim for head in heads)) != dim:
            raise GalleryError(f"{path}: found vectors of {found_dim} numbers, expected {dim}")
        check_pages(store, path)
        counts = count_rows(store)
        if entry is not None:
            _check_entry(path, entry, properties, heads, counts)
        _check_counts(path, *counts, dim)
        yield store, heads, counts[1]


def _check_entry(
    path: Path, entry: CategoryEntry, properties: dict[str, str], heads: list[Head], counts: tuple[int, int]
) -> None:
    """Check that a store is what its entry in the index says."""
    _check_file_name(path, properties)
    if (*counts, heads) != (entry.items, entry.vectors, entry.heads):
        raise GalleryError(
            f"{path}: found {counts[0]} items and {counts[1]} vectors of {_names(heads)}, expected {entry.items} and "
            f"{entry.vectors} of {_names(entry.heads)}"
        )
    if (root := properties.get("live_root")) != entry.live_root:
        raise GalleryError(f"{path}: found live root {one_line(repr(root))}, expected {entry.live_root}")


def _names(heads: list[Head]) -> str:
    return " + ".join(f"{head.name} {head.dim}" for head in heads)


def _check_file_name(path: Path, properties: dict[str, str]) -> None:
    """Check that a store has the file name of its category."""
    category = properties.get("category", "")
    own = {f"{name}{SUFFIX}" for name in (file_name(category), hashed_file_name(category))}
    if path.name not in own:
        raise GalleryError(
            f"{path}: found the store of category {one_line(repr(category))}; its file name is "
            f"{' or '.join(sorted(own))}"
        )


def _check_counts(path: Path, items: int, vectors: int, dim: int) -> None:
    """Check that a store is of a size that this version searches, before its rows are read."""
    if items > limits.MAX_ITEMS or vectors > min(limits.MAX_VECTORS, limits.MAX_VECTOR_BYTES // dim):
        raise GalleryError(
            f"{path}: found {items} items and {vectors} vectors of {dim} numbers, expected at most {limits.MAX_ITEMS} "
            f"items, {limits.MAX_VECTORS} vectors and {limits.MAX_VECTOR_BYTES} numbers; make several categories of it"
        )
    if vectors * dim > (size := path.stat().st_size):
        raise GalleryError(f"{path}: damaged store: {vectors} vectors of {dim} numbers are not in {size} bytes")


def read_silhouettes(path: Path) -> dict[str, NDArray[np.uint8]]:
    """Read the silhouettes of the live items that have any: (n, 512) for each, see edge.silhouettes.silhouette.

    Raises:
        GalleryError: the store is damaged.
    """
    query = "SELECT item_id, outline FROM items WHERE deleted = 0 AND outline IS NOT NULL ORDER BY item_id"
    found: dict[str, NDArray[np.uint8]] = {}
    with open_store(path) as store:
        for item_id, packed in store.execute(query):
            where = f"{path}: item {one_line(repr(item_id))}"
            if text_problem(item_id, limits.MAX_ID_CHARACTERS) or item_id in found:
                raise GalleryError(f"{where}: damaged silhouettes: the id is no text, or there twice")
            if not isinstance(packed, bytes) or not packed or len(packed) % SILHOUETTE_SIZE:
                raise GalleryError(f"{where}: damaged silhouettes: each must have {SILHOUETTE_SIZE} bytes")
            if len(packed) > limits.MAX_SILHOUETTES * SILHOUETTE_SIZE:
                raise GalleryError(f"{where}: found more than {limits.MAX_SILHOUETTES} silhouettes")
            found[item_id] = np.frombuffer(packed, np.uint8).reshape(-1, SILHOUETTE_SIZE)
    return found


def read_thumbnail(path: Path, item_id: str) -> bytes | None:
    """Read the thumbnail of a live item: JPEG or PNG bytes, or None if the item has none.

    The bytes are as the gallery holds them: decode them with edge.imaging.image alone.

    Raises:
        GalleryError: the store is damaged, or it has no such item.
    """
    query = "SELECT thumbnail FROM items WHERE item_id = ? AND deleted = 0"
    with open_store(path) as store:
        row: tuple[bytes | None] | None = store.execute(query, (item_id,)).fetchone()
    if row is None:
        raise GalleryError(f"{path}: no item {item_id!r}")
    if problem := thumbnail_problem(row[0]):
        raise GalleryError(f"{path}: item {item_id!r}: {problem}")
    return row[0]


def held_ids(path: Path, wanted: Collection[str]) -> frozenset[str]:
    """Return which of some ids live items of a store have: as their own id, or as one they had before or elsewhere.

    Raises:
        GalleryError: the store is damaged.
    """
    with open_store(path) as store:
        query = "SELECT 1 FROM items WHERE item_id = ? AND deleted = 0"
        held = {one for one in wanted if store.execute(query, (one,)).fetchone()}
        if held != set(wanted):
            query = "SELECT metadata FROM items WHERE deleted = 0 AND instr(metadata, ?)"
            for (metadata,) in store.execute(query, (f'"{limits.ALSO}"',)):
                try:
                    held.update(limits.also_ids(limits.parse_metadata(metadata)))
                except ValueError as error:
                    raise GalleryError(f"{path}: damaged metadata: {error}") from error
    return frozenset(held & set(wanted))


def read_thumbnails(path: Path, every: int = 1) -> Iterator[tuple[str, bytes]]:
    """Yield id and thumbnail of each live item that has one, as `read_thumbnail` returns it.

    Args:
        path: of the store.
        every: read about one item in so many; 1: all.

    Raises:
        GalleryError: the store is damaged.
    """
    with open_store(path) as store:
        query = "SELECT item_id, thumbnail FROM items WHERE rowid % ? = 0 AND deleted = 0 AND thumbnail IS NOT NULL"
        for item_id, thumbnail in store.execute(query, (every,)):
            if problem := thumbnail_problem(thumbnail):
                raise GalleryError(f"{path}: item {one_line(repr(item_id))}: {problem}")
            yield str(item_id), thumbnail


def describe_store(path: Path) -> tuple[str, CategoryEntry]:
    """Return the category of a store, and its index entry.

    Raises:
        GalleryError: the store is damaged, or its file name is that of another category.
    """
    with open_store(path) as store:
        properties, heads = read_properties(store, path)
        check_pages(store, path)
        items, vectors = count_rows(store)
    _check_file_name(path, properties)
    try:
        return properties["category"], CategoryEntry(
            size=path.stat().st_size,
            sha256=sha256_of(path),
            space_id=properties.get("space_id", ""),
            heads=heads,
            items=items,
            vectors=vectors,
            live_root=properties.get("live_root"),
        )
    except OSError as error:
        raise GalleryError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise GalleryError(f"{path}: {first_validation_error(error)}") from error
