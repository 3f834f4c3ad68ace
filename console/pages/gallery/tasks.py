"""The background tasks of galleries that pages start: reading the repository, embedding, publishing."""

from __future__ import annotations

from pathlib import Path

from console.background.tasks import Task
from console.galleries.drafts import listed
from console.galleries.embedding import embed_drafts, waiting
from console.galleries.index import is_current
from console.galleries.publishing import Order, publish_drafts, update_index
from console.galleries.repository import Seen
from console.web.routing import Call

INDEX, EMBED, PUBLISH = "gallery/index", "gallery/embed", "gallery/publish"


def keep_index(call: Call, seen: Seen) -> Task | None:
    """Start to read the gallery if the tables lack what the repository has; return the task, None if there is none."""
    database, gallery, tasks = call.services.database, call.services.gallery, call.services.tasks
    with database.read() as rows:
        left = [one for one in listed(rows, "waiting") if one.file is None or not Path(one.file).exists()]
        if is_current(rows, seen) and not left:
            return None
    task = tasks.find(INDEX)
    if task is not None and task.state == "failed" and task.says:
        return task
    return tasks.start(INDEX, "Reading the gallery", lambda progress: update_index(database, gallery, progress))


def keep_embedded(call: Call, seen: Seen) -> Task | None:
    """Start to embed the pictures of drafts that lack it; return the task, None if there is none."""
    database, gallery, tasks = call.services.database, call.services.gallery, call.services.tasks
    spaces = {one: model.space_id for model in seen.manifest.embedders for one in model.categories}
    with database.read() as rows:
        ids = [one.id for one in waiting(rows, spaces)]
    if not ids:
        return None
    return tasks.start(
        EMBED, "Embedding pictures", lambda progress: embed_drafts(database, gallery, ids, progress)
    )  # fmt: skip


def read_again(call: Call) -> Task:
    """Read the gallery, also if that failed before."""
    database, gallery = call.services.database, call.services.gallery
    return call.services.tasks.start(
        INDEX, "Reading the gallery", lambda progress: update_index(database, gallery, progress)
    )


def start_publishing(call: Call, order: Order) -> Task:
    """Start to publish."""
    database, gallery, now_s = call.services.database, call.services.gallery, call.now_s
    count = len(order.draft_ids)
    return call.services.tasks.start(
        PUBLISH,
        f"Publishing {count} change{'s' if count != 1 else ''}",
        lambda progress: publish_drafts(database, gallery, now_s, order, progress),
    )
