"""Makes drafts, takes them back, and undoes published ones. Whatever is drafted was planned first.

Rules this module keeps:
1. A draft that cannot be done on top of those that wait is refused, with the words of its plan.
2. Somebody who edits an item names the state that they saw. If it is another one now, nothing is drafted.
3. Taking a draft back must leave the others possible; else it says which one depends on it.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from console.galleries.drafts import Draft, Kind, create, find, listed, withdraw
from console.galleries.erasing import erase_withdrawn
from console.galleries.index import is_current
from console.galleries.items import item_before
from console.galleries.planning import Plan, overlay_of, plan, plan_next
from console.galleries.repository import Seen, SignedGallery
from console.storage.database import Database
from edge.errors import ConsoleError
from edge.gallery.limits import NEGATIVE, parse_metadata
from edge.imaging import image
from gallery_sync.gallery_log.records import Upsert, digest
from gallery_sync.repository.items.edit import log_of

READING = "the gallery is being read; try again in a moment"
_MOST_SIDE_PX = 1600  # of a picture that is kept for a draft: an embedder sees far less


@dataclass(frozen=True, slots=True)
class Edit:
    """What somebody wants to change."""

    kind: Kind
    category: str
    item: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    also: str | None = None  # id of another item that it changes
    seen: str = ""  # the state of the item that they saw, see `state_of`; "": no matter


def state_of(record: Upsert | None) -> str:
    """Return the name of the state of an item; "" if it is not there."""
    return "" if record is None else f"{digest(record):064x}"[:20]


def current_plan(rows: sqlite3.Connection, seen: Seen) -> Plan:
    """Plan all open drafts.

    Raises:
        ConsoleError: the gallery is being read (busy).
    """
    _require_index(rows, seen)
    return plan(rows, seen, listed(rows))


def current_item(rows: sqlite3.Connection, seen: Seen, category: str, item: str) -> Upsert | None:
    """Return an item with all open drafts on top; None: it is not there.

    Raises:
        ConsoleError: the gallery is being read (busy).
        SyncError: there is no such category.
    """
    _require_index(rows, seen)
    touching = [one for one in listed(rows) if one.category == category]
    return overlay_of(rows, seen, touching)[0].item(category, item)


def say(rows: sqlite3.Connection, seen: Seen, edit: Edit) -> tuple[str, ...]:
    """Return what an edit would do, in words, on top of the open drafts.

    Raises:
        ConsoleError: it cannot be done (conflict), or the gallery is being read (busy).
    """
    _require_index(rows, seen)
    trial = Draft(
        0, 0.0, "", edit.kind, edit.category, edit.item, edit.arguments, "open", "", edit.also, None, None, None, None,
        None, False, 0, (), "",
    )  # fmt: skip
    planned = plan_next(rows, overlay_of(rows, seen, listed(rows))[0], trial)
    if planned.problem:
        raise ConsoleError("conflict", planned.problem)
    return planned.says


def propose(database: Database, gallery: SignedGallery, now_s: float, by: str, edit: Edit) -> tuple[int, str]:
    """Draft an edit; return the id of the draft, and what it does in one sentence.

    Raises:
        ConsoleError: the item changed meanwhile, or the edit cannot be done (conflict); a text is wrong (invalid); the
            gallery is being read (busy).
        SyncError: there is no such category.
    """
    seen = gallery.see()
    with database.write() as connection:
        _require_index(connection, seen)
        overlay, _ = overlay_of(connection, seen, listed(connection))
        if edit.seen:
            _check_state(edit, overlay.item(edit.category, edit.item))
        draft_id = create(
            connection, now_s, by, edit.kind, edit.category, edit.item, edit.arguments, edit.also
        )  # fmt: skip
        planned = plan_next(connection, overlay, find(connection, draft_id))
        if planned.problem:
            raise ConsoleError("conflict", planned.problem)
        connection.execute("UPDATE gallery_drafts SET says = ? WHERE id = ?", ("; ".join(planned.says), draft_id))
    return draft_id, "; ".join(planned.says)


def propose_files(
    database: Database, gallery: SignedGallery, now_s: float, by: str, edit: Edit, files: Sequence[tuple[str, Path]]
) -> int:
    """Draft uploaded pictures as pictures of an item; return the id of the draft.

    Args:
        database: of the console.
        gallery: of the repository.
        now_s: Unix time, seconds.
        by: name of the user.
        edit: of the kind add.
        files: name and path of each; they are decoded, and kept as PNG.

    Raises:
        ConsoleError: there is no picture, or a text is wrong (invalid).
        CaptureError: a file is no picture; the message names it.
        OSError: the disk failed.
    """
    if not files:
        raise ConsoleError("invalid", "choose one picture or more")
    gallery.see()  # raises where there is no repository
    shown = []
    for name, path in files:
        picture = image.decode_image(path.read_bytes(), name[-80:])
        shown.append((name, image.encode_image(image.shrink(picture, _MOST_SIDE_PX), ".png")))
    folder: Path | None = None
    try:
        with database.write() as connection:
            draft_id = create(connection, now_s, by, "add", edit.category, edit.item, edit.arguments)
            folder = gallery.folder / "pictures" / str(draft_id)
            folder.mkdir(parents=True, exist_ok=True)
            for number, (name, data) in enumerate(shown):
                path = folder / f"{number}.png"
                path.write_bytes(data)
                connection.execute(
                    "INSERT INTO gallery_pictures(draft_id, number, path, name) VALUES (?, ?, ?, ?)",
                    (draft_id, number, str(path.relative_to(gallery.folder)), name[-200:]),
                )
    except BaseException:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return draft_id


def take_back(database: Database, gallery: SignedGallery, now_s: float, by: str, draft_id: int) -> Draft:
    """Take an open draft back; return it.

    Raises:
        ConsoleError: there is none, it is not open any more, or another draft depends on it (not_found, conflict).
    """
    with database.write() as connection:
        draft = find(connection, draft_id)
        seen = gallery.see()
        before = _impossible(connection, seen)
        withdraw(connection, now_s, by, draft)
        after = _impossible(connection, seen)
        if broken := sorted(after.keys() - before.keys()):
            raise ConsoleError(
                "conflict", f"change {broken[0]} builds on it ({after[broken[0]]}); take that back first"
            )
        erase_withdrawn(connection, gallery.folder, draft_id)
    return draft


def undo_published(
    database: Database, gallery: SignedGallery, now_s: float, by: str, draft_id: int
) -> tuple[list[int], str]:
    """Draft what undoes a published draft: its items become what they were before its release.

    Raises:
        ConsoleError: it is not published (conflict), or it cannot be undone (conflict).
    """
    with database.read() as rows:
        draft = find(rows, draft_id)
    if draft.state != "published" or draft.gallery is None:
        raise ConsoleError("conflict", f"change {draft_id} is {draft.state}, not published; take it back instead")
    made: list[int] = []
    said: list[str] = []
    for edit in _undoing(gallery.see(), draft):
        try:
            one, says = propose(database, gallery, now_s, by, edit)
        except ConsoleError:
            for done in reversed(made):
                take_back(database, gallery, now_s, by, done)
            raise
        made.append(one)
        said.append(says)
    return made, "; ".join(said)


def _undoing(seen: Seen, draft: Draft) -> list[Edit]:
    """Return the edits that undo a published draft: one of a label or of metadata leaves the rest of the item."""
    assert draft.gallery is not None
    space = seen.shown_space(log_of(seen.published, draft.category))
    before = None
    if draft.kind in ("rename", "metadata", "negative") and space is not None:
        before = item_before(seen, space, draft.item, draft.gallery)
    if before is not None:
        metadata = parse_metadata(before.metadata)
        by_kind: dict[str, dict[str, Any]] = {
            "rename": {"label": before.label},
            "metadata": {"metadata": {key: value for key, value in metadata.items() if key != NEGATIVE}},
            "negative": {"negative": bool(metadata.get(NEGATIVE))},
        }
        return [Edit(draft.kind, draft.category, draft.item, by_kind[draft.kind])]
    where = {"gallery": draft.gallery, "release": draft.release}
    return [Edit("restore", draft.category, item, where) for item in draft.items]


def _impossible(rows: sqlite3.Connection, seen: Seen) -> dict[int, str]:
    """Return the problem of each open draft that cannot be done; none while the gallery is being read."""
    if not is_current(rows, seen):
        return {}
    return {one.draft.id: one.problem for one in overlay_of(rows, seen, listed(rows))[1] if one.problem}


def _check_state(edit: Edit, now: Upsert | None) -> None:
    if now is None:
        raise ConsoleError("conflict", f"item {edit.item[:80]!r} was deleted or merged meanwhile; nothing was changed")
    if state_of(now) != edit.seen:
        raise ConsoleError(
            "conflict",
            f"somebody changed item {edit.item[:80]!r} meanwhile: it is {now.label[:80]!r} with {len(now.scales)} "
            "vectors now; look at it again, then repeat your change",
        )


def _require_index(rows: sqlite3.Connection, seen: Seen) -> None:
    if not is_current(rows, seen):
        raise ConsoleError("busy", READING)
