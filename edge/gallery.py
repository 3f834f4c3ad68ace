"""The gallery on disk: a generation is a folder of one sqlite store per category, with an index `gallery.json`.

Rules this module keeps:
1. Vectors are the authority, search indexes are built from them.
2. A store names its embedding space; it is read only by one who names the same space and length.
3. A store is written whole under another name and renamed; the same input gives the same bytes: its hash names it.
4. Deleting an item erases its vectors and pictures and leaves a tombstone.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.digest import mismatch, sha256_of
from edge.durable import fsync_file, fsync_folder, write_durably
from edge.errors import GalleryError
from edge.manifest import Head, Sha256
from edge.outline import SIZE as OUTLINE_SIZE
from edge.types import FloatArray

SCHEMA = 1
INDEX_NAME = "gallery.json"
NEGATIVE = "negative"  # in an item's metadata, true: it is not to be named, and vetoes where it is the nearest
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}$")]  # safe as a file name
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}")
_UNIT_TOLERANCE = 0.05  # an INT8 engine's rows are only nearly of unit length
_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE items (item_id TEXT PRIMARY KEY, label TEXT NOT NULL, metadata TEXT NOT NULL, thumbnail BLOB,
                    outline BLOB, deleted INTEGER NOT NULL DEFAULT 0);
CREATE TABLE vectors (row INTEGER PRIMARY KEY, item_id TEXT NOT NULL, vector BLOB NOT NULL, scale REAL NOT NULL);
"""


class _Tree(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class CategoryEntry(_Tree):
    """One category of a generation."""

    size: Annotated[int, Field(ge=0)]  # bytes of the store
    sha256: Sha256
    space_id: Sha256
    heads: list[Head]
    items: int  # live ones
    vectors: int

    @property
    def dim(self) -> int:
        """Length of the joint vector."""
        return sum(head.dim for head in self.heads)


class _Index(_Tree):
    schema_version: Literal[1] = Field(alias="schema")
    generation: str
    created_at: str
    categories: dict[Name, CategoryEntry]


@dataclass(frozen=True, slots=True)
class CategoryItems:
    """The live items of one category, as search wants them."""

    item_ids: tuple[str, ...]
    labels: tuple[str, ...]
    metadata: tuple[dict[str, Any], ...]
    vectors_i8: NDArray[np.int8]  # (n, dim), the joint vector in head order
    scales: FloatArray  # (n,), vector = int8 * scale
    row_item: NDArray[np.int32]  # (n,), which item a row belongs to
    heads: tuple[Head, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """A generation: every category a device can search."""

    folder: Path
    generation: str  # hash of the contents
    created_at: str  # ISO 8601, UTC
    categories: dict[str, CategoryEntry]

    @property
    def items(self) -> int:
        """Live items of all categories."""
        return sum(entry.items for entry in self.categories.values())

    def path(self, category: str) -> Path:
        """The store of a category."""
        return self.folder / store_name(category)


def store_name(category: str) -> str:
    """The file name of a category's store."""
    return f"{category}.sqlite"


def quantise(vectors: FloatArray) -> tuple[NDArray[np.int8], FloatArray]:
    """Turn float32 rows into int8 rows and a scale each: the largest component of a row becomes 127."""
    scales = (np.abs(vectors).max(axis=1) / 127.0).astype(np.float32)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales


@final
class GalleryWriter:
    """Writes the store of one category; it appears in the folder when the writer closes."""

    def __init__(
        self, folder: Path, category: str, space_id: str, heads: list[Head], *, base: Path | None = None
    ) -> None:
        """Start a store.

        Args:
            folder: of the generation; made when missing.
            category: names the file.
            space_id: of the embedder that made the vectors.
            heads: of the joint vector, in order.
            base: a store to start from instead of an empty one.

        Raises:
            GalleryError: the category cannot name a file, or the base is damaged or of another space.
        """
        if not _NAME.fullmatch(category):
            raise GalleryError(f"category {category!r}: expected letters, digits, '.', '_' and '-' only")
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / store_name(category)
        self._partial = folder / (store_name(category) + ".partial")
        self._partial.unlink(missing_ok=True)
        self._dim = sum(head.dim for head in heads)
        if base is not None:
            read_category(base, space_id, self._dim)
            self._partial.write_bytes(base.read_bytes())
        self._store = sqlite3.connect(self._partial)
        self._store.executescript("PRAGMA page_size=4096; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")
        if base is None:
            self._store.executescript(_TABLES)
            heads_json = json.dumps([head.model_dump() for head in heads])
            meta = {"schema": str(SCHEMA), "category": category, "space_id": space_id, "heads": heads_json}
            self._store.executemany("INSERT INTO meta VALUES (?, ?)", sorted(meta.items()))

    def add(
        self,
        item_id: str,
        label: str,
        vectors: FloatArray,
        metadata: dict[str, Any] | None = None,
        thumbnail: bytes | None = None,
        outline: bytes | None = None,
    ) -> None:
        """Add an item, or bring a deleted one back.

        Args:
            item_id: unique in the category.
            label: for people.
            vectors: (n, dim) float32, rows of unit length, n >= 1.
            metadata: JSON values.
            thumbnail: JPEG or PNG bytes.
            outline: of each picture that shows one, 64x64 bits, packed, one after the other.

        Raises:
            GalleryError: the item exists, the vectors are not unit rows of the space's length, or the outlines are not
                whole.
        """
        where = f"{self._path.name}: item {item_id!r}"
        if not item_id:
            raise GalleryError(f"{self._path.name}: found an empty item id, expected a name")
        if vectors.ndim != 2 or vectors.shape[0] < 1 or vectors.shape[1] != self._dim:
            raise GalleryError(f"{where}: found vectors of shape {vectors.shape}, expected (n >= 1, {self._dim})")
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        if not np.all(np.abs(norms - 1.0) <= _UNIT_TOLERANCE):  # written so that NaN fails too
            raise GalleryError(f"{where}: found vector lengths {norms.min():.3f} to {norms.max():.3f}, expected 1")
        if outline is not None and (not outline or len(outline) % OUTLINE_SIZE):
            raise GalleryError(
                f"{where}: found outlines of {len(outline)} bytes, expected a multiple of {OUTLINE_SIZE}"
            )
        self._store.execute("DELETE FROM items WHERE item_id = ? AND deleted = 1", (item_id,))
        try:
            self._store.execute(
                "INSERT INTO items VALUES (?, ?, ?, ?, ?, 0)",
                (item_id, label, json.dumps(metadata or {}, sort_keys=True), thumbnail, outline),
            )
        except sqlite3.IntegrityError as error:
            raise GalleryError(f"{where}: found twice, expected once") from error
        rows, scales = quantise(vectors.astype(np.float32))
        self._store.executemany(
            "INSERT INTO vectors (item_id, vector, scale) VALUES (?, ?, ?)",
            [(item_id, row.tobytes(), float(scale)) for row, scale in zip(rows, scales, strict=True)],
        )

    def delete(self, item_id: str) -> None:
        """Erase an item and leave its tombstone.

        Raises:
            GalleryError: there is no such live item.
        """
        erased = self._store.execute(
            "UPDATE items SET deleted = 1, metadata = '{}', thumbnail = NULL, outline = NULL "
            "WHERE item_id = ? AND deleted = 0",
            (item_id,),
        )
        if erased.rowcount != 1:
            raise GalleryError(f"{self._path.name}: found no live item {item_id!r} to delete")
        self._store.execute("DELETE FROM vectors WHERE item_id = ?", (item_id,))

    def close(self) -> Path:
        """Put the finished store in place and say where."""
        self._store.commit()
        self._store.execute("VACUUM")
        self._store.close()
        with self._partial.open("r+b") as file:
            # The change counter, its copy and the number of the library that wrote: the only bytes of the
            # file that the content does not decide (sqlite file format, 1.3.7 and 1.3.14).
            for offset, length in ((24, 4), (92, 8)):
                file.seek(offset)
                file.write(bytes(length))
        fsync_file(self._partial)
        self._partial.replace(self._path)
        fsync_folder(self._path.parent)
        return self._path

    def __enter__(self) -> GalleryWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self._store.close()
            self._partial.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a store read-only, leaving no lock or journal beside it; a damaged one becomes a GalleryError."""
    if not path.is_file():
        raise GalleryError(f"{path}: found no file, expected a gallery store")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as store:
            store.execute("PRAGMA trusted_schema=OFF")
            yield store
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise GalleryError(f"{path}: found a damaged store: {error}") from error


def _heads_of(store: sqlite3.Connection, path: Path) -> tuple[dict[str, str], list[Head]]:
    meta: dict[str, str] = dict(store.execute("SELECT key, value FROM meta").fetchall())
    if meta.get("schema") != str(SCHEMA):
        raise GalleryError(f"{path}: found schema {meta.get('schema')!r}, expected {SCHEMA}")
    try:
        return meta, [Head.model_validate(head) for head in json.loads(meta["heads"])]
    except (KeyError, ValueError, TypeError) as error:
        raise GalleryError(f"{path}: found damaged heads {meta.get('heads')!r}") from error


def read_category(path: Path, space_id: str, dim: int) -> CategoryItems:
    """Read the live items of one store.

    Args:
        path: the store.
        space_id: of the embedder that will make the queries.
        dim: length of its vectors.

    Raises:
        GalleryError: missing, damaged, or of another embedding space.
    """
    with _opened(path) as store:
        meta, heads = _heads_of(store, path)
        if meta.get("space_id") != space_id:
            raise GalleryError(f"{path}: found embedding space {meta.get('space_id')}, expected {space_id}")
        if (found_dim := sum(head.dim for head in heads)) != dim:
            raise GalleryError(f"{path}: found vectors of {found_dim} numbers, expected {dim}")
        items = store.execute(
            "SELECT item_id, label, metadata FROM items WHERE deleted = 0 ORDER BY item_id"
        ).fetchall()
        rows = store.execute("SELECT item_id, vector, scale FROM vectors ORDER BY row").fetchall()
    number = {item_id: index for index, (item_id, _, _) in enumerate(items)}
    for item_id, vector, scale in rows:
        if item_id not in number:
            raise GalleryError(f"{path}: found a vector of {item_id!r}, expected only those of live items")
        if not isinstance(vector, bytes) or len(vector) != dim or not any(vector):
            raise GalleryError(f"{path}: item {item_id!r}: found a damaged vector, expected {dim} int8 numbers")
        if not isinstance(scale, float) or not 0.0 < scale < float("inf"):
            raise GalleryError(f"{path}: item {item_id!r}: found scale {scale}, expected a positive number")
    try:
        metadata = tuple(json.loads(text) for _, _, text in items)
    except (ValueError, TypeError) as error:
        raise GalleryError(f"{path}: found damaged metadata: {error}") from error
    return CategoryItems(
        item_ids=tuple(item_id for item_id, _, _ in items),
        labels=tuple(label for _, label, _ in items),
        metadata=metadata,
        vectors_i8=np.frombuffer(b"".join(vector for _, vector, _ in rows), np.int8).reshape(len(rows), dim),
        scales=np.array([scale for _, _, scale in rows], np.float32),
        row_item=np.array([number[item_id] for item_id, _, _ in rows], np.int32),
        heads=tuple(heads),
    )


def read_outlines(path: Path) -> dict[str, NDArray[np.uint8]]:
    """Read the outlines of the live items that have any: (n, 512) of each, see edge.outline.

    Raises:
        GalleryError: damaged store.
    """
    query = "SELECT item_id, outline FROM items WHERE deleted = 0 AND outline IS NOT NULL ORDER BY item_id"
    with _opened(path) as store:
        found = store.execute(query).fetchall()
    for item_id, outline in found:
        if not isinstance(outline, bytes) or not outline or len(outline) % OUTLINE_SIZE:
            raise GalleryError(f"{path}: item {item_id!r}: found damaged outlines, expected {OUTLINE_SIZE} bytes each")
    return {item_id: np.frombuffer(outline, np.uint8).reshape(-1, OUTLINE_SIZE) for item_id, outline in found}


def read_pictures(path: Path, item_id: str) -> tuple[bytes | None, bytes | None]:
    """Read the thumbnail and the outlines of a live item, None where it has none.

    Raises:
        GalleryError: damaged store, or no such item.
    """
    query = "SELECT thumbnail, outline FROM items WHERE item_id = ? AND deleted = 0"
    with _opened(path) as store:
        found: tuple[bytes | None, bytes | None] | None = store.execute(query, (item_id,)).fetchone()
    if found is None:
        raise GalleryError(f"{path}: found no item {item_id!r}")
    return found


def _entry_of(path: Path) -> CategoryEntry:
    with _opened(path) as store:
        meta, heads = _heads_of(store, path)
        items = store.execute("SELECT count(*) FROM items WHERE deleted = 0").fetchone()[0]
        vectors = store.execute("SELECT count(*) FROM vectors").fetchone()[0]
    if meta.get("category") != path.stem:
        raise GalleryError(f"{path}: found the store of category {meta.get('category')!r}, expected {path.stem!r}")
    return CategoryEntry(
        size=path.stat().st_size,
        sha256=sha256_of(path),
        space_id=meta["space_id"],
        heads=heads,
        items=items,
        vectors=vectors,
    )


def generation_of(categories: dict[str, CategoryEntry]) -> str:
    """Name a generation by the hash of its contents."""
    parts = {name: entry.model_dump(mode="json") for name, entry in categories.items()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def seal_gallery(folder: Path, created_at: str) -> Gallery:
    """Write the index over the stores of a folder: from here on it is a generation.

    Args:
        folder: holds the stores that writers closed.
        created_at: ISO 8601, UTC; not part of the generation's name.

    Raises:
        GalleryError: a store is damaged or wrongly named.
    """
    categories = {path.stem: _entry_of(path) for path in sorted(folder.glob("*.sqlite"))}
    gallery = Gallery(folder, generation_of(categories), created_at, categories)
    index = {
        "schema": SCHEMA,
        "generation": gallery.generation,
        "created_at": created_at,
        "categories": {name: entry.model_dump(mode="json") for name, entry in categories.items()},
    }
    text = json.dumps(index, indent=1, sort_keys=True)
    write_durably(folder / INDEX_NAME, text.encode() + b"\n")
    return gallery


def read_gallery(folder: Path, *, verify: bool = True) -> Gallery:
    """Read a generation.

    Args:
        folder: of the generation.
        verify: also hash every store.

    Raises:
        GalleryError: no generation, an altered index, or a store that is not the one that was sealed.
    """
    path = folder / INDEX_NAME
    try:
        index = _Index.model_validate_json(path.read_bytes())
    except OSError as error:
        raise GalleryError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise GalleryError(f"{path}: {'.'.join(map(str, first['loc'])) or '(top)'}: {first['msg']}") from error
    if (found := generation_of(index.categories)) != index.generation:
        raise GalleryError(f"{path}: found contents of generation {found}, expected {index.generation}")
    gallery = Gallery(folder, index.generation, index.created_at, index.categories)
    for category, entry in gallery.categories.items():
        if verify and (wrong := mismatch(gallery.path(category), entry.size, entry.sha256)):
            raise GalleryError(wrong)
    return gallery
