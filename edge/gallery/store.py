"""The store of one category: a sqlite file with its items, their vectors and their thumbnails.

Rules this module keeps:
1. Vectors are the source of truth. Search indexes are built from them.
2. A store names its embedding space. To read it, a caller must name the same space and vector length.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Container, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from edge.durable import sha256_of
from edge.errors import GalleryError, unread_format
from edge.file_names import file_name, hashed_file_name
from edge.manifest import Head, Sha256
from edge.silhouettes.silhouette import SIZE as SILHOUETTE_SIZE
from edge.types import FloatArray

SCHEMA = 1
NEGATIVE = "negative"  # metadata key; true: the item must not be named, and vetoes a match when it is the nearest
SUFFIX = ".sqlite"


@dataclass(frozen=True, slots=True)
class CategoryItems:
    """The live items of one category, in the form that search needs."""

    item_ids: tuple[str, ...]
    labels: tuple[str, ...]
    metadata: tuple[dict[str, Any], ...]
    vectors_i8: NDArray[np.int8]  # (n, dim), the joint vector in head order
    scales: FloatArray  # (n,), vector = int8 * scale
    row_item: NDArray[np.int32]  # (n,), index of the item that a row belongs to
    heads: tuple[Head, ...]


class CategoryEntry(BaseModel):
    """The entry of one category's store in a gallery index."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    size: Annotated[int, Field(ge=0)]  # bytes of the store
    sha256: Sha256  # of the store
    space_id: Sha256  # embedding space of the vectors
    heads: list[Head]  # parts of a vector, in order
    items: int  # live items
    vectors: int  # number of vectors

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


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a store read-only, without a lock or journal file; raise GalleryError if it is damaged."""
    if not path.is_file():
        raise GalleryError(f"{path}: there is no such gallery store")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as store:
            store.execute("PRAGMA trusted_schema=OFF")
            yield store
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise GalleryError(f"{path}: damaged store: {error}") from error


def _meta_of(store: sqlite3.Connection, path: Path) -> tuple[dict[str, str], list[Head]]:
    """Return the metadata of a store, and the heads of its vectors."""
    meta: dict[str, str] = dict(store.execute("SELECT key, value FROM meta").fetchall())
    if (found := meta.get("schema", "")) != str(SCHEMA):
        known = found.isdecimal()
        raise GalleryError(f"{path}: {unread_format(int(found), SCHEMA) if known else 'damaged store: no format'}")
    try:
        return meta, [Head.model_validate(head) for head in json.loads(meta["heads"])]
    except (KeyError, ValueError, TypeError) as error:
        raise GalleryError(f"{path}: damaged heads {meta.get('heads')!r}") from error


def read_category(path: Path, space_id: str, dim: int) -> CategoryItems:
    """Read the live items of one store.

    Args:
        path: the store.
        space_id: embedding space of the queries.
        dim: length of their vectors.

    Raises:
        GalleryError: the store is missing, damaged, or in another embedding space.
    """
    with _opened(path) as store:
        meta, heads = _meta_of(store, path)
        if meta.get("space_id") != space_id:
            raise GalleryError(f"{path}: found embedding space {meta.get('space_id')}, expected {space_id}")
        if (found_dim := sum(head.dim for head in heads)) != dim:
            raise GalleryError(f"{path}: found vectors of {found_dim} numbers, expected {dim}")
        items = store.execute(
            "SELECT item_id, label, metadata FROM items WHERE deleted = 0 ORDER BY item_id"
        ).fetchall()
        rows = store.execute("SELECT item_id, vector, scale FROM vectors ORDER BY row").fetchall()
    index_of = {item_id: index for index, (item_id, _, _) in enumerate(items)}
    _check_rows(path, rows, index_of, dim)
    try:
        metadata = tuple(json.loads(text) for _, _, text in items)
    except (ValueError, TypeError) as error:
        raise GalleryError(f"{path}: damaged metadata: {error}") from error
    return CategoryItems(
        item_ids=tuple(item_id for item_id, _, _ in items),
        labels=tuple(label for _, label, _ in items),
        metadata=metadata,
        vectors_i8=np.frombuffer(b"".join(vector for _, vector, _ in rows), np.int8).reshape(len(rows), dim),
        scales=np.array([scale for _, _, scale in rows], np.float32),
        row_item=np.array([index_of[item_id] for item_id, _, _ in rows], np.int32),
        heads=tuple(heads),
    )


def _check_rows(path: Path, rows: list[tuple[Any, Any, Any]], live: Container[str], dim: int) -> None:
    for item_id, vector, scale in rows:
        if item_id not in live:
            raise GalleryError(f"{path}: a vector belongs to {item_id!r}, which is not a live item")
        if not isinstance(vector, bytes) or len(vector) != dim or not any(vector):
            raise GalleryError(f"{path}: item {item_id!r}: damaged vector: it must hold {dim} int8 numbers")
        if not isinstance(scale, float) or not 0.0 < scale < float("inf"):
            raise GalleryError(f"{path}: item {item_id!r}: found scale {scale}, expected a positive number")


def read_silhouettes(path: Path) -> dict[str, NDArray[np.uint8]]:
    """Read the silhouettes of the live items that have any: (n, 512) for each, see edge.silhouettes.silhouette.

    Raises:
        GalleryError: the store is damaged.
    """
    query = "SELECT item_id, outline FROM items WHERE deleted = 0 AND outline IS NOT NULL ORDER BY item_id"
    with _opened(path) as store:
        rows = store.execute(query).fetchall()
    for item_id, packed in rows:
        if not isinstance(packed, bytes) or not packed or len(packed) % SILHOUETTE_SIZE:
            raise GalleryError(f"{path}: item {item_id!r}: damaged silhouettes: each must have {SILHOUETTE_SIZE} bytes")
    return {item_id: np.frombuffer(packed, np.uint8).reshape(-1, SILHOUETTE_SIZE) for item_id, packed in rows}


def read_thumbnail(path: Path, item_id: str) -> bytes | None:
    """Read the thumbnail of a live item: JPEG or PNG bytes, or None if the item has none.

    Raises:
        GalleryError: the store is damaged, or it has no such item.
    """
    query = "SELECT thumbnail FROM items WHERE item_id = ? AND deleted = 0"
    with _opened(path) as store:
        row: tuple[bytes | None] | None = store.execute(query, (item_id,)).fetchone()
    if row is None:
        raise GalleryError(f"{path}: no item {item_id!r}")
    return row[0]


def describe_store(path: Path) -> tuple[str, CategoryEntry]:
    """Return the category of a store, and its index entry.

    Raises:
        GalleryError: the store is damaged, or its file name is that of another category.
    """
    with _opened(path) as store:
        meta, heads = _meta_of(store, path)
        items = store.execute("SELECT count(*) FROM items WHERE deleted = 0").fetchone()[0]
        vectors = store.execute("SELECT count(*) FROM vectors").fetchone()[0]
    category = meta.get("category", "")
    if path.name not in (own := {f"{file_name(category)}{SUFFIX}", f"{hashed_file_name(category)}{SUFFIX}"}):
        raise GalleryError(
            f"{path}: found the store of category {category!r}; its file name is {' or '.join(sorted(own))}"
        )
    return category, CategoryEntry(
        size=path.stat().st_size,
        sha256=sha256_of(path),
        space_id=meta["space_id"],
        heads=heads,
        items=items,
        vectors=vectors,
    )
