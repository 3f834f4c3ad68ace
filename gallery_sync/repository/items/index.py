"""Adds the pictures of an `index.csv` to a published gallery: new items, and more pictures of items that are there.

Rules this module keeps:
1. All rows are one change, and so one release. A row that cannot be used is an error: nothing is published from half.
2. An item that is there keeps its label, and its vectors stay. A picture whose vectors it has already adds nothing.
3. Ids that an item had elsewhere, in the column `also`, are kept in its metadata: see edge.gallery.limits.ALSO.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dataset_formats.csv_table import Table, read_table
from dataset_formats.index import INDEX_FILE, find_pictures, root_of
from edge.errors import SyncError
from edge.gallery.limits import NEGATIVE, parse_metadata
from gallery_sync.formats.documents import GalleryLog
from gallery_sync.gallery_log.records import Record, Upsert, check
from gallery_sync.repository.items import edit
from gallery_sync.repository.items.edit import EditPlan, ItemContent, with_also
from gallery_sync.repository.items.pictures import EmbeddedPictures, embed_pictures
from gallery_sync.repository.published import Published

_NEEDED = ("path", "category", "item")
_NEGATIVE_SPLIT = "negative"
MOST_ITEMS = 5000  # of one change


@dataclass(slots=True)
class ListedItem:
    """The rows of one item."""

    category: str
    item_id: str
    label: str
    negative: bool
    pictures: list[Path] = field(default_factory=list)
    also: dict[str, None] = field(default_factory=dict)  # ids that it had elsewhere, in their order


def read_items(file: Path) -> list[ListedItem]:
    """Read the items of an index: columns path, category, item, and optionally label, split and also.

    Raises:
        DataError: the file is no table, or lacks a column.
        SyncError: a row cannot be used, or there are none or too many.
    """
    table = read_table(file / INDEX_FILE if file.is_dir() else file)
    table.require(*_NEEDED)
    items: dict[tuple[str, str], ListedItem] = {}
    for values, path in _usable(table):
        key = (values["category"], values["item"])
        negative = values.get("split", "") == _NEGATIVE_SPLIT
        one = items.setdefault(key, ListedItem(*key, values.get("label") or values["item"], negative))
        if one.negative != negative:
            raise SyncError(
                f"{table.file}: item {key[1][:80]!r} is in the split {_NEGATIVE_SPLIT!r} and in another one"
            )
        one.pictures.append(path)
        one.also |= dict.fromkeys(values.get("also", "").split())
    if not 1 <= len(items) <= MOST_ITEMS:
        raise SyncError(f"{table.file}: found {len(items)} items, expected 1 to {MOST_ITEMS}")
    return list(items.values())


def plan_add(published: Published, file: Path) -> EditPlan:
    """Plan to add the pictures of an index, embedded with the newest bundle.

    Raises:
        SyncError: a row, a category or a picture cannot be used.
        FinesightError: a picture cannot be read, or a model cannot run.
    """
    manifest = edit.newest_manifest(published)
    listed = read_items(file)
    says: list[str] = []
    changes: dict[str, dict[str, Sequence[Record]]] = {}
    for category in dict.fromkeys(one.category for one in listed):
        log, of_category = edit.log_of(published, category), [one for one in listed if one.category == category]
        records: list[Record] = []
        embedded = [embed_pictures(published.repo, manifest, category, one.pictures) for one in of_category]
        space_id = embedded[0].space_id
        held = _held(published, log, space_id, [one.item_id for one in of_category])
        for one, found in zip(of_category, embedded, strict=True):
            record, line = record_of_pictures(one, found, held.get(one.item_id))
            says.append(line)
            if record is not None:
                check(record, found.vectors.shape[1])
                records.append(record)
        if records:
            changes[category] = {space_id: records}
    if not changes:
        raise SyncError(f"{file}: the gallery has all of these pictures already")
    return EditPlan(tuple(says), changes)


def _usable(table: Table) -> Iterator[tuple[dict[str, str], Path]]:
    """Yield the rows and their pictures.

    Raises:
        SyncError: a row lacks a value or its picture.
    """
    for line, values in table.rows:
        if empty := [name for name in _NEEDED if not values[name]]:
            raise SyncError(
                f"{table.file}: line {line}: {', '.join(empty)} is empty; decide on it, or leave the row out"
            )
    found = list(find_pictures(table, table.rows, "path", root_of(table, "path")))
    if table.left_out:
        raise SyncError(table.left_out[0])
    for _, values, path in found:
        yield values, path


def _held(published: Published, log: GalleryLog, space_id: str, item_ids: Sequence[str]) -> dict[str, Upsert]:
    space = log.space(space_id)
    if space is None:
        raise SyncError(
            f"category {log.category[:80]!r} has no gallery in embedding space {space_id}; publish a whole gallery of "
            "the newest bundle first"
        )
    return edit.find_items(published, log, space, item_ids)


def record_of_pictures(item: ListedItem, found: EmbeddedPictures, old: Upsert | None) -> tuple[Upsert | None, str]:
    """Return what to write of an item, None if nothing is new, and what to say.

    Raises:
        SyncError: the item that is there may be named and this one must not, or the other way round.
    """
    content = ItemContent(found.vectors, item.label, {}, item.negative, found.thumbnail, found.silhouettes)
    record = edit.new_record(item.item_id, content, None)
    where = f"item {item.item_id!r} of {item.category!r}"
    if old is None:
        if item.also:
            record = replace(record, metadata=with_also(record.metadata, list(item.also)))
        return record, f"add {where}: {record.label!r} with {len(record.scales)} vectors"
    if bool(parse_metadata(old.metadata).get(NEGATIVE)) != item.negative:
        which = "may" if item.negative else "must not"
        raise SyncError(f"{where}: the gallery has an item that {which} be named, unlike these; give them another item")
    known = {row.tobytes() for row in old.vectors_i8}
    new = np.array([row.tobytes() not in known for row in record.vectors_i8], np.bool_)
    metadata = with_also(old.metadata, list(item.also)) if item.also else old.metadata
    if not new.any() and metadata == old.metadata:
        return None, f"{where} has these pictures already"
    joined = replace(
        old,
        metadata=metadata,
        thumbnail=old.thumbnail or record.thumbnail,
        silhouettes=(old.silhouettes or b"") + (record.silhouettes or b"" if new.any() else b"") or None,
        vectors_i8=np.concatenate([old.vectors_i8, record.vectors_i8[new]]),
        scales=np.concatenate([old.scales, record.scales[new]]),
    )
    return joined, f"add {int(new.sum())} vectors to {where}: {old.label!r} had {len(old.scales)}"
