"""Read the live items of a store as records, one after the other.

Rules this module keeps:
1. A store is read through edge.gallery.store_file, which opens it hardened and read-only.
2. One item is held at a time, but for a store whose rows are not in the order of its items, which SQLite sorts.
3. A scale counts as the float32 that readers take it for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import GalleryError, SyncError, one_line
from edge.gallery.store_file import open_store
from edge.gallery.store_rows import read_properties
from gallery_sync.gallery_log.records import Upsert, check

_CHUNK_ROWS = 1024
_ITEMS = "SELECT item_id, label, metadata, thumbnail, outline FROM items WHERE deleted = 0 ORDER BY rowid"
_ROWS = "SELECT item_id, vector, scale FROM vectors ORDER BY row"
_SORTED_ROWS = (
    "SELECT v.item_id, v.vector, v.scale FROM vectors v JOIN items i ON i.item_id = v.item_id ORDER BY i.rowid, v.row"
)


def read_records(path: Path) -> Iterator[Upsert]:
    """Yield the live items of a store, in the order in which they were added.

    Raises:
        GalleryError: the store is damaged, or an item breaks a limit.
    """
    with open_store(path) as store:
        _, heads = read_properties(store, path)
        dim = sum(head.dim for head in heads)
        vectors = _vectors(store, path)
        held = next(vectors, None)
        for item in _rows(store, _ITEMS):
            if held is None or held[0] != item[0]:
                raise GalleryError(
                    f"{path}: item {one_line(repr(item[0]))} has no vector, or a vector has no live item"
                )
            yield make_record(item, held[1], dim, path)
            held = next(vectors, None)
        if held is not None:
            raise GalleryError(f"{path}: a vector belongs to {one_line(repr(held[0]))}, which is not a live item")


def _vectors(store: sqlite3.Connection, path: Path) -> Iterator[tuple[Any, list[tuple[Any, Any]]]]:
    """Yield the id and the vectors of each item, in the order of items."""
    query = _ROWS if _is_grouped(store) else _SORTED_ROWS
    now, rows = None, list[tuple[Any, Any]]()
    for item_id, vector, scale in _rows(store, query):
        if rows and item_id != now:
            yield now, rows
            rows = []
        now = item_id
        rows.append((vector, scale))
        if len(rows) > 1 << 20:
            raise GalleryError(f"{path}: item {one_line(repr(item_id))} has more than {1 << 20} vectors")
    if rows:
        yield now, rows


def _is_grouped(store: sqlite3.Connection) -> bool:
    """Return whether the vectors of each item follow each other, in the order of items."""
    places = {row[0]: place for place, row in enumerate(_rows(store, "SELECT item_id FROM items ORDER BY rowid"))}
    last = -1
    for (item_id,) in _rows(store, "SELECT item_id FROM vectors ORDER BY row"):
        place = places.get(item_id, -1)
        if place < last:
            return False
        last = place
    return True


def _rows(store: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...]]:
    cursor = store.cursor()
    cursor.arraysize = _CHUNK_ROWS
    cursor.execute(query)
    while chunk := cursor.fetchmany():
        yield from chunk


def make_record(item: tuple[Any, ...], vectors: list[tuple[Any, Any]], dim: int, path: Path) -> Upsert:
    """Make the record of one item from its rows, and check it.

    Args:
        item: id, label, metadata, thumbnail and silhouettes, as a store holds them.
        vectors: numbers and scale of each, in the order of rows.
        dim: numbers of a vector.
        path: of the store, for errors.

    Raises:
        GalleryError: a value is damaged, or breaks a limit.
    """
    if not all(type(vector) is bytes and len(vector) == dim and type(scale) is float for vector, scale in vectors):
        raise GalleryError(f"{path}: item {one_line(repr(item[0]))}: damaged vectors; make the store again")
    numbers = np.frombuffer(b"".join(vector for vector, _ in vectors), np.int8).reshape(-1, dim)
    with np.errstate(over="ignore"):  # an infinite scale is no unit length
        scales = np.array([scale for _, scale in vectors], np.float64).astype(np.float32)
    item_id, label, metadata, thumbnail, silhouettes = item
    record = Upsert(item_id, label, metadata, thumbnail, silhouettes, numbers, scales)
    try:
        check(record, dim)
    except SyncError as error:
        raise GalleryError(f"{path}: {error}") from error
    return record
