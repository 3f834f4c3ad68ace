"""Plans of the changes that `edge-sync gallery` has no verb for: metadata, pictures, splitting, and restoring.

Each takes the items with earlier drafts on top, and returns an EditPlan of gallery_sync.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from console.galleries.changes import was_erased
from console.galleries.drafts import Draft
from console.galleries.items import item_before, vector_ids
from console.galleries.repository import Seen
from edge.errors import SyncError
from edge.gallery.limits import NEGATIVE, metadata_json, parse_metadata
from gallery_sync.formats.documents import GalleryLog, SpaceLog
from gallery_sync.gallery_log.records import Delete, Record, Upsert, check
from gallery_sync.repository.items import edit
from gallery_sync.repository.items.edit import EditPlan, Find
from gallery_sync.repository.items.index import ListedItem, record_of_pictures
from gallery_sync.repository.items.pictures import EmbeddedPictures

_SHOWN = 200  # characters of metadata in words


class Items(Protocol):
    """The items that there are now."""

    @property
    def seen(self) -> Seen:
        """The repository."""

    @property
    def find(self) -> Find:
        """Finds items."""


def plan_metadata(items: Items, draft: Draft) -> EditPlan:
    """Plan other metadata; whether it is negative stays.

    Raises:
        SyncError: there is no such item, or the metadata breaks a limit.
    """
    wanted: dict[str, Any] = {k: v for k, v in draft.arguments["metadata"].items() if k != NEGATIVE}

    def changed(old: Upsert) -> Upsert:
        kept = {NEGATIVE: True} if parse_metadata(old.metadata).get(NEGATIVE) else {}
        return replace(old, metadata=_metadata(draft.item, wanted | kept))

    shown = json.dumps(wanted, ensure_ascii=False, sort_keys=True)
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"
    return _of_each_space(items, draft, changed, f"metadata of item {draft.item!r} of {draft.category!r}: {shown}")


def plan_negative(items: Items, draft: Draft) -> EditPlan:
    """Plan that an item must not be named, or may be again.

    Raises:
        SyncError: there is no such item.
    """
    negative = bool(draft.arguments["negative"])

    def changed(old: Upsert) -> Upsert:
        fields = {k: v for k, v in parse_metadata(old.metadata).items() if k != NEGATIVE}
        return replace(old, metadata=_metadata(draft.item, fields | ({NEGATIVE: True} if negative else {})))

    says = f"item {draft.item!r} of {draft.category!r} must not be named: what is nearest to it has no match"
    if not negative:
        says = f"item {draft.item!r} of {draft.category!r} may be named again"
    return _of_each_space(items, draft, changed, says)


def plan_add(rows: sqlite3.Connection, items: Items, draft: Draft) -> EditPlan:
    """Plan embedded pictures as a new item, or as more vectors of one that is there.

    Raises:
        SyncError: the category has no gallery in their space, or nothing is new.
    """
    log = edit.log_of(items.seen.published, draft.category)
    row = rows.execute("SELECT * FROM gallery_drafts WHERE id = ?", (draft.id,)).fetchone()
    space = log.space(row["space_id"])
    model = items.seen.manifest.embedder_for(draft.category)
    if space is None or model is None or model.space_id != row["space_id"]:
        raise SyncError(
            f"the pictures for item {draft.item[:80]!r} were embedded with another bundle than the newest one; look at "
            "them again, which embeds them again"
        )
    old = items.find(items.seen.published, log, space, [draft.item]).get(draft.item)
    negative = bool(parse_metadata(old.metadata).get(NEGATIVE)) if old else bool(draft.arguments.get("negative"))
    dim = sum(head.dim for head in space.heads)
    vectors = np.frombuffer(row["vectors"], np.float32).reshape(-1, dim)
    found = EmbeddedPictures(row["space_id"], vectors, row["silhouettes"], row["thumbnail"])
    label = draft.arguments.get("label") or draft.item
    listed = ListedItem(draft.category, draft.item, label, negative)
    record, says = record_of_pictures(listed, found, old)
    if record is None:
        raise SyncError(f"{says}; take this change back")
    if old is None and draft.arguments.get("metadata"):
        fields = parse_metadata(record.metadata) | draft.arguments["metadata"]
        record = replace(record, metadata=_metadata(draft.item, fields))
    check(record, dim)
    return EditPlan((says, *_others(log, space)), {draft.category: {space.space_id: [record]}})


def plan_remove(items: Items, draft: Draft) -> EditPlan:
    """Plan an item without some of its vectors.

    Raises:
        SyncError: there is no such item or vector, or none would be left.
    """
    log, space, old = _shown(items, draft.category, draft.item)
    taken = _taken(old, draft.arguments["vectors"], draft.item)
    kept = _rows(old, ~taken)
    says = [
        f"take {int(taken.sum())} of {len(taken)} vectors from item {draft.item!r} of {draft.category!r}: {old.label!r}"
    ]
    if old.silhouettes:
        says.append("its silhouettes stay: the gallery does not say which picture each is of")
    says += _others(log, space)
    return EditPlan(tuple(says), {draft.category: {space.space_id: [kept]}})


def plan_split(rows: sqlite3.Connection, items: Items, draft: Draft) -> EditPlan:
    """Plan some vectors of an item as an item of their own.

    Raises:
        SyncError: there is no such item or vector, none would be left, or the new id is taken.
    """
    log, space, old = _shown(items, draft.category, draft.item)
    new_id = draft.also or ""
    if any(items.find(items.seen.published, log, one, [new_id]) for one in log.spaces):
        raise SyncError(f"category {draft.category[:80]!r} has an item {new_id[:80]!r}; give the new one another id")
    taken = _taken(old, draft.arguments["vectors"], draft.item)
    thumbnail = None
    if (source := draft.arguments.get("thumbnail")) is not None:
        row = rows.execute("SELECT thumbnail FROM gallery_drafts WHERE id = ?", (source,)).fetchone()
        thumbnail = row["thumbnail"] if row else None
    new = replace(
        _rows(old, taken), item_id=new_id, label=draft.arguments["label"], thumbnail=thumbnail, silhouettes=None,
        metadata="{}",
    )  # fmt: skip
    check(new, sum(head.dim for head in space.heads))
    count = f"{int(taken.sum())} of {len(taken)} vectors"
    says = [f"split item {draft.item!r} of {draft.category!r}: {count} become the new item {new_id!r}: {new.label!r}"]
    if old.silhouettes:
        says.append("silhouettes stay with the old item: the gallery does not say which picture each is of")
    if thumbnail is None:
        says.append("the new item has no thumbnail until pictures are added to it")
    says += _others(log, space)
    return EditPlan(tuple(says), {draft.category: {space.space_id: [_rows(old, ~taken), new]}})


def plan_restore(rows: sqlite3.Connection, items: Items, draft: Draft) -> EditPlan:
    """Plan an item as it was before a gallery sequence.

    Raises:
        SyncError: the repository does not reach back so far, or the item was deleted urgently.
    """
    log, gallery = edit.log_of(items.seen.published, draft.category), int(draft.arguments["gallery"])
    if was_erased(rows, draft.category, draft.item, gallery):
        raise SyncError(
            f"item {draft.item[:80]!r} was deleted urgently, so that no device keeps it; it is not restored. Add it "
            "again from pictures if it is to come back"
        )
    changes: dict[str, Sequence[Record]] = {}
    words = ""
    for space in log.spaces:
        if min(one.sequence for one in space.bases) >= gallery:
            continue  # it began later
        before = item_before(items.seen, space, draft.item, gallery)
        now = items.find(items.seen.published, log, space, [draft.item]).get(draft.item)
        if before is None and now is None:
            continue
        changes[space.space_id] = [Delete(draft.item) if before is None else before]
        words = "it was not there, so it is deleted" if before is None else _content(before)
    if not changes:
        raise SyncError(
            f"the repository has no item {draft.item[:80]!r} before gallery {gallery}: it was not there, or that state "
            "is given up"
        )
    release = draft.arguments.get("release")
    when = f"release {release}" if release else f"gallery {gallery}"
    where = f"item {draft.item!r} of {draft.category!r}"
    says = f"restore {where} as it was before {when}, without any change since: {words}"
    return EditPlan((says,), {draft.category: changes})


def _content(record: Upsert) -> str:
    return f"{record.label!r} with {len(record.scales)} vectors"


def _metadata(item: str, fields: dict[str, Any]) -> str:
    try:
        return metadata_json(fields)
    except ValueError as error:
        raise SyncError(f"item {item[:80]!r}: the metadata: {error}") from error


def _of_each_space(items: Items, draft: Draft, change: Callable[[Upsert], Upsert], says: str) -> EditPlan:
    log = edit.log_of(items.seen.published, draft.category)
    changes: dict[str, Sequence[Record]] = {}
    for space in log.spaces:
        old = items.find(items.seen.published, log, space, [draft.item]).get(draft.item)
        if old is not None:
            changes[space.space_id] = [change(old)]
    if not changes:
        raise SyncError(f"category {draft.category[:80]!r} has no item {draft.item[:80]!r} any more")
    return EditPlan((says,), {draft.category: changes})


def _shown(items: Items, category: str, item: str) -> tuple[GalleryLog, SpaceLog, Upsert]:
    log = edit.log_of(items.seen.published, category)
    space = items.seen.shown_space(log)
    old = items.find(items.seen.published, log, space, [item]).get(item) if space else None
    if space is None or old is None:
        raise SyncError(f"category {category[:80]!r} has no item {item[:80]!r} any more")
    return log, space, old


def _taken(record: Upsert, names: Sequence[str], item: str) -> np.ndarray:
    wanted = set(names)
    taken = np.array([name in wanted for name in vector_ids(record)], np.bool_)
    if not taken.any():
        raise SyncError(f"item {item[:80]!r} has none of these vectors any more; choose again")
    if taken.all():
        raise SyncError(f"item {item[:80]!r} would have no vector left; delete it, or merge it, instead")
    return taken


def _rows(record: Upsert, which: np.ndarray) -> Upsert:
    return replace(record, vectors_i8=record.vectors_i8[which], scales=record.scales[which])


def _others(log: GalleryLog, space: SpaceLog) -> list[str]:
    others = [one.space_id[:12] for one in log.spaces if one.space_id != space.space_id]
    return [f"older embedding spaces are not changed: {', '.join(others)}"] if others else []
