"""The difference of two stores of one category, as the records of a segment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge.errors import SyncError
from edge.gallery.store_file import open_store
from edge.gallery.store_rows import read_properties
from gallery_sync.gallery_log.records import Delete, Record, digest
from gallery_sync.gallery_log.store_records import read_records


def between(old: Path, new: Path) -> Iterator[Record]:
    """Yield the records that make an old store a new one: upserts first, then deletes; nothing for equal items.

    Of the old store, the id and digest of each item are held, of the new one an item at a time.

    Raises:
        GalleryError: a store is damaged.
        SyncError: they are of different categories or embedding spaces.
    """
    _check_same_kind(old, new)
    held = {record.item_id: digest(record) for record in read_records(old)}
    for record in read_records(new):
        if held.pop(record.item_id, None) != digest(record):
            yield record
    for item_id in sorted(held):
        yield Delete(item_id)


def _check_same_kind(old: Path, new: Path) -> None:
    kinds = []
    for path in (old, new):
        with open_store(path) as store:
            properties, heads = read_properties(store, path)
        kinds.append(
            {"category": properties.get("category"), "embedding space": properties.get("space_id"), "heads": heads}
        )
    for key, value in kinds[0].items():
        if kinds[1][key] != value:
            raise SyncError(f"{new}: found {key} {kinds[1][key]!r}, expected {value!r} as in {old}; publish a new base")
