"""Takes proposed boxes into a set.

Rules this module keeps:
1. Nothing of a person's is replaced: pictures that a person confirmed, and those with a box that a person drew or
   named, stay as they are.
2. A picture for which nothing was found is proposed, too: it waits, as a person must look at it. It keeps the boxes
   that an earlier round proposed: a detector that is hardly trained finds nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from console.boxes.editing import clip
from console.sets.crops import NewBox, set_boxes
from console.storage.database import Database
from edge.errors import ConsoleError
from edge.types import Box

RoundKind = Literal["cues", "detector", "bundle"]
_AT_ONCE = 200  # pictures of a transaction


@dataclass(frozen=True, slots=True)
class SetPicture:
    """A picture of a set, as far as proposing needs it."""

    id: int
    name: str
    path: Path  # absolute
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ProposedBox:
    """A box that may hold an object."""

    box_px: Box
    score: float  # 0..1
    category: str | None = None


@dataclass(frozen=True, slots=True)
class ProposedPicture:
    """What a proposer found in one picture."""

    picture_id: int
    boxes: tuple[ProposedBox, ...]
    uncertainty: float  # 0..1
    why: str


@dataclass(slots=True)
class Taken:
    """What became of proposals."""

    pictures: int = 0
    boxes: int = 0
    nothing: int = 0  # pictures of which earlier proposals were kept, as nothing was found
    kept: int = 0  # pictures of which a person's boxes were kept
    round: int = field(default=0)  # id

    def __str__(self) -> str:
        """Return it in one sentence."""
        kept = f"; {self.kept} with boxes of people stayed as they are" if self.kept else ""
        nothing = f"; nothing found in {self.nothing:,} more, whose earlier boxes stay" if self.nothing else ""
        return f"{self.boxes:,} boxes in {self.pictures:,} pictures{nothing}{kept}"


def begin_round(database: Database, now_s: float, set_id: int, kind: RoundKind, job: int | None = None) -> Taken:
    """Begin a round of proposals; the one of a job may have begun already, before the console was restarted."""
    with database.write() as connection:
        known = connection.execute("SELECT id FROM box_rounds WHERE job = ? AND set_id = ?", (job, set_id)).fetchone()
        if known is not None:
            return Taken(round=known[0])
        query = "INSERT INTO box_rounds(set_id, kind, job, at, pictures, boxes) VALUES (?, ?, ?, ?, 0, 0)"
        return Taken(round=connection.execute(query, (set_id, kind, job, now_s)).lastrowid or 0)


def take_all(database: Database, set_id: int, source: str, proposed: Iterable[ProposedPicture], taken: Taken) -> Taken:
    """Take proposals of many pictures, some at a time."""
    for some in _in_groups(proposed):
        with database.write() as connection:
            for one in some:
                take_one(connection, set_id, source, one, taken)
            _count(connection, taken)
    return taken


def take_one(connection: sqlite3.Connection, set_id: int, source: str, proposed: ProposedPicture, taken: Taken) -> None:
    """Take the proposals of one picture, unless a person was there first."""
    picture = connection.execute(
        "SELECT pictures.*, sets.category AS set_category FROM pictures JOIN sets ON sets.id = set_id "
        "WHERE pictures.id = ? AND set_id = ?",
        (proposed.picture_id, set_id),
    ).fetchone()
    if picture is None:
        return
    query = "SELECT 1 FROM crops WHERE picture_id = ? AND (state != 'open' OR box_source = 'human') LIMIT 1"
    if picture["boxes"] not in ("none", "proposed") or connection.execute(query, (picture["id"],)).fetchone():
        taken.kept += 1
        return
    if not proposed.boxes and picture["boxes"] == "proposed":
        _doubt(connection, picture["id"], 1.0, f"{proposed.why}; the earlier boxes stay")
        taken.nothing += 1
        return
    boxes = []
    for one in proposed.boxes:
        inside = clip(one.box_px, picture["width"], picture["height"])
        if inside is not None:
            category = one.category or picture["set_category"]
            boxes.append(NewBox(id=None, box_px=inside, source=source, score=one.score, category=category))
    set_boxes(connection, picture["id"], picture["version"], boxes, "proposed")
    _doubt(connection, picture["id"], proposed.uncertainty, proposed.why)
    connection.execute(
        "INSERT OR REPLACE INTO box_edits(picture_id, set_id, round) VALUES (?, ?, ?)",
        (picture["id"], set_id, taken.round),
    )
    taken.pictures += 1
    taken.boxes += len(boxes)


def waiting_pictures(rows: sqlite3.Connection, set_id: int, most: int) -> list[SetPicture]:
    """Return the first pictures of the queue: those without proposals first, then the most uncertain."""
    query = (
        "SELECT pictures.*, folder FROM pictures JOIN sets ON sets.id = set_id WHERE set_id = ? AND boxes = ? "
        "ORDER BY uncertainty DESC, pictures.id LIMIT ?"
    )
    found: list[SetPicture] = []
    for state in ("none", "proposed"):
        found += map(picture_of_row, rows.execute(query, (set_id, state, most - len(found))))
    return found


def picture_of_row(row: sqlite3.Row) -> SetPicture:
    """Return the picture of a row that has the folder of its set."""
    return SetPicture(row["id"], row["name"], Path(row["folder"]) / row["name"], row["width"], row["height"])


@dataclass(frozen=True, slots=True)
class Round:
    """One round of proposals, and what people changed in them so far."""

    id: int
    kind: RoundKind
    at: float  # Unix time, seconds
    pictures: int
    boxes: int
    checked: int  # pictures that a person confirmed since
    untouched: int  # of their boxes: needed no edit
    proposed: int  # boxes of those pictures


def last_rounds(rows: sqlite3.Connection, set_id: int, most: int = 5) -> list[Round]:
    """Return the last rounds, the newest first."""
    query = (
        "SELECT r.id, r.kind, r.at, r.pictures, r.boxes, COUNT(e.untouched), COALESCE(SUM(e.untouched), 0), "
        "COALESCE(SUM(e.untouched + e.moved + e.removed), 0) FROM (SELECT * FROM box_rounds WHERE set_id = ? "
        "ORDER BY id DESC LIMIT ?) r LEFT JOIN box_edits e ON e.set_id = r.set_id AND e.round = r.id "
        "GROUP BY r.id ORDER BY r.id DESC"
    )
    return [Round(*tuple(one)) for one in rows.execute(query, (set_id, most))]


def need_set(rows: sqlite3.Connection, set_id: int) -> sqlite3.Row:
    """Return the row of a set.

    Raises:
        ConsoleError: there is none.
    """
    found: sqlite3.Row | None = rows.execute("SELECT * FROM sets WHERE id = ?", (set_id,)).fetchone()
    if found is None:
        raise ConsoleError("not_found", "there is no such set; it may have been deleted")
    return found


def _doubt(connection: sqlite3.Connection, picture_id: int, uncertainty: float, why: str) -> None:
    values = (min(1.0, max(0.0, uncertainty)), why[:200], picture_id)
    connection.execute("UPDATE pictures SET uncertainty = ?, why = ? WHERE id = ?", values)


def _in_groups(proposed: Iterable[ProposedPicture]) -> Iterator[Sequence[ProposedPicture]]:
    some: list[ProposedPicture] = []
    for one in proposed:
        some.append(one)
        if len(some) == _AT_ONCE:
            yield some
            some = []
    yield some


def _count(connection: sqlite3.Connection, taken: Taken) -> None:
    connection.execute(
        "UPDATE box_rounds SET pictures = ?, boxes = ? WHERE id = ?", (taken.pictures, taken.boxes, taken.round)
    )
