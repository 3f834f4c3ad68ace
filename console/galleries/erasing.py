"""Erases the console's own copies of an item's pictures when the item, or these pictures, were deleted.

Rules this module keeps:
1. It erases what is the console's alone: pictures that were uploaded or cut for drafts, and their vectors. A set keeps
   its pictures: they lie where somebody put them.
2. What it cannot erase is said before the deletion: `remains`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from console.galleries.drafts import Draft, of_item
from console.galleries.items import read_item, vector_ids


def erase_published(connection: sqlite3.Connection, folder: Path, drafts: Sequence[Draft]) -> None:
    """Erase the pictures that deletions among published drafts name; the tables still have the gallery before them."""
    for draft in drafts:
        if draft.kind == "delete":
            pictures = {*_of_item(connection, draft.category, draft.item), *_of_vectors(connection, draft)}
            _erase(connection, folder, pictures)
            connection.execute(
                "UPDATE gallery_drafts SET vectors = NULL, silhouettes = NULL, thumbnail = NULL WHERE category = ? AND "
                "item = ? AND kind = 'add' AND state = 'published'",
                (draft.category, draft.item),
            )
            if draft.arguments.get("urgent"):
                _forget_words(connection, draft)
        elif draft.kind == "remove":
            _erase(connection, folder, _pictures_of(connection, draft.arguments["vectors"]))


def erase_withdrawn(connection: sqlite3.Connection, folder: Path, draft_id: int) -> None:
    """Erase the pictures of a draft that was taken back."""
    query = "SELECT id FROM gallery_pictures WHERE draft_id = ?"
    _erase(connection, folder, [row[0] for row in connection.execute(query, (draft_id,))])
    connection.execute(
        "UPDATE gallery_drafts SET vectors = NULL, silhouettes = NULL, thumbnail = NULL WHERE id = ?", (draft_id,)
    )


def remains(rows: sqlite3.Connection, category: str, item: str, offline_days: int, *, urgent: bool) -> list[str]:
    """Return what a deletion cannot erase, in sentences."""
    query = "SELECT count(*), count(DISTINCT set_id) FROM crops WHERE category = ? AND item = ? AND state = 'item'"
    crops, sets = rows.execute(query, (category, item)).fetchone()
    said = []
    if crops:
        said.append(
            f"{crops:,} named crop{'s' if crops != 1 else ''} of it stay in {sets} set{'s' if sets != 1 else ''} with "
            "their pictures: delete them there, or at their source"
        )
    if urgent:  # of which the plan itself says how long the repository keeps it
        said.append("backups and mirrors of the repository are not reached")
    else:
        said.append("devices that are off, or hold an earlier gallery to go back to, keep it until they replace that")
        said.append(
            f"earlier states in the repository keep it for the promised offline window of {offline_days} days, until "
            "edge-sync gc removes them; backups and mirrors are not reached"
        )
    said.append("events that devices sent before keep its name")
    return said


def _forget_words(connection: sqlite3.Connection, draft: Draft) -> None:
    """Forget the labels and metadata that settled drafts of an item tell; what was done, by whom, stays."""
    for one in of_item(connection, draft.category, draft.item):
        if one.state == "published":
            arguments = json.dumps({"urgent": True} if one.arguments.get("urgent") else {})
            says = f"{one.kind} item {one.item!r} of {one.category!r} (its label was erased)"
            connection.execute(
                "UPDATE gallery_drafts SET says = ?, arguments = ? WHERE id = ?", (says, arguments, one.id)
            )


def _of_item(connection: sqlite3.Connection, category: str, item: str) -> list[int]:
    query = (
        "SELECT p.id FROM gallery_pictures p JOIN gallery_drafts d ON d.id = p.draft_id WHERE d.category = ? AND "
        "d.item = ? AND d.state IN ('published', 'withdrawn')"
    )
    return [row[0] for row in connection.execute(query, (category, item))]


def _of_vectors(connection: sqlite3.Connection, draft: Draft) -> set[int]:
    """Return the pictures of the vectors that an item has: some came with a merge, or stayed after a split."""
    query = "SELECT * FROM gallery_stores WHERE category = ? AND is_ready = 1"
    found = set()
    for store in connection.execute(query, (draft.category,)).fetchall():
        record = read_item(connection, store, draft.item)
        found |= _pictures_of(connection, vector_ids(record)) if record is not None else set()
    return found


def _pictures_of(connection: sqlite3.Connection, vectors: Sequence[str]) -> set[int]:
    query = "SELECT picture_id FROM gallery_origins WHERE vector = ?"
    return {row[0] for name in vectors for row in connection.execute(query, (name,))}


def _erase(connection: sqlite3.Connection, folder: Path, picture_ids: Iterable[int]) -> None:
    for picture_id in picture_ids:
        row = connection.execute("SELECT path FROM gallery_pictures WHERE id = ?", (picture_id,)).fetchone()
        if row is not None and row["path"] is not None:
            (folder / row["path"]).unlink(missing_ok=True)
        connection.execute("UPDATE gallery_pictures SET path = NULL, name = '' WHERE id = ?", (picture_id,))
        connection.execute("DELETE FROM gallery_origins WHERE picture_id = ?", (picture_id,))
