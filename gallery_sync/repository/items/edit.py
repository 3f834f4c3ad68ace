"""Changes of single items of a published gallery: what they are, before they are published.

Rules this module keeps:
1. A plan says in words what it changes. It changes nothing itself: gallery_sync.repository.publish does.
2. What is renamed, merged or deleted changes in every embedding space that has the item, so that no older bundle brings
   it back. What is enrolled is enrolled in the space of its vectors alone.
3. An item is replaced as a whole. What you leave out (label, metadata, thumbnail) is kept from the item that is there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import SyncError, one_line
from edge.gallery.limits import ALSO, MAX_THUMBNAIL_BYTES, NEGATIVE, also_ids, metadata_json, parse_metadata
from edge.gallery.store import quantise
from edge.manifest.manifest import Manifest
from edge.types import FloatArray
from gallery_sync.formats.documents import GalleryLog, SpaceLog
from gallery_sync.gallery_log.records import Delete, Record, Upsert, check
from gallery_sync.gallery_log.states import state_at
from gallery_sync.gallery_log.store_records import read_records
from gallery_sync.repository.edited_gallery import edited_sequence
from gallery_sync.repository.folder import read_manifest
from gallery_sync.repository.galleries import make_store
from gallery_sync.repository.pairs import space_for
from gallery_sync.repository.published import Published

# Returns the items that there are, as `find_items` does; one that knows earlier changes plans on top of these
Find = Callable[[Published, GalleryLog, SpaceLog, Sequence[str]], Mapping[str, Upsert]]

_MOST_VECTOR_BYTES = 1 << 30  # of a file of vectors
_MOST_ALSO = 256  # ids that an item had elsewhere
_UNIT_TOLERANCE = 0.05  # as edge.gallery.writer


@dataclass(frozen=True, slots=True)
class EditPlan:
    """What to publish, and what to say about it."""

    says: tuple[str, ...]  # one line each
    changes: Mapping[str, Mapping[str, Sequence[Record]]]  # by category and embedding space
    urgent: bool = False  # devices apply the deletions at once, whatever release they have


@dataclass(frozen=True, slots=True)
class ItemContent:
    """What is known of an item to enrol. None: as it is in the item that is there."""

    vectors: FloatArray  # (n, dim), rows of unit length
    label: str | None = None
    metadata: dict[str, Any] | None = None
    negative: bool | None = None
    thumbnail: bytes | None = None  # JPEG or PNG
    silhouettes: bytes | None = None  # of the same pictures as the vectors


def newest_manifest(published: Published) -> Manifest:
    """Read the manifest of the newest release's bundle.

    Raises:
        SyncError: there is none yet, or it is damaged.
    """
    if published.head is None:
        raise SyncError(f"{published.repo}: has no bundle yet; publish a bundle and a gallery first")
    return read_manifest(published.repo, published.head)


def list_items(published: Published, category: str | None = None) -> Iterator[dict[str, object]]:
    """Yield the items that an edit can change, of each category in the embedding space that the newest bundle searches.

    Raises:
        SyncError: there is no such category, or an object is damaged.
        GalleryError: a store is damaged.
    """
    manifest = newest_manifest(published)
    logs = published.logs.values() if category is None else [log_of(published, category)]
    for log in sorted(logs, key=lambda one: one.category):
        embedder = manifest.embedder_for(log.category)
        space = space_for(embedder, log, edited_sequence(published)) if embedder else None
        if space is None:
            continue
        with _store(published, log, space) as store:
            for record in read_records(store):
                yield {
                    "category": log.category,
                    "item": record.item_id,
                    "label": record.label,
                    "vectors": len(record.scales),
                    "negative": bool(parse_metadata(record.metadata).get(NEGATIVE)),
                    "thumbnail": record.thumbnail is not None,
                }


def plan_upsert(published: Published, category: str, item_id: str, space_id: str, content: ItemContent) -> EditPlan:
    """Plan to add an item, or to replace one.

    Args:
        published: what the repository has now.
        category: of the item.
        item_id: its id.
        space_id: embedding space of the vectors.
        content: of the item.

    Raises:
        SyncError: the category has no gallery in this space, or the content breaks a limit.
    """
    log = log_of(published, category)
    space = log.space(space_id)
    if space is None:
        known = ", ".join(one.space_id for one in log.spaces)
        raise SyncError(
            f"category {category[:80]!r} has no gallery in embedding space {space_id}, only in {known}; publish a "
            "whole gallery of the new space first"
        )
    old = find_items(published, log, space, [item_id]).get(item_id)
    record = new_record(item_id, content, old)
    dim = sum(head.dim for head in space.heads)
    check(record, dim)
    what = f"{record.label!r} with {len(record.scales)} vectors"
    says = [f"add item {item_id!r} to {category!r}: {what}"]
    if old is not None:
        before = f"{old.label!r} with {len(old.scales)} vectors"
        says = [f"replace item {item_id!r} of {category!r}: {before} by {what}"]
    others = [one.space_id[:12] for one in log.spaces if one.space_id != space_id]
    if others:
        says.append(f"older embedding spaces are not changed: {', '.join(others)}")
    return EditPlan(tuple(says), {category: {space_id: [record]}})


def plan_rename(published: Published, category: str, item_id: str, label: str, find: Find | None = None) -> EditPlan:
    """Plan to give an item another label; `find` reads the items, by default those of the newest gallery.

    Raises:
        SyncError: there is no such item, or the label breaks a limit.
    """
    log = log_of(published, category)
    changes: dict[str, list[Record]] = {}
    names = set()
    for space in log.spaces:
        old = (find or find_items)(published, log, space, [item_id]).get(item_id)
        if old is not None:
            names.add(old.label)
            changes[space.space_id] = [replace(old, label=label)]
    if not changes:
        raise _no_item(category, [item_id])
    return EditPlan(
        (f"rename item {item_id!r} of {category!r}: {', '.join(map(repr, sorted(names)))} to {label!r}",),
        {category: changes},
    )


def plan_merge(published: Published, category: str, source: str, target: str, find: Find | None = None) -> EditPlan:
    """Plan to make two items one: the target gets the vectors and silhouettes of the source, which is deleted.

    `find` is that of `plan_rename`.

    Raises:
        SyncError: one of them is not there, or they are the same.
    """
    if source == target:
        raise SyncError(f"item {source[:80]!r} cannot be merged with itself; give two items")
    log = log_of(published, category)
    changes: dict[str, list[Record]] = {}
    found: set[str] = set()
    counts = ""
    for space in log.spaces:
        items = (find or find_items)(published, log, space, [source, target])
        found |= items.keys()
        if source in items:
            moved = replace(items[source], item_id=target, metadata=with_also(items[source].metadata, [source]))
            joined = _joined(items[source], items[target]) if target in items else moved
            changes[space.space_id] = [joined, Delete(source)]
            counts = f"{len(items[source].scales)} vectors of {items[source].label!r} go to {joined.label!r}"
    if missing := [item_id for item_id in (source, target) if item_id not in found]:
        raise _no_item(category, missing)
    return EditPlan(
        (f"merge item {source!r} of {category!r} into {target!r}: {counts}", f"delete item {source!r} of {category!r}"),
        {category: changes},
    )


def plan_delete(
    published: Published,
    category: str,
    item_ids: Sequence[str],
    *,
    urgent: bool = False,
    find: Find | None = None,
) -> EditPlan:
    """Plan to delete items.

    Args:
        published: what the repository has now.
        category: of the items.
        item_ids: their ids. Urgently, also items that the newest gallery has no more: earlier ones on devices may.
        urgent: devices delete them at once, from every gallery that they hold, whatever their release or window.
        find: as of `plan_rename`.

    Raises:
        SyncError: an item is not there.
    """
    log = log_of(published, category)
    ids = list(dict.fromkeys(item_ids))
    held = {space.space_id: (find or find_items)(published, log, space, ids) for space in log.spaces}
    missing = [item_id for item_id in ids if not any(item_id in items for items in held.values())]
    if missing and not urgent:
        raise _no_item(category, missing)
    deletes: list[Record] = [Delete(item_id) for item_id in ids]
    for one in deletes:
        check(one, 0)
    labels = {item_id: one.label for items in held.values() for item_id, one in items.items()}
    says = [
        f"delete item {item_id!r} of {category!r}"
        + (f": {labels[item_id]!r}" if item_id in labels else ": the newest gallery has it no more, earlier ones may")
        for item_id in ids
    ]
    if urgent:
        says.append(
            "urgently: every device deletes them at its next poll, also from the galleries that it may go back to"
        )
        says.append(
            "older whole galleries in this repository keep them until edge-sync gc removes these, which it does after "
            f"the promised offline window of {published.offline_days} days"
        )
        return EditPlan(tuple(says), {category: dict.fromkeys(held, deletes)}, urgent=True)
    changes = {space_id: [one for one in deletes if one.item_id in items] for space_id, items in held.items()}
    return EditPlan(tuple(says), {category: {space_id: some for space_id, some in changes.items() if some}})


def read_vectors(path: Path) -> FloatArray:
    """Read vectors of an item from a NumPy file: (n, dim) or (dim,) numbers, rows of unit length.

    Returns:
        (n, dim) float32.

    Raises:
        SyncError: the file is no such array.
    """
    try:
        if (size := path.stat().st_size) > _MOST_VECTOR_BYTES:
            raise SyncError(f"{path}: found {size} bytes, expected at most {_MOST_VECTOR_BYTES}")
        # mapped, so that a header which promises more than the file has takes no memory
        found = np.lib.format.open_memmap(path, mode="r")  # reads no pickles
    except OSError as error:
        raise SyncError(f"{path}: cannot be read: {error.strerror or one_line(str(error))}") from error
    except (ValueError, EOFError, TypeError, SyntaxError, MemoryError, OverflowError, RecursionError) as error:
        raise SyncError(f"{path}: not a NumPy array file (.npy): {one_line(str(error))[:200]}") from error
    if found.dtype.kind != "f" or found.ndim not in (1, 2) or not found.size:
        raise SyncError(f"{path}: expected an array of float numbers, (n, dim) or (dim,), as numpy.save writes it")
    with np.errstate(over="ignore", invalid="ignore"):
        rows = np.atleast_2d(np.array(found, np.float32))
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    if not bool((np.abs(lengths - 1.0) <= _UNIT_TOLERANCE).all()):  # written so that NaN fails, too
        raise SyncError(f"{path}: found vectors of length {lengths.min():.3f} to {lengths.max():.3f}, expected 1")
    return rows


def read_small(path: Path) -> bytes:
    """Read the file of a thumbnail.

    Raises:
        SyncError: it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_THUMBNAIL_BYTES + 1)
    except OSError as error:
        raise SyncError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_THUMBNAIL_BYTES:
        raise SyncError(f"{path}: found more than {MAX_THUMBNAIL_BYTES} bytes; give a smaller thumbnail")
    return data


def new_record(item_id: str, content: ItemContent, old: Upsert | None) -> Upsert:
    """Return the record of an item; what the content leaves out is kept from the old one.

    Raises:
        SyncError: a new item has no label, or the metadata breaks a limit.
    """
    label = content.label if content.label is not None else old.label if old else None
    if label is None:
        raise SyncError(f"item {item_id[:80]!r} is new; give it a --label")
    metadata = content.metadata if content.metadata is not None else parse_metadata(old.metadata) if old else {}
    if content.negative is not None:
        metadata = {key: value for key, value in metadata.items() if key != NEGATIVE}
        metadata |= {NEGATIVE: True} if content.negative else {}
    try:
        text = metadata_json(metadata)
    except ValueError as error:
        raise SyncError(f"item {item_id[:80]!r}: the metadata: {one_line(str(error))}") from error
    vectors, scales = quantise(content.vectors)
    thumbnail = content.thumbnail or (old.thumbnail if old else None)
    return Upsert(item_id, label, text, thumbnail, content.silhouettes, vectors, scales)


def with_also(metadata: str, item_ids: Sequence[str]) -> str:
    """Return the metadata of an item that others are merged into: a kiosk retires a taught item that is among them.

    Args:
        metadata: of the item, JSON.
        item_ids: of the others; the newest are kept if there are very many.
    """
    fields = parse_metadata(metadata)
    return metadata_json(fields | {ALSO: list(dict.fromkeys([*also_ids(fields), *item_ids]))[-_MOST_ALSO:]})


def _joined(source: Upsert, target: Upsert) -> Upsert:
    return replace(
        target,
        metadata=with_also(target.metadata, [source.item_id, *also_ids(parse_metadata(source.metadata))]),
        thumbnail=target.thumbnail or source.thumbnail,
        silhouettes=(target.silhouettes or b"") + (source.silhouettes or b"") or None,
        vectors_i8=np.concatenate([target.vectors_i8, source.vectors_i8]),
        scales=np.concatenate([target.scales, source.scales]),
    )


def log_of(published: Published, category: str) -> GalleryLog:
    """Return the log of a category.

    Raises:
        SyncError: there is no such category.
    """
    log = published.logs.get(category)
    if log is None:
        known = ", ".join(repr(one)[:80] for one in sorted(published.logs)[:20]) or "none"
        raise SyncError(f"there is no category {category[:80]!r}, only: {known}; publish its gallery first")
    return log


def _no_item(category: str, item_ids: Sequence[str]) -> SyncError:
    named = ", ".join(repr(item_id[:80]) for item_id in item_ids[:10])
    return SyncError(f"category {category[:80]!r} has no item {named}; see: edge-sync gallery list")


def find_items(published: Published, log: GalleryLog, space: SpaceLog, item_ids: Sequence[str]) -> dict[str, Upsert]:
    """Return some items of a category in one space, as an edit finds them; those that it has."""
    wanted = set(item_ids)
    if state_at(space, edited_sequence(published)) is None:  # it began later, and devices went back
        return {}
    with _store(published, log, space) as store:
        return {one.item_id: one for one in read_records(store) if one.item_id in wanted}


@contextmanager
def _store(published: Published, log: GalleryLog, space: SpaceLog) -> Iterator[Path]:
    """Make the store of the state that an edit changes."""
    with tempfile.TemporaryDirectory(prefix="finesight-gallery-") as folder:
        yield make_store(published.repo, log.category, space, edited_sequence(published), Path(folder) / "store")
