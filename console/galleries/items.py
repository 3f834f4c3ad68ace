"""Reads single items of the indexed stores: their records, their thumbnails, and what they were before a change."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from console.galleries.changes import segments_before
from console.galleries.repository import Seen
from edge.errors import ConsoleError, GalleryError, SyncError
from edge.gallery.store import read_thumbnail
from edge.gallery.store_file import open_store
from edge.imaging import image
from gallery_sync.formats.documents import GalleryLog, SpaceLog
from gallery_sync.formats.fields import object_path
from gallery_sync.gallery_log.records import Upsert
from gallery_sync.gallery_log.segment_file import read_segment
from gallery_sync.gallery_log.store_records import make_record
from gallery_sync.repository.folder import read_object
from gallery_sync.repository.published import Published

_ITEM = "SELECT item_id, label, metadata, thumbnail, outline FROM items WHERE item_id = ? AND deleted = 0"
_ROWS = "SELECT vector, scale FROM vectors WHERE item_id = ? AND row BETWEEN ? AND ? ORDER BY row"


def store_of(rows: sqlite3.Connection, category: str) -> sqlite3.Row:
    """Return the row of the store that is shown of a category.

    Raises:
        ConsoleError: there is no such category (not_found).
    """
    query = "SELECT * FROM gallery_stores WHERE category = ? AND shown = 1 AND is_ready = 1"
    row: sqlite3.Row | None = rows.execute(query, (category,)).fetchone()
    if row is None:
        raise ConsoleError("not_found", f"the gallery has no category {category[:80]!r}")
    return row


def read_item(rows: sqlite3.Connection, store: sqlite3.Row, item: str) -> Upsert | None:
    """Return the record of an item of a store; None if it is not there.

    Raises:
        GalleryError: the store is missing or damaged.
    """
    query = "SELECT first_row, last_row FROM gallery_items WHERE store_id = ? AND item = ?"
    place = rows.execute(query, (store["id"], item)).fetchone()
    if place is None:
        return None
    return _read(Path(store["path"]), item, store["dim"], place[0], place[1])


def item_before(seen: Seen, space: SpaceLog, item: str, gallery: int) -> Upsert | None:
    """Return the record of an item as it was before a gallery sequence; None if it was not there.

    Raises:
        SyncError: the log does not reach back so far, or an object is missing or damaged.
        GalleryError: a base is damaged.
    """
    repo = seen.published.repo
    for segment in segments_before(space, gallery):
        for record in read_segment(read_object(repo, segment.object)).records:
            if record.item_id == item:
                return record if isinstance(record, Upsert) else None
    base = max((one for one in space.bases if one.sequence < gallery), key=lambda one: one.sequence, default=None)
    if base is None:
        raise SyncError(f"the repository keeps no gallery before {gallery} any more; nothing can be restored from it")
    return _read(
        repo / object_path(base.object.sha256), item, sum(head.dim for head in space.heads), -(1 << 62), 1 << 62
    )


class StoredItems:
    """Finds items for plans, as gallery_sync.repository.items.edit.find_items does, through the index."""

    def __init__(self, rows: sqlite3.Connection) -> None:
        self._rows = rows

    def find(
        self, published: Published, log: GalleryLog, space: SpaceLog, item_ids: Sequence[str]
    ) -> Mapping[str, Upsert]:
        """Return the items that are there."""
        del published
        query = "SELECT * FROM gallery_stores WHERE category = ? AND space_id = ? AND is_ready = 1"
        store = self._rows.execute(query, (log.category, space.space_id)).fetchone()
        if store is None:
            return {}
        found = {item: read_item(self._rows, store, item) for item in item_ids}
        return {item: record for item, record in found.items() if record is not None}


def thumbnail_jpeg(store: sqlite3.Row, item: str) -> bytes:
    """Return the thumbnail of an item, decoded and encoded again.

    Raises:
        ConsoleError: there is none (not_found).
        CaptureError: it is damaged.
    """
    try:
        data = read_thumbnail(Path(store["path"]), item)
    except GalleryError as error:
        raise ConsoleError("not_found", str(error)) from error
    if data is None:
        raise ConsoleError("not_found", "this item has no thumbnail")
    return image.encode_image(image.decode_image(data, "thumbnail"), ".jpg")


def vector_id(row: NDArray[np.int8]) -> str:
    """Return the name of a vector: a hash of its numbers."""
    return hashlib.sha256(np.ascontiguousarray(row, np.int8).tobytes()).hexdigest()[:24]


def vector_ids(record: Upsert) -> list[str]:
    """Return the names of the vectors of an item, in their order."""
    return [vector_id(row) for row in record.vectors_i8]


def _read(path: Path, item: str, dim: int, first_row: int, last_row: int) -> Upsert | None:
    with open_store(path) as store:
        row = store.execute(_ITEM, (item,)).fetchone()
        if row is None:
            return None
        return make_record(row, store.execute(_ROWS, (item, first_row, last_row)).fetchall(), dim, path)
