"""Publishes drafts: all that are named as one signed release, urgent deletions as one before it.

Rules this module keeps:
1. What is published is what was shown: the same drafts on the same repository. Otherwise nothing is.
2. Keys are read on this server, and only while a release is signed. Without them a draft is left for `edge-sync sign`.
3. After a deletion, the console's own copies of the item's pictures are erased, too.
"""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from console.access.audit import record
from console.background.tasks import Progress
from console.galleries.drafts import Draft, Settled, intend, listed, settle, withdraw
from console.galleries.erasing import erase_published, erase_withdrawn
from console.galleries.index import is_current, read_index
from console.galleries.planning import Plan, plan
from console.galleries.repository import Seen, SignedGallery
from console.storage.database import Database
from edge.errors import ConsoleError
from gallery_sync.gallery_log.records import Delete, Record
from gallery_sync.repository.commit_pair import Publication
from gallery_sync.repository.items import edit
from gallery_sync.repository.keys import KeyRing
from gallery_sync.repository.publish import publish_gallery_change

_CHANGED = "the repository changed since this plan was made; look at it again, then publish"


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants to publish."""

    by: str
    version: str  # of the repository, as the page showed it
    draft_ids: tuple[int, ...]
    hold: bool = False  # no device takes it until a plan brings it


def update_index(database: Database, gallery: SignedGallery, progress: Progress) -> str:
    """Read the newest gallery into the tables, and look whether drafts that waited are published.

    Raises:
        FinesightError: the repository cannot be read.
    """
    with gallery.turn:
        seen = gallery.see()
        with database.write() as connection:
            erase_published(connection, gallery.folder, _settle_waiting(connection, seen))
        return read_index(database, seen, gallery.folder / "stores", progress)


def check_order(database: Database, gallery: SignedGallery, order: Order) -> None:
    """Check what can be checked at once, before the work begins.

    Raises:
        ConsoleError: the repository or the drafts changed meanwhile (conflict), or there are none (invalid).
    """
    if not order.draft_ids:
        raise ConsoleError("invalid", "there is nothing to publish")
    if gallery.see().version != order.version:
        raise ConsoleError("conflict", _CHANGED)
    with database.read() as rows:
        _chosen(rows, order.draft_ids)


def publish_drafts(database: Database, gallery: SignedGallery, now_s: float, order: Order, progress: Progress) -> str:
    """Publish drafts, and return what was done in one sentence.

    Raises:
        ConsoleError: the repository or the drafts changed meanwhile (conflict), or they cannot be published (invalid).
        FinesightError: a key is missing, a rollout is under way, or the disk failed; the message says which.
    """
    with gallery.turn:
        return _publish_drafts(database, gallery, now_s, order, progress)


def _publish_drafts(database: Database, gallery: SignedGallery, now_s: float, order: Order, progress: Progress) -> str:
    seen = gallery.see()
    if seen.version != order.version:
        raise ConsoleError("conflict", _CHANGED)
    with database.read() as rows:
        current = is_current(rows, seen)
    if not current:
        update_index(database, gallery, progress)
    with database.read() as rows:
        planned = plan(rows, seen, _chosen(rows, order.draft_ids))
    _check(planned, order)
    said = []
    urgent = [one.draft for one in planned.drafts if one.draft.kind == "delete" and one.draft.arguments.get("urgent")]
    usual = [one.draft for one in planned.drafts if one.draft not in urgent]
    if urgent:
        said.append(_publish(database, gallery, now_s, order, planned, urgent, _deletions(seen, planned.urgent)))
        if _waits(database, urgent) and usual:
            return f"{said[0]}; publish the others after it"
    if usual and planned.changes:
        said.append(_publish(database, gallery, now_s, order, planned, usual, planned.changes))
    elif usual:  # they only changed what is deleted urgently now
        with database.write() as connection:
            for one in usual:
                withdraw(connection, now_s, order.by, one)
                erase_withdrawn(connection, gallery.folder, one.id)
    update_index(database, gallery, progress)
    return "; ".join(said)


def sign_commands(file: str, repo: Path) -> list[str]:
    """Return the commands that finish a draft where the keys are."""
    name, where = shlex.quote(file), shlex.quote(str(repo))
    return [f"edge-sync sign {name}", f"edge-sync sign {name} --publish {where} --yes"]


def reopen(connection: sqlite3.Connection, now_s: float, by: str, file: str) -> int:
    """Take back a release that waits for signatures: its drafts are open again. Return how many they are.

    Raises:
        ConsoleError: none waits in this file (not_found).
    """
    ids = [one.id for one in listed(connection, "waiting") if one.file == file]
    if not ids:
        raise ConsoleError("not_found", "no change waits for signatures in this draft; it may be published")
    Path(file).unlink(missing_ok=True)
    settle(connection, ids, None)
    record(connection, now_s, by, "gallery.reopen", Path(file).name, drafts=ids)
    return len(ids)


def _publish(
    database: Database,
    gallery: SignedGallery,
    now_s: float,
    order: Order,
    planned: Plan,
    drafts: Sequence[Draft],
    changes: Mapping[str, Mapping[str, Sequence[Record]]],
) -> str:
    """Publish changes as one release, and mark the drafts."""
    urgent = all(one.kind == "delete" and one.arguments.get("urgent") for one in drafts)
    assert gallery.repo is not None
    keys = KeyRing.open(gallery.keys) if gallery.keys else KeyRing.open_or_empty(gallery.folder / "signing")
    now = datetime.fromtimestamp(now_s, timezone.utc)
    with database.write() as connection:
        number = gallery.see().published.newest_sequence + 1
        intend(connection, [one.id for one in drafts], number, now.isoformat(timespec="seconds"))
    done = publish_gallery_change(gallery.repo, keys, now, changes, urgent=urgent, hold=order.hold)
    gallery_sequence = gallery.see().published.gallery_sequence if done.draft is None else done.release.gallery_sequence
    where = Settled(
        done.release.sequence,
        gallery_sequence,
        done.release.created_at,
        None if done.draft is None else str(done.draft),
    )
    with database.write() as connection:
        settle(connection, [one.id for one in drafts], where)
        words = {one.draft.id: "; ".join(one.says) for one in planned.drafts}
        connection.executemany(
            "UPDATE gallery_drafts SET says = ? WHERE id = ?", [(words[one.id], one.id) for one in drafts]
        )
        record(
            connection, now_s, order.by, "gallery.publish", f"release {done.release.sequence}",
            drafts=[one.id for one in drafts], urgent=urgent, held=done.held, draft=where.file or "",
        )  # fmt: skip
        if where.file is None:
            erase_published(connection, gallery.folder, drafts)
    return _in_words(done)


def _in_words(done: Publication) -> str:
    number = done.release.sequence
    notes = "".join(f"; {one}" for one in done.notes)
    if done.draft is not None:
        return f"release {number} waits for signatures: {'; '.join(done.waits_for)}{notes}"
    if done.held:
        return f"release {number} is published and held: no device takes it until a plan does{notes}"
    return f"release {number} is published{notes}"


def _chosen(rows: sqlite3.Connection, draft_ids: Sequence[int]) -> list[Draft]:
    """Return the named drafts in their order.

    Raises:
        ConsoleError: one is not open any more (conflict).
    """
    wanted = set(draft_ids)
    found = [one for one in listed(rows) if one.id in wanted]
    if len(found) != len(wanted):
        raise ConsoleError("conflict", "a change was taken back or published meanwhile; look at the plan again")
    return found


def _check(planned: Plan, order: Order) -> None:
    for one in planned.drafts:
        if one.problem:
            raise ConsoleError("invalid", f"change {one.draft.id} cannot be done: {one.problem}; take it back")
        if one.waits:
            raise ConsoleError("invalid", f"the pictures of change {one.draft.id} are not embedded yet; wait for them")
    if planned.urgent and order.hold:
        raise ConsoleError("invalid", "an urgent deletion waits for nothing; publish it without holding it")
    if not planned.urgent and not planned.changes:
        raise ConsoleError("invalid", "these changes cancel each other out: nothing would change; take them back")


def _deletions(seen: Seen, urgent: Mapping[str, Sequence[str]]) -> dict[str, dict[str, list[Record]]]:
    return {
        category: {
            space.space_id: [Delete(item) for item in items] for space in edit.log_of(seen.published, category).spaces
        }
        for category, items in urgent.items()
    }


def _waits(database: Database, drafts: Sequence[Draft]) -> bool:
    with database.read() as rows:
        waiting = {one.id for one in listed(rows, "waiting")}
    return any(one.id in waiting for one in drafts)


def _settle_waiting(connection: sqlite3.Connection, seen: Seen) -> list[Draft]:
    """Mark drafts that were signed elsewhere, or while the console was killed, as published; return them.

    Those whose release came to nothing are open again.
    """
    published, done = seen.published, []
    intended = [one for one in listed(connection) if one.release is not None]
    for one in (*listed(connection, "waiting"), *intended):
        release = published.history.get(one.release or 0)
        is_there = release is not None and release.created_at == one.release_at
        if release is not None and is_there and release.sequence <= published.newest_sequence:
            gallery = one.gallery or published.gallery_sequence
            settle(connection, [one.id], Settled(release.sequence, gallery, release.created_at))
            done.append(one)
        elif one.file is None or not Path(one.file).exists():
            settle(connection, [one.id], None)
    return done
