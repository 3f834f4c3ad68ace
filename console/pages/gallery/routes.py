"""Galleries: their pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from console.galleries import browse
from console.galleries.changes import history
from console.galleries.drafts import Draft, count_open, listed, of_item
from console.galleries.erasing import remains
from console.galleries.grouping import group_vectors
from console.galleries.items import read_item, store_of
from console.galleries.lookalikes import mean_row, nearest, pairs_of
from console.galleries.publishing import sign_commands
from console.galleries.repository import Seen
from console.galleries.workbench import Edit, current_item, current_plan, say, state_of
from console.pages.gallery import actions, reads
from console.pages.gallery.tasks import PUBLISH, keep_embedded, keep_index
from console.pages.gallery.values import ItemQuery, ItemsQuery, PairQuery, SplitQuery
from console.web.routing import Answer, Call, Html, Route, page
from edge.errors import ConsoleError, SyncError
from edge.gallery.limits import NEGATIVE, parse_metadata

_LOOK_ALIKES = 8
_PUBLISHED_SHOWN = 30


def _index(call: Call) -> Answer:
    if call.services.gallery.repo is None:
        return Html("gallery/none.html")
    try:
        seen = call.services.gallery.see()
    except SyncError as error:
        return Html("gallery/none.html", {"problem": str(error)})
    task = keep_index(call, seen)
    with call.services.database.read() as rows:
        categories = browse.categories(rows)
        values = _about(call, seen, rows)
    unknown = [one.category for one in categories if not one.searched]
    return Html(
        "gallery/index.html",
        {**values, "task": task, "categories": categories, "unknown": unknown, "now_s": call.now_s},
    )


def _category(call: Call) -> Answer:
    category = _category_name(call)
    seen = call.services.gallery.see()
    task = keep_index(call, seen)
    query = call.query
    with call.services.database.read() as rows:
        values = _about(call, seen, rows)
        try:
            store = store_of(rows, category)
        except ConsoleError:
            if task is None:
                raise
            return Html("gallery/reading.html", {**values, "task": task, "title": category})
        found = browse.items(rows, store, query.browsed())
        letters = browse.letters(rows, store)
        about = browse.category_of(rows, store)
        changed = {one.item for one in listed(rows) if one.category == category}
    following = None
    if found.next is not None:
        more = query.model_dump(exclude={"value", "id", "name", "at"}, exclude_defaults=True)
        following = f"{category_url(category)}{_joiner(category)}" + urlencode(
            {**more, "value": found.next[0], "id": found.next[1]}
        )
    return Html(
        "gallery/category.html",
        {
            **values, "task": task, "about": about, "items": found.items, "next": following, "letters": letters,
            "query": query, "version": store["id"], "changed": changed, "here": category_url(category),
        },
    )  # fmt: skip


def _item(call: Call) -> Answer:
    category, item = _category_name(call), call.query.item
    seen = call.services.gallery.see()
    task = keep_index(call, seen)
    with call.services.database.read() as rows:
        values = _about(call, seen, rows)
        if task is not None:
            return Html("gallery/reading.html", {**values, "task": task, "title": item})
        store = store_of(rows, category)
        row = browse.find_item(rows, store, item)
        stored = read_item(rows, store, item)
        now = current_item(rows, seen, category, item)
        drafts = of_item(rows, category, item)
        log = history(rows, category, item, store["space_id"])
        if row is None and now is None and not drafts and not log:
            raise ConsoleError("not_found", f"{category[:80]!r} has no item {item[:80]!r}")
        pictures = [one for draft in drafts for one in _pictures(rows, draft)]
        changed_at = browse.time_of_gallery(rows, row.changed) if row else None
        about = browse.category_of(rows, store)
    shown = now or stored
    metadata = parse_metadata(shown.metadata) if shown else {}
    return Html(
        "gallery/item.html",
        {
            **values, "about": about, "item": item, "row": row, "now": now, "stored": stored, "shown": shown,
            "seen": state_of(now), "negative": bool(metadata.pop(NEGATIVE, False)), "metadata": metadata,
            "metadata_json": reads.pretty(metadata), "open": [one for one in drafts if one.state == "open"],
            "history": reads.merged_history(log, drafts), "pictures": pictures, "changed_at": changed_at,
            "version": store["id"], "task": keep_embedded(call, seen),
        },
    )  # fmt: skip


def _new(call: Call) -> Answer:
    seen = call.services.gallery.see()
    with call.services.database.read() as rows:
        values = _about(call, seen, rows)
        about = browse.category_of(rows, store_of(rows, call.query.category or ""))
    return Html("gallery/new.html", {**values, "about": about, "item": call.query.item})


def _split(call: Call) -> Answer:
    category, item = call.query.category, call.query.item
    seen = call.services.gallery.see()
    with call.services.database.read() as rows:
        values = _about(call, seen, rows)
        store = store_of(rows, category)
        now = current_item(rows, seen, category, item)
        if now is None:
            raise ConsoleError("not_found", f"{category[:80]!r} has no item {item[:80]!r}")
        groups = group_vectors(rows, category, item, now, store["space_id"])
    return Html(
        "gallery/split.html",
        {**values, "category": category, "item": item, "now": now, "groups": groups, "seen": state_of(now),
         "vectors": len(now.scales), "remove": call.query.remove},
    )  # fmt: skip


def _changes(call: Call) -> Answer:
    gallery = call.services.gallery
    seen = gallery.see()
    index_task = keep_index(call, seen)
    task = index_task or keep_embedded(call, seen)
    with call.services.database.read() as rows:
        values = _about(call, seen, rows)
        try:
            planned = current_plan(rows, seen)
        except ConsoleError:  # it is being read
            planned = None
        waiting: dict[str, list[Draft]] = {}
        for one in listed(rows, "waiting"):
            waiting.setdefault(one.file or "", []).append(one)
        published = listed(rows, "published", _PUBLISHED_SHOWN)
        pictures = {one.id: _pictures(rows, one)[:8] for one in listed(rows) if one.pictures}
    assert gallery.repo is not None
    commands = {file: sign_commands(file, gallery.repo) for file in waiting}
    return Html(
        "gallery/changes.html",
        {
            **values, "task": task, "plan": planned, "waiting": waiting, "commands": commands, "published": published,
            "pictures": pictures, "has_keys": gallery.keys is not None, "publishing": call.services.tasks.find(PUBLISH),
            "rollout": seen.published.plan,
        },
    )  # fmt: skip


def _warnings(call: Call) -> Answer:
    seen = call.services.gallery.see()
    task = keep_index(call, seen)
    with call.services.database.read() as rows:
        values = _about(call, seen, rows)
        found = browse.categories(rows)
        if call.query.category:
            found = [one for one in found if one.category == call.query.category]
        shown = [(one, pairs_of(rows, one.store_id, 20 if len(found) > 1 else 200)) for one in found[:100]]
    return Html("gallery/warnings.html", {**values, "task": task, "shown": shown, "now_s": call.now_s})


def _look_alikes(call: Call) -> Answer:
    seen = call.services.gallery.see()
    with call.services.database.read() as rows:
        store = store_of(rows, call.query.category)
        now = current_item(rows, seen, call.query.category, call.query.item)
        found = nearest(rows, store, mean_row(now), [call.query.item], _LOOK_ALIKES) if now else []
    return Html(
        "gallery/look_alikes.html",
        {"category": call.query.category, "item": call.query.item, "found": found, "threshold": store["threshold"],
         "version": store["id"], "seen": state_of(now), "item_url": item_url, "label": now.label if now else ""},
    )  # fmt: skip


def _deletion(call: Call) -> Answer:
    category, item = call.query.category, call.query.item
    seen = call.services.gallery.see()
    with call.services.database.read() as rows:
        usual = _said(rows, seen, Edit("delete", category, item, {"urgent": False}))
        urgent = _said(rows, seen, Edit("delete", category, item, {"urgent": True}))
        stays = {
            one: remains(rows, category, item, seen.published.offline_days, urgent=one) for one in (False, True)
        }  # fmt: skip
        state = state_of(current_item(rows, seen, category, item))
    return Html(
        "gallery/deletion.html",
        {"category": category, "item": item, "usual": usual, "urgent": urgent, "stays": stays, "seen": state},
    )


def _said(rows: Any, seen: Seen, edit: Edit) -> Sequence[str]:
    try:
        return say(rows, seen, edit)
    except ConsoleError as error:
        return [str(error)]


def _pictures(rows: Any, draft: Draft) -> list[dict[str, Any]]:
    query = "SELECT id, crop_id, path, name FROM gallery_pictures WHERE draft_id = ? ORDER BY number LIMIT 60"
    return [
        {"id": row["id"], "crop": row["crop_id"], "is_cut": row["path"] is not None, "name": row["name"],
         "draft": draft.id, "state": draft.state}
        for row in rows.execute(query, (draft.id,))
        if row["path"] is not None or draft.state == "open"
    ]  # fmt: skip


def _about(call: Call, seen: Seen, rows: Any) -> Mapping[str, Any]:
    """Return what all pages of the area show."""
    release = seen.published.release
    return {
        "draft_count": count_open(rows), "release": release, "bundle": seen.manifest.bundle_id,
        "may": call.user.may("operator"), "category_url": category_url, "item_url": item_url,
    }  # fmt: skip


def category_url(category: str) -> str:
    """Return the address of a category; one whose name is no part of a path travels in the query."""
    if "/" in category or category in (".", "..", "-"):
        return f"/gallery/-/category?{urlencode({'name': category})}"
    return f"/gallery/{quote(category, safe='')}"


def item_url(category: str, item: str) -> str:
    """Return the address of an item."""
    if "/" in category or category in (".", "..", "-"):
        return f"/gallery/-/item?{urlencode({'name': category, 'item': item})}"
    return f"/gallery/{quote(category, safe='')}/items?{urlencode({'item': item})}"


def _joiner(category: str) -> str:
    return "&" if "?" in category_url(category) else "?"


def _category_name(call: Call) -> str:
    return str(call.path.get("category") or call.query.name or "")


ROUTES: tuple[Route, ...] = (
    page("/gallery", "viewer", _index),
    page("/gallery/-/changes", "viewer", _changes),
    page("/gallery/-/warnings", "viewer", _warnings, PairQuery),
    page("/gallery/-/new", "operator", _new, ItemQuery),
    page("/gallery/-/split", "operator", _split, SplitQuery),
    page("/gallery/-/category", "viewer", _category, ItemsQuery),
    page("/gallery/-/item", "viewer", _item, ItemQuery),
    page("/gallery/{category}", "viewer", _category, ItemsQuery),
    page("/gallery/{category}/items", "viewer", _item, ItemQuery),
    page("/parts/gallery/look-alikes", "viewer", _look_alikes, SplitQuery),
    page("/parts/gallery/deletion", "operator", _deletion, SplitQuery),
    *reads.ROUTES,
    *actions.ROUTES,
)
