"""Read the rows of an open store, and check each: type, length, range, depth.

Nothing is read without a bound: of a damaged or hostile file, at most about its own size is held in memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from edge.errors import GalleryError, one_line, unread_format
from edge.gallery import limits
from edge.gallery.limits import parse_metadata, text_problem
from edge.gallery.store_file import SCHEMA
from edge.manifest import Head
from edge.strict_json import parse_json
from edge.types import FloatArray

Heads = Annotated[list[Head], Field(min_length=1, max_length=16)]  # parts of a vector, in order
_HEADS: TypeAdapter[list[Head]] = TypeAdapter(Heads)
_MAX_PROPERTIES, _MAX_PROPERTY_CHARACTERS = 64, 64 << 10
_MAX_VERSION_DIGITS = 9
_CHUNK_ROWS = 10_000


def read_properties(store: sqlite3.Connection, path: Path) -> tuple[dict[str, str], list[Head]]:
    """Return the properties of a store, among them category and space_id, and the heads of its vectors.

    Raises:
        GalleryError: they are damaged, or of a later format.
    """
    rows = store.execute("SELECT key, value FROM meta LIMIT ?", (_MAX_PROPERTIES,)).fetchall()
    if not all(isinstance(text, str) and len(text) <= _MAX_PROPERTY_CHARACTERS for row in rows for text in row):
        raise GalleryError(f"{path}: damaged store: its properties are no texts of a sane length; make it again")
    properties: dict[str, str] = dict(rows)
    if (found := properties.get("schema", "")) != str(SCHEMA):
        known = found.isdecimal() and len(found) <= _MAX_VERSION_DIGITS
        raise GalleryError(f"{path}: {unread_format(int(found), SCHEMA) if known else 'damaged store: no format'}")
    try:
        return properties, _HEADS.validate_python(parse_json(properties["heads"], _MAX_PROPERTY_CHARACTERS))
    except (KeyError, ValueError) as error:
        raise GalleryError(f"{path}: damaged heads {one_line(repr(properties.get('heads')))}") from error


def count_rows(store: sqlite3.Connection) -> tuple[int, int]:
    """Return the numbers of live items and of vectors, of a store whose pages were checked.

    SQLite counts the rows of a whole table in one step, which no time limit ends.
    """
    items = store.execute("SELECT count(*) FROM items WHERE deleted = 0").fetchone()
    vectors = store.execute("SELECT count(*) FROM vectors").fetchone()
    return int(items[0]), int(vectors[0])


def read_items(
    store: sqlite3.Connection, path: Path
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[dict[str, Any], ...]]:
    """Return ids, labels and metadata of the live items, in the order of their ids.

    Raises:
        GalleryError: one is damaged.
    """
    items: list[tuple[str, str, dict[str, Any]]] = []
    query = "SELECT item_id, label, metadata, deleted FROM items ORDER BY item_id"
    for item_id, label, metadata, deleted in store.execute(query):
        if problem := _item_problem(item_id, label, deleted, items[-1][0] if items else None):
            raise GalleryError(f"{path}: item {one_line(repr(item_id))}: {problem}")
        if deleted:
            continue
        try:
            items.append((item_id, label, parse_metadata(metadata)))
        except ValueError as error:
            raise GalleryError(f"{path}: item {one_line(repr(item_id))}: damaged metadata: {error}") from error
    ids, labels, objects = zip(*items, strict=True) if items else ((), (), ())
    return ids, labels, objects


def _item_problem(item_id: object, label: object, deleted: object, before: str | None) -> str | None:
    """Return what is wrong with an item, None if nothing is; the label of a deleted one may be anything."""
    if problem := text_problem(item_id, limits.MAX_ID_CHARACTERS):
        return f"the id: {problem}"
    if not item_id or item_id == before:
        return f"the id is {'there twice' if item_id else 'empty'}"
    if deleted not in (0, 1):
        return f"found deleted {one_line(repr(deleted))}, expected 0 or 1"
    if not deleted and (problem := text_problem(label, limits.MAX_LABEL_CHARACTERS)):
        return f"the label: {problem}"
    return None


def read_vectors(
    store: sqlite3.Connection, path: Path, ids: tuple[str, ...], count: int, dim: int
) -> tuple[NDArray[np.int8], FloatArray, NDArray[np.int32]]:
    """Return the vectors of a store, (count, dim), the scale of each and the index of its item, in the order of rows.

    Raises:
        GalleryError: a vector is damaged, has no live item or not about unit length, or an item has none.
    """
    index_of = {item_id: index for index, item_id in enumerate(ids)}
    vectors_i8, scales = np.empty((count, dim), np.int8), np.empty(count, np.float32)
    row_item = np.empty(count, np.int32)
    done = 0
    query = "SELECT item_id, vector, scale FROM vectors ORDER BY row LIMIT ?"
    for chunk in _chunks(store.execute(query, (count,))):
        _check_chunk(path, chunk, index_of, dim)
        part = slice(done, done + len(chunk))
        vectors_i8[part] = np.frombuffer(b"".join(vector for _, vector, _ in chunk), np.int8).reshape(-1, dim)
        row_item[part] = [index_of[item_id] for item_id, _, _ in chunk]
        factors = np.array([scale for _, _, scale in chunk], np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # what a file says may be infinite
            lengths = np.linalg.norm(vectors_i8[part].astype(np.float32), axis=1) * factors
        wrong = np.flatnonzero(~(np.abs(lengths - 1.0) <= limits.LENGTH_TOLERANCE))
        if len(wrong):
            raise GalleryError(
                f"{path}: item {chunk[wrong[0]][0]!r}: found a vector of length {lengths[wrong[0]]:.4g}, expected 1"
            )
        scales[part] = factors
        done += len(chunk)
    without = np.flatnonzero(np.bincount(row_item[:done], minlength=len(ids)) == 0)
    if done != count or len(without):
        what = f"item {ids[without[0]]!r} has no vector" if len(without) else f"found {done} of {count} vectors"
        raise GalleryError(f"{path}: damaged store: {what}")
    return vectors_i8, scales, row_item


def _chunks(cursor: sqlite3.Cursor) -> Iterator[list[tuple[Any, Any, Any]]]:
    while chunk := cursor.fetchmany(_CHUNK_ROWS):
        yield chunk


def _check_chunk(path: Path, chunk: list[tuple[Any, Any, Any]], live: Mapping[str, int], dim: int) -> None:
    for item_id, vector, scale in chunk:
        if not isinstance(item_id, str) or item_id not in live:
            raise GalleryError(f"{path}: a vector belongs to {one_line(repr(item_id))}, which is not a live item")
        if not isinstance(vector, bytes) or len(vector) != dim:
            raise GalleryError(f"{path}: item {item_id!r}: damaged vector: it must hold {dim} int8 numbers")
        if not isinstance(scale, float):
            raise GalleryError(f"{path}: item {item_id!r}: found scale {one_line(repr(scale))}, expected a number")
