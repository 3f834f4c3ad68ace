"""Galleries: what the API answers about them, and their pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from console.galleries import browse
from console.galleries.changes import Change
from console.galleries.drafts import Draft
from console.galleries.items import store_of, thumbnail_jpeg
from console.galleries.planning import PlannedDraft
from console.galleries.workbench import current_plan
from console.pages.gallery.tasks import keep_index
from console.pages.gallery.values import (
    CategoryItemsQuery,
    CategoryValue,
    CategoryValues,
    DraftValue,
    ItemValue,
    ItemValues,
    PlanValue,
    ThumbnailQuery,
)
from console.web.routing import Answer, Bytes, Call, Values, api
from edge.errors import CaptureError, ConsoleError
from edge.imaging import image

_CACHE_S = 86400
_PICTURE_PX = 400


@dataclass(frozen=True, slots=True)
class Event:
    """One line of an item's history."""

    at: float | None
    by: str  # "": not made with this console
    says: str
    release: int | None
    gallery: int | None
    draft: Draft | None
    urgent: bool


def merged_history(log: Sequence[Change], drafts: Sequence[Draft]) -> list[Event]:
    """Return the changes of an item in the log, each with the drafts that made it; the newest first."""
    by_gallery: dict[int, list[Draft]] = {}
    for draft in drafts:
        if draft.state == "published" and draft.gallery is not None:
            by_gallery.setdefault(draft.gallery, []).append(draft)
    events = []
    for change in log:
        made = by_gallery.pop(change.gallery, [])
        place = (change.release, change.gallery)
        events += [Event(change.at, one.by, one.says, *place, one, change.urgent) for one in made]
        if not made:
            said = "deleted" if change.label is None else f"{change.label!r} with {change.vectors} vectors"
            events.append(Event(change.at, "", said, *place, None, change.urgent))
    for gallery, made in by_gallery.items():  # of which the log has no record: an older space, or given up
        events += [Event(one.at, one.by, one.says, one.release, gallery, one, urgent=False) for one in made]
    return sorted(events, key=lambda one: -(one.gallery or 0))


def pretty(metadata: Mapping[str, Any]) -> str:
    """Return metadata as people edit it."""
    return json.dumps(metadata, ensure_ascii=False, indent=2, sort_keys=True) if metadata else "{}"


def _categories(call: Call) -> Answer:
    seen = call.services.gallery.see()
    keep_index(call, seen)
    with call.services.database.read() as rows:
        found = browse.categories(rows)
    release = seen.published.release
    return Values(
        CategoryValues(
            categories=[
                CategoryValue(
                    category=one.category, items=one.items, vectors=one.vectors, few=one.few,
                    without_thumbnail=one.faceless, negative=one.negative, searched=one.searched,
                )
                for one in found
            ],
            release=release.sequence if release else None,
        )
    )  # fmt: skip


def _items(call: Call) -> Answer:
    keep_index(call, call.services.gallery.see())
    with call.services.database.read() as rows:
        found = browse.items(rows, store_of(rows, call.query.category), call.query.browsed())
    value, last = found.next or (None, None)
    return Values(
        ItemValues(
            items=[
                ItemValue(
                    item=one.item, label=one.label, vectors=one.vectors, negative=one.negative,
                    thumbnail=one.has_thumbnail,
                )
                for one in found.items
            ],
            next_value=value,
            next_id=last,
        )
    )  # fmt: skip


def _thumbnail(call: Call) -> Answer:
    with call.services.database.read() as rows:
        store = store_of(rows, call.query.category)
    try:
        data = thumbnail_jpeg(store, call.query.item)
    except CaptureError as error:
        raise ConsoleError("not_found", str(error)) from error
    return Bytes(data, "image/jpeg", _CACHE_S if call.query.v else 0)


def _picture(call: Call) -> Answer:
    gallery = call.services.gallery
    with call.services.database.read() as rows:
        row = rows.execute("SELECT path FROM gallery_pictures WHERE id = ?", (call.path["id"],)).fetchone()
    if row is None or row["path"] is None:
        raise ConsoleError("not_found", "this picture is not here, or was erased")
    try:
        picture = image.read_image(gallery.folder / row["path"])
    except CaptureError as error:
        raise ConsoleError("not_found", "this picture was erased") from error
    return Bytes(image.encode_image(image.shrink(picture, _PICTURE_PX), ".jpg"), "image/jpeg", 60)


def _plan(call: Call) -> Answer:
    seen = call.services.gallery.see()
    keep_index(call, seen)
    with call.services.database.read() as rows:
        planned = current_plan(rows, seen)
    return Values(
        PlanValue(
            version=planned.version,
            ready=planned.is_ready,
            items=planned.item_count,
            drafts=[_draft_value(one) for one in planned.drafts],
        )
    )


def _draft_value(planned: PlannedDraft) -> DraftValue:
    one = planned.draft
    return DraftValue(
        id=one.id, by=one.by, at=one.at, kind=one.kind, category=one.category, item=one.item,
        does=list(planned.says), problem=planned.problem, warnings=list(one.warnings), waits=planned.waits,
    )  # fmt: skip


ROUTES = (
    api("GET", "/gallery/categories", "viewer", _categories, "The categories of the gallery", answer=CategoryValues),
    api(
        "GET", "/gallery/items", "viewer", _items, "Items of a category, a page at a time", query=CategoryItemsQuery,
        answer=ItemValues,
    ),
    api(
        "GET", "/gallery/thumbnail", "viewer", _thumbnail, "The thumbnail of an item", query=ThumbnailQuery,
        media="image/jpeg",
    ),
    api(
        "GET", "/gallery/pictures/{id:int}", "viewer", _picture, "A picture that a change adds", media="image/jpeg"
    ),
    api("GET", "/gallery/drafts", "viewer", _plan, "The changes that wait, and what they do", answer=PlanValue),
)  # fmt: skip
