"""The boxes of one picture: shown, and saved by a person.

Rules this module keeps:
1. A box that stays keeps its id, and so the decision of the review: its class and item are changed there.
2. An edit names the version of the picture that it saw. Another edit meanwhile is a conflict, and nothing is changed.
3. What a person saved is confirmed, also if it is no box at all.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from console.access import audit
from console.sets.crops import MOST_BOXES, NewBox, set_boxes
from console.sets.pictures import Picture, find_picture
from edge.errors import ConsoleError
from edge.types import Box
from trainer.labelling.label_store import Edit, compare_boxes
from trainer.labelling.proposals import Proposal

__all__ = [
    "MOST_BOXES",
    "EditedBox",
    "Saved",
    "ShownBox",
    "boxes_of",
    "categories_of",
    "clip",
    "is_same",
    "note_edit",
    "save_boxes",
]

LEAST_PX = 1.0  # width and height of a box
_LOOKED_AT = 5000  # boxes of a set, for its classes
_SAME_PX = 0.5  # by which a side may differ of a box that was not moved


@dataclass(frozen=True, slots=True)
class ShownBox:
    """One box of a picture."""

    id: int
    box_px: Box
    source: str  # whole, human, or what proposed it
    score: float
    category: str | None
    item: str | None
    label: str | None
    decision: str  # open, item, unknown, nothing


@dataclass(frozen=True, slots=True)
class EditedBox:
    """One box as a person leaves it."""

    id: int | None  # of the box that was there; None: a new one
    box_px: Box
    category: str | None


@dataclass(frozen=True, slots=True)
class Saved:
    """What an edit did."""

    version: int
    untouched: int  # proposals that needed no edit
    moved: int
    added: int
    removed: int


def boxes_of(rows: sqlite3.Connection, picture_id: int) -> list[ShownBox]:
    """Return the boxes of a picture, in reading order: by rows of a tenth of its height, then from the left."""
    query = (
        "SELECT c.id, x0, y0, x1, y1, box_source, box_score, category, item, label, state, p.height FROM crops c "
        "JOIN pictures p ON p.id = c.picture_id WHERE picture_id = ? LIMIT ?"
    )
    found = rows.execute(query, (picture_id, MOST_BOXES)).fetchall()
    found.sort(key=lambda one: (round((one[2] + one[4]) / 2 / max(1, one[11]) * 10), one[1], one[0]))
    return [ShownBox(one[0], (one[1], one[2], one[3], one[4]), *tuple(one)[5:11]) for one in found]


def categories_of(rows: sqlite3.Connection, set_id: int, most: int = 35) -> list[str]:
    """Return the classes that boxes of a set have, the most frequent first; those of 5000 boxes stand for all."""
    query = (
        "SELECT category FROM (SELECT category FROM crops WHERE set_id = ? LIMIT ?) WHERE category IS NOT NULL "
        "GROUP BY category ORDER BY COUNT(*) DESC, category LIMIT ?"
    )
    found = [one[0] for one in rows.execute(query, (set_id, _LOOKED_AT, most))]
    own = rows.execute("SELECT category FROM sets WHERE id = ?", (set_id,)).fetchone()
    return found if own is None or own[0] is None or own[0] in found else [own[0], *found]


def save_boxes(
    connection: sqlite3.Connection, now_s: float, by: str, picture_id: int, version: int, boxes: Sequence[EditedBox]
) -> Saved:
    """Store the boxes that a person confirmed, and note what the person changed in the proposals.

    Raises:
        ConsoleError: there is no such picture; somebody else saved it meanwhile; a box is empty or not in it.
    """
    picture = find_picture(connection, picture_id)
    if picture.version != version:
        raise ConsoleError("conflict", f"{picture.name}: somebody else saved its boxes meanwhile; compare the two")
    known = {one.id: one for one in boxes_of(connection, picture_id)}
    gone = [one.id for one in boxes if one.id is not None and one.id not in known]
    if gone or len({one.id for one in boxes if one.id is not None}) < sum(one.id is not None for one in boxes):
        raise ConsoleError("conflict", f"{picture.name}: a box is not there any more; load the picture again")
    new = [_as_new(picture, one, known.get(one.id or 0)) for one in boxes]
    stored = set_boxes(connection, picture_id, version, new, "confirmed")
    connection.execute("UPDATE pictures SET why = '' WHERE id = ?", (picture_id,))
    edit = note_edit(connection, picture_id, list(known.values()), new)
    audit.record(connection, now_s, by, "boxes.save", f"picture {picture_id}", set=picture.set_id, boxes=len(new))
    return Saved(stored, edit.untouched, len(edit.overlaps) - edit.untouched, edit.added, edit.removed)


def note_edit(
    connection: sqlite3.Connection, picture_id: int, before: Sequence[ShownBox], after: Sequence[NewBox]
) -> Edit:
    """Note what a person changed in the proposals of a picture, the first time that the picture is confirmed."""
    drawn = {one.id for one in before if one.source == "human"}  # by a person, before
    edit = compare_boxes(
        [_as_proposal(one.box_px) for one in before if one.id not in drawn],
        [_as_proposal(one.box_px) for one in after if one.id not in drawn],
    )
    connection.execute(
        "UPDATE box_edits SET untouched = ?, moved = ?, added = ?, removed = ? WHERE picture_id = ? "
        "AND untouched IS NULL",
        (edit.untouched, len(edit.overlaps) - edit.untouched, edit.added, edit.removed, picture_id),
    )
    return edit


def clip(box_px: Box, width: int, height: int) -> Box | None:
    """Return a box cut at the edge of its picture; None if less than a pixel of it is left."""
    if not all(map(math.isfinite, box_px)):
        return None
    x0, y0, x1, y1 = box_px
    clipped = (max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1))
    if min(clipped[2] - clipped[0], clipped[3] - clipped[1]) < LEAST_PX * 0.99:
        return None
    return clipped


def is_same(first: Box, second: Box) -> bool:
    """Return whether two boxes are the same, but for rounding."""
    return all(abs(a - b) <= _SAME_PX for a, b in zip(first, second, strict=True))


def _as_new(picture: Picture, box: EditedBox, known: ShownBox | None) -> NewBox:
    inside = clip(box.box_px, picture.width, picture.height)
    if inside is None:
        sides = ", ".join(f"{side:g}" for side in box.box_px)
        here = f"{picture.width} x {picture.height}"
        raise ConsoleError("invalid", f"{picture.name}: box {sides} is not in the {here} picture; draw it again")
    if known is None:
        return NewBox(id=None, box_px=inside, source="human", score=1.0, category=box.category, item=None, label=None)
    stays = is_same(inside, known.box_px)
    same_class = box.category == known.category or known.decision != "open"
    return NewBox(
        id=known.id,
        box_px=known.box_px if stays else inside,
        source=known.source if stays else "human",
        score=known.score if stays else 1.0,
        category=known.category if same_class else box.category,
        item=known.item if same_class else None,
        label=known.label if same_class else None,
    )


def _as_proposal(box_px: Box) -> Proposal:
    return Proposal(box_px, 1.0, "human")
