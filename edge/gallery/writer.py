"""Write the store of one category.

Rules this module keeps:
1. A store is written under another name and then renamed. The same input gives the same bytes, so a hash names it.
2. Deleting an item erases its vectors and pictures and leaves a tombstone.
3. Vectors are quantised, written and erased many at a time.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any, final

import numpy as np

from edge.durable import replace_file
from edge.errors import GalleryError
from edge.gallery import limits
from edge.gallery.limits import metadata_json, text_problem, thumbnail_problem
from edge.gallery.store import new_store_path, quantise, read_category
from edge.gallery.store_file import SCHEMA, TABLES
from edge.manifest.embedder import Head
from edge.silhouettes.silhouette import SIZE as SILHOUETTE_SIZE
from edge.types import FloatArray

MAX_SILHOUETTE_BYTES = limits.MAX_SILHOUETTES * SILHOUETTE_SIZE  # of one item
_BATCH_ROWS = 4096  # vectors to hold until they are written
_UNIT_TOLERANCE = 0.05  # an INT8 engine's rows are only nearly of unit length; readers allow LENGTH_TOLERANCE


@final
class GalleryWriter:
    """Writes the store of one category. The store appears in the folder when the writer closes."""

    def __init__(
        self, folder: Path, category: str, space_id: str, heads: list[Head], *, base: Path | None = None
    ) -> None:
        """Start a store.

        Args:
            folder: of the generation; created if missing.
            category: its name, any text; the file name is derived from it.
            space_id: embedding space of the vectors.
            heads: of the joint vector, in order.
            base: an existing store to start from; None: start empty.

        Raises:
            GalleryError: the category has no name, or the base is damaged or in another space.
        """
        if not category:
            raise GalleryError("the name of a category is empty; give each category a name")
        if problem := text_problem(category, limits.MAX_CATEGORY_CHARACTERS):
            raise GalleryError(f"the name of a category: {problem}; give it another name")
        folder.mkdir(parents=True, exist_ok=True)
        self._path = new_store_path(folder, category)
        self._partial = self._path.with_name(self._path.name + ".partial")
        self._partial.unlink(missing_ok=True)
        self._dim = sum(head.dim for head in heads)
        if base is not None:
            read_category(base, space_id, self._dim)
            shutil.copyfile(base, self._partial)
        self._added: list[tuple[str, FloatArray]] = []  # vectors to write
        self._added_rows = 0
        self._deleted: list[tuple[str]] = []  # items whose vectors are to erase, before those of `_added` are written
        self._has_tombstones = base is not None
        self._store = sqlite3.connect(self._partial)
        self._store.executescript("PRAGMA page_size=4096; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")
        if base is None:
            self._store.executescript(TABLES)
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
        silhouettes: bytes | None = None,
    ) -> None:
        """Add an item, or restore a deleted one.

        Args:
            item_id: unique in the category.
            label: display name.
            vectors: (n, dim) float32, rows of unit length, n >= 1.
            metadata: JSON values.
            thumbnail: JPEG or PNG bytes.
            silhouettes: of each picture that shows the object, 64x64 bits, packed, one after the other.

        Raises:
            GalleryError: the item exists already, the vectors are not unit rows of the right length, the silhouettes
                are incomplete, or a text, the metadata or the thumbnail breaks the limits of edge.gallery.limits.
        """
        where = f"{self._path.name}: item {item_id!r}"
        if not item_id:
            raise GalleryError(f"{self._path.name}: the item id is empty; give each item an id")
        if vectors.ndim != 2 or vectors.shape[0] < 1 or vectors.shape[1] != self._dim:
            raise GalleryError(f"{where}: found vectors of shape {vectors.shape}, expected (n >= 1, {self._dim})")
        if problem := (
            text_problem(item_id, limits.MAX_ID_CHARACTERS)
            or text_problem(label, limits.MAX_LABEL_CHARACTERS)
            or thumbnail_problem(thumbnail)
            or silhouettes_problem(silhouettes)
        ):
            raise GalleryError(f"{where}: {problem}")
        try:
            metadata_text = metadata_json(metadata or {})
        except ValueError as error:
            raise GalleryError(f"{where}: metadata: {error}") from error
        numbers = vectors.astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", numbers, numbers))
        if not (abs(norms - 1.0) <= _UNIT_TOLERANCE).all():  # written so that NaN fails too
            raise GalleryError(f"{where}: found vector lengths {norms.min():.3f} to {norms.max():.3f}, expected 1")
        if self._has_tombstones:
            self._store.execute("DELETE FROM items WHERE item_id = ? AND deleted = 1", (item_id,))
        try:
            self._store.execute(
                "INSERT INTO items VALUES (?, ?, ?, ?, ?, 0)",
                (item_id, label, metadata_text, thumbnail, silhouettes),
            )
        except sqlite3.IntegrityError as error:
            raise GalleryError(f"{where}: exists already; give each item an id of its own") from error
        self._added.append((item_id, numbers.astype(np.float32)))
        self._added_rows += len(vectors)
        if self._added_rows >= _BATCH_ROWS:
            self._write_vectors()

    def delete(self, item_id: str) -> None:
        """Delete an item and leave a tombstone.

        Raises:
            GalleryError: there is no such live item.
        """
        if self._added:
            self._write_vectors()
        erased = self._store.execute(
            "UPDATE items SET deleted = 1, metadata = '{}', thumbnail = NULL, outline = NULL "
            "WHERE item_id = ? AND deleted = 0",
            (item_id,),
        )
        if erased.rowcount != 1:
            raise GalleryError(f"{self._path.name}: no live item {item_id!r} to delete")
        self._deleted.append((item_id,))
        self._has_tombstones = True

    def _write_vectors(self) -> None:
        """Erase the vectors of deleted items in one pass over the table, and write those of added items."""
        if self._deleted:
            self._store.execute("CREATE TEMP TABLE deleted (item_id TEXT PRIMARY KEY)")
            self._store.executemany("INSERT OR IGNORE INTO deleted VALUES (?)", self._deleted)
            self._store.execute("DELETE FROM vectors WHERE item_id IN (SELECT item_id FROM deleted)")
            self._store.execute("DROP TABLE deleted")
        if self._added:
            rows, scales = quantise(np.concatenate([vectors for _, vectors in self._added]))
            ids = (item_id for item_id, vectors in self._added for _ in vectors)
            self._store.executemany(
                "INSERT INTO vectors (item_id, vector, scale) VALUES (?, ?, ?)",
                zip(ids, map(np.ndarray.tobytes, rows), scales.tolist(), strict=True),
            )
        self._added, self._added_rows, self._deleted = [], 0, []

    def close(self) -> Path:
        """Move the finished store into place and return its path."""
        self._write_vectors()
        self._store.commit()
        self._store.execute("VACUUM")
        self._store.close()
        clear_file_counters(self._partial)
        replace_file(self._partial, self._path)
        return self._path

    def __enter__(self) -> GalleryWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self._store.close()
            self._partial.unlink(missing_ok=True)


def clear_file_counters(path: Path) -> None:
    """Clear what does not depend on the content of a store, so that the same content has the same bytes.

    That is the change counter, its copy and the version of the library that wrote the file (SQLite file format, 1.3.7
    and 1.3.14).

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("r+b") as file:
        for offset, length in ((24, 4), (92, 8)):
            file.seek(offset)
            file.write(bytes(length))


def silhouettes_problem(packed: object) -> str | None:
    """Return what is wrong with the silhouettes of an item, None if there are none or nothing is."""
    if packed is None:
        return None
    if not isinstance(packed, bytes):
        return f"found silhouettes of type {type(packed).__name__}, expected bytes"
    if not packed or len(packed) % SILHOUETTE_SIZE:
        return f"found silhouettes of {len(packed)} bytes, expected a multiple of {SILHOUETTE_SIZE}"
    if len(packed) > MAX_SILHOUETTE_BYTES:
        return f"more than {limits.MAX_SILHOUETTES} silhouettes; give fewer pictures"
    return None
