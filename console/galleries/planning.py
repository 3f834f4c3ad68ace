"""Plans drafts: what they do in words, and the one change of the gallery that they make together.

Rules this module keeps:
1. A draft is planned on top of those before it, by the functions of gallery_sync that `edge-sync gallery` uses.
2. A draft that cannot be done changes nothing, and says why. Nothing is published while there is one.
3. What results is one record for each item that differs in the end, whatever drafts led there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from console.galleries import edits
from console.galleries.drafts import Draft
from console.galleries.items import StoredItems
from console.galleries.repository import Seen
from edge.errors import FinesightError
from gallery_sync.formats.documents import GalleryLog, SpaceLog
from gallery_sync.gallery_log.records import Delete, Record, Upsert, digest
from gallery_sync.repository.items import edit
from gallery_sync.repository.items.edit import EditPlan
from gallery_sync.repository.published import Published

_Place = tuple[str, str, str]  # category, embedding space, item


@dataclass(frozen=True, slots=True)
class PlannedDraft:
    """A draft, and what it does."""

    draft: Draft
    says: tuple[str, ...]  # in words; () if it cannot be done
    problem: str = ""  # why not
    waits: bool = False  # for its pictures to be embedded


@dataclass(frozen=True, slots=True)
class Plan:
    """What all drafts do together."""

    version: str  # of the repository that it is made from
    drafts: tuple[PlannedDraft, ...]
    urgent: Mapping[str, tuple[str, ...]]  # items to delete urgently, by category
    changes: Mapping[str, Mapping[str, Sequence[Record]]]  # by category and embedding space

    @property
    def is_ready(self) -> bool:
        """Whether it can be published."""
        return bool(self.drafts) and not any(one.problem or one.waits for one in self.drafts)

    @property
    def item_count(self) -> int:
        """How many items change."""
        found = {(category, item) for category, items in self.urgent.items() for item in items}
        for category, spaces in self.changes.items():
            found |= {(category, record.item_id) for records in spaces.values() for record in records}
        return len(found)


@dataclass
class Overlay:
    """The items of the repository with the drafts so far on top."""

    seen: Seen
    stored: StoredItems
    now: dict[_Place, Upsert | None] = field(default_factory=dict)  # None: deleted
    urgent: dict[str, dict[str, None]] = field(default_factory=dict)

    def find(
        self, published: Published, log: GalleryLog, space: SpaceLog, item_ids: Sequence[str]
    ) -> Mapping[str, Upsert]:
        """Return the items that there are now; an `edit.Find`."""
        places = {item: (log.category, space.space_id, item) for item in item_ids}
        unknown = [item for item, place in places.items() if place not in self.now]
        found = dict(self.stored.find(published, log, space, unknown)) if unknown else {}
        found |= {item: one for item, place in places.items() if (one := self.now.get(place)) is not None}
        return found

    def item(self, category: str, item: str) -> Upsert | None:
        """Return an item in the space that is shown; None: it is not there.

        Raises:
            SyncError: there is no such category.
        """
        log = edit.log_of(self.seen.published, category)
        space = self.seen.shown_space(log)
        return None if space is None else self.find(self.seen.published, log, space, [item]).get(item)

    def apply(self, plan: EditPlan) -> None:
        """Put a plan on top."""
        for category, spaces in plan.changes.items():
            for space_id, records in spaces.items():
                for record in records:
                    one = record if isinstance(record, Upsert) else None
                    self.now[category, space_id, record.item_id] = one
                    if plan.urgent:
                        self.urgent.setdefault(category, {})[record.item_id] = None

    def changes(self) -> dict[str, dict[str, list[Record]]]:
        """Return a record for each item that is not as in the repository."""
        found: dict[str, dict[str, list[Record]]] = {}
        for (category, space_id, item), one in self.now.items():
            log = edit.log_of(self.seen.published, category)
            space = log.space(space_id)
            assert space is not None
            old = self.stored.find(self.seen.published, log, space, [item]).get(item)
            if item in self.urgent.get(category, {}):
                old = None  # it is deleted before the others are published
            record = _difference(item, old, one)
            if record is not None:
                found.setdefault(category, {}).setdefault(space_id, []).append(record)
        return found


def _difference(item: str, old: Upsert | None, new: Upsert | None) -> Record | None:
    if new is None:
        return None if old is None else Delete(item)
    return None if old is not None and digest(old) == digest(new) else new


def plan(rows: sqlite3.Connection, seen: Seen, waiting: Sequence[Draft]) -> Plan:
    """Plan drafts in their order.

    Args:
        rows: the console's tables, with the index of what was seen.
        seen: the repository.
        waiting: the drafts.
    """
    overlay, planned = overlay_of(rows, seen, waiting)
    urgent = {category: tuple(items) for category, items in overlay.urgent.items()}
    return Plan(seen.version, tuple(planned), urgent, overlay.changes())


def overlay_of(rows: sqlite3.Connection, seen: Seen, waiting: Sequence[Draft]) -> tuple[Overlay, list[PlannedDraft]]:
    """Return the items with drafts on top, and each draft planned."""
    overlay = Overlay(seen, StoredItems(rows))
    return overlay, [plan_next(rows, overlay, draft) for draft in waiting]


def plan_next(rows: sqlite3.Connection, overlay: Overlay, draft: Draft) -> PlannedDraft:
    """Plan one draft more, and put it on top."""
    if draft.kind == "add" and not draft.is_embedded:
        return PlannedDraft(draft, (_says_add(draft),), draft.problem, waits=not draft.problem)
    try:
        made = _planned(rows, overlay, draft)
    except FinesightError as error:
        return PlannedDraft(draft, (), str(error))
    overlay.apply(made)
    return PlannedDraft(draft, made.says)


def _says_add(draft: Draft) -> str:
    count = f"{draft.pictures} picture{'s' if draft.pictures != 1 else ''}"
    return f"add {count} to item {draft.item!r} of {draft.category!r}"


def _planned(rows: sqlite3.Connection, overlay: Overlay, draft: Draft) -> EditPlan:  # noqa: PLR0911  one for each kind
    """Return the plan of one draft.

    Raises:
        FinesightError: it cannot be done.
    """
    published, category, item = overlay.seen.published, draft.category, draft.item
    match draft.kind:
        case "rename":
            return edit.plan_rename(published, category, item, draft.arguments["label"], overlay.find)
        case "merge":
            return edit.plan_merge(published, category, item, draft.also or "", overlay.find)
        case "delete":
            urgent = bool(draft.arguments.get("urgent"))
            return edit.plan_delete(published, category, [item], urgent=urgent, find=overlay.find)
        case "metadata":
            return edits.plan_metadata(overlay, draft)
        case "negative":
            return edits.plan_negative(overlay, draft)
        case "add":
            return edits.plan_add(rows, overlay, draft)
        case "remove":
            return edits.plan_remove(overlay, draft)
        case "split":
            return edits.plan_split(rows, overlay, draft)
        case "restore":
            return edits.plan_restore(rows, overlay, draft)
