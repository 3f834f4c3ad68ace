"""Read the rows of an open store, and check each: type, length, range, depth.

Rules this module keeps:
1. Nothing is read without a bound: of a damaged or hostile file, at most about its own size is held in memory.
2. Rows are checked a chunk at a time, in loops of C. Only a chunk that is not sound is searched for the wrong row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from edge.errors import GalleryError, one_line, unread_format
from edge.gallery import limits
from edge.gallery.limits import parse_metadata, text_problem
from edge.gallery.store_file import SCHEMA
from edge.gallery.texts import Texts
from edge.manifest.embedder import Head
from edge.strict_json import parse_json, parse_plain_objects

Heads = Annotated[list[Head], Field(min_length=1, max_length=16)]  # parts of a vector, in order
_HEADS: TypeAdapter[list[Head]] = TypeAdapter(Heads)
_MAX_PROPERTIES, _MAX_PROPERTY_CHARACTERS = 64, 64 << 10
_MAX_VERSION_DIGITS = 9
_CHUNK_ROWS = 4096


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


def read_items(store: sqlite3.Connection, path: Path) -> tuple[Texts, Texts, NDArray[np.bool_]]:
    """Return the ids and labels of the live items and whether each is negative, in the order in which they were added.

    Raises:
        GalleryError: one is damaged.
    """
    ids, labels, negative = [], [], []
    query = "SELECT item_id, label, metadata, deleted FROM items ORDER BY rowid"
    for chunk in _chunks(store.execute(query)):
        live = [row for row in chunk if row[3] == 0]
        chunk_ids, chunk_labels, metadata, _ = zip(*live, strict=True) if live else ((), (), (), ())
        if not (
            {row[3] for row in chunk} <= {0, 1}
            and _are_texts([row[0] for row in chunk], limits.MAX_ID_CHARACTERS, empty=False)
            and _are_texts(chunk_labels, limits.MAX_LABEL_CHARACTERS)
        ):
            _raise_damaged_item(path, chunk)
        ids.append(Texts.of(chunk_ids))
        labels.append(Texts.of(chunk_labels))
        negative.append(np.fromiter(_read_negative(path, chunk_ids, metadata), np.bool_, len(live)))
    return Texts.joined(ids), Texts.joined(labels), np.concatenate([np.zeros(0, np.bool_), *negative])


def _are_texts(texts: Sequence[Any], most: int, *, empty: bool = True) -> bool:
    """Return whether `text_problem` finds nothing wrong with any of them."""
    if not set(map(type, texts)) <= {str} or max(map(len, texts), default=0) > most:
        return False
    joined = "".join(texts)
    return (empty or all(texts)) and text_problem(joined, len(joined)) is None


def _raise_damaged_item(path: Path, chunk: list[tuple[Any, ...]]) -> NoReturn:
    for item_id, label, _, deleted in chunk:
        if problem := _item_problem(item_id, label, deleted):
            raise GalleryError(f"{path}: item {one_line(repr(item_id))}: {problem}")
    raise GalleryError(f"{path}: damaged items; make the store again")


def _item_problem(item_id: object, label: object, deleted: object) -> str | None:
    """Return what is wrong with an item, None if nothing is; the label of a deleted one may be anything."""
    if problem := text_problem(item_id, limits.MAX_ID_CHARACTERS):
        return f"the id: {problem}"
    if not item_id:
        return "the id is empty"
    if deleted not in (0, 1):
        return f"found deleted {one_line(repr(deleted))}, expected 0 or 1"
    if not deleted and (problem := text_problem(label, limits.MAX_LABEL_CHARACTERS)):
        return f"the label: {problem}"
    return None


def _read_negative(path: Path, ids: Sequence[str], metadata: Sequence[object]) -> Iterable[bool]:
    """Check the metadata of some items, and return whether each is negative."""
    plain = parse_plain_objects(metadata, limits.MAX_METADATA_BYTES) if metadata else []
    found = None if plain is None else [one.get(limits.NEGATIVE, False) for one in plain]
    return found if found is not None and set(map(type, found)) <= {bool} else _read_each(path, ids, metadata)


def _read_each(path: Path, ids: Sequence[str], metadata: Sequence[object]) -> Iterator[bool]:
    for item_id, text in zip(ids, metadata, strict=True):
        try:
            yield bool(parse_metadata(text).get(limits.NEGATIVE))
        except ValueError as error:
            raise GalleryError(f"{path}: item {one_line(repr(item_id))}: damaged metadata: {error}") from error


def read_vectors(
    store: sqlite3.Connection, path: Path, ids: Texts, count: int, dim: int
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int8], NDArray[np.float64]]]:
    """Yield the vectors of a store, some thousand at a time in the order of rows: item, numbers, scale of each.

    Raises:
        GalleryError: a vector is damaged, has no live item or not about unit length, or an item has none.
    """
    index_of = {item_id: index for index, item_id in enumerate(ids)}
    if len(index_of) != len(ids):
        raise GalleryError(f"{path}: damaged store: an item id is there twice; make it again")
    done, has_one = 0, np.zeros(len(ids), np.bool_)
    query = "SELECT item_id, vector, scale FROM vectors ORDER BY row LIMIT ?"
    for chunk in _chunks(store.execute(query, (count,))):
        row_item, rows, scales = _read_chunk(path, chunk, index_of, dim)
        done += len(chunk)
        has_one[row_item] = True
        yield row_item, rows, scales
    without = np.flatnonzero(~has_one)
    if done != count or len(without):
        what = f"item {ids[int(without[0])]!r} has no vector" if len(without) else f"found {done} of {count} vectors"
        raise GalleryError(f"{path}: damaged store: {what}")


def _chunks(cursor: sqlite3.Cursor) -> Iterator[list[tuple[Any, ...]]]:
    while chunk := cursor.fetchmany(_CHUNK_ROWS):
        yield chunk


def _read_chunk(
    path: Path, chunk: list[tuple[Any, ...]], live: dict[str, int], dim: int
) -> tuple[NDArray[np.int32], NDArray[np.int8], NDArray[np.float64]]:
    """Return item, numbers and scale of each of some rows, once they are checked."""
    ids, vectors, scales = zip(*chunk, strict=True)
    if not (
        set(map(type, vectors)) == {bytes}
        and set(map(len, vectors)) == {dim}
        and set(map(type, scales)) == {float}
        and live.keys() >= set(ids)
    ):
        _raise_damaged_vector(path, chunk, live, dim)
    rows = np.frombuffer(b"".join(vectors), np.int8).reshape(-1, dim)
    factors = np.array(scales, np.float64)
    numbers = rows.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # what a file says may be infinite
        lengths = np.sqrt(np.einsum("ij,ij->i", numbers, numbers)) * factors
    wrong = np.flatnonzero(~(np.abs(lengths - 1.0) <= limits.LENGTH_TOLERANCE))
    if len(wrong):
        raise GalleryError(
            f"{path}: item {ids[wrong[0]]!r}: found a vector of length {lengths[wrong[0]]:.4g}, expected 1"
        )
    return np.array([live[item_id] for item_id in ids], np.int32), rows, factors


def _raise_damaged_vector(path: Path, chunk: list[tuple[Any, ...]], live: dict[str, int], dim: int) -> NoReturn:
    for item_id, vector, scale in chunk:
        if not isinstance(item_id, str) or item_id not in live:
            raise GalleryError(f"{path}: a vector belongs to {one_line(repr(item_id))}, which is not a live item")
        if not isinstance(vector, bytes) or len(vector) != dim:
            raise GalleryError(f"{path}: item {item_id!r}: damaged vector: it must hold {dim} int8 numbers")
        if not isinstance(scale, float):
            raise GalleryError(f"{path}: item {item_id!r}: found scale {one_line(repr(scale))}, expected a number")
    raise GalleryError(f"{path}: damaged vectors; make the store again")
