"""What pages show of a set: its pictures in pages, their crops, its items and its problems. No query reads all rows."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from console.sets.crops import State
from console.sets.pictures import Picture, picture_of
from console.sets.sets import PictureSet, counted

Filter = Literal["all", "to_box", "proposed", "boxed", "whole", "problems"]
_BOXES: Mapping[Filter, tuple[str, ...]] = {  # one each, but for all
    "all": ("none", "proposed", "confirmed", "whole"), "to_box": ("none",), "proposed": ("proposed",),
    "boxed": ("confirmed",), "whole": ("whole",),
}  # fmt: skip
PAGE = 60
_MOST_ITEMS = 60
_MOST_PROBLEMS = 300


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of a grid."""

    picture: Picture
    crops: int
    decided: int
    label: str  # of its only crop; "": several, or not named
    is_decided: bool  # whether that label is decided; else it is expected
    problem: str  # "": none


@dataclass(frozen=True, slots=True)
class PicturePage:
    """Some pictures of a set, by id."""

    tiles: tuple[Tile, ...]
    before: int | None  # id to read the page before this one from; None: this is the first
    after: int | None  # id to read the next one from; None: this is the last


@dataclass(frozen=True, slots=True)
class ItemCount:
    """How many crops of a set show an item."""

    category: str
    item: str
    label: str
    count: int


@dataclass(frozen=True, slots=True)
class Problem:
    """A file of a set that cannot be used."""

    name: str
    says: str
    noticed_at: float
    picture_id: int | None


def read_page(
    rows: sqlite3.Connection,
    picture_set: PictureSet,
    which: Filter = "all",
    split: str | None = None,
    *,
    after: int | None = None,
    before: int | None = None,
    most: int = PAGE,
) -> PicturePage:
    """Return the pictures after or before an id, the first ones without either.

    Args:
        rows: to read from.
        picture_set: whose pictures.
        which: only those.
        split: train, val, test, or "" for none; None: all.
        after: an id; pictures after it.
        before: an id; the last pictures before it.
        most: so many.
    """
    where, values = _condition(picture_set.id, which, split)
    is_back = before is not None and after is None
    if is_back:
        where, order = f"{where} AND id < ?", "DESC"
    else:
        where, order = f"{where} AND id > ?", "ASC"
    values.append((before if is_back else after) or 0)
    query = f"SELECT * FROM pictures WHERE {where} ORDER BY id {order} LIMIT ?"  # noqa: S608  ours
    found = rows.execute(query, (*values, most + 1)).fetchall()
    has_more, found = len(found) > most, found[:most]
    if is_back:
        found.reverse()
    pictures = [picture_of(row, picture_set.folder) for row in found]
    if not pictures:
        return PicturePage((), None, None)
    has_before = has_more if is_back else after is not None
    has_after = True if is_back else has_more
    return PicturePage(
        _tiles(rows, pictures), pictures[0].id if has_before else None, pictures[-1].id if has_after else None
    )


def count_boxes(rows: sqlite3.Connection, set_id: int) -> Mapping[Filter, int]:
    """Return how many pictures each filter shows."""
    counts = counted(rows, set_id, "boxes")
    found: dict[Filter, int] = {which: sum(counts.get(one, 0) for one in boxes) for which, boxes in _BOXES.items()}
    query = "SELECT count(*) FROM picture_problems WHERE set_id = ?"
    return {**found, "problems": rows.execute(query, (set_id,)).fetchone()[0]}


def count_splits(rows: sqlite3.Connection, set_id: int) -> Mapping[str, int]:
    """Return how many pictures each split has, where any has one."""
    counts = counted(rows, set_id, "split")
    return counts if counts.keys() - {""} else {}


def count_items(rows: sqlite3.Connection, set_id: int) -> tuple[list[ItemCount], int]:
    """Return the items of most decided crops, and how many items there are."""
    query = (
        "SELECT category, item, max(label) AS label, count(*) AS count, count(*) OVER () AS items FROM crops "
        "WHERE set_id = ? AND state = 'item' GROUP BY category, item ORDER BY count DESC, category, item LIMIT ?"
    )
    found = rows.execute(query, (set_id, _MOST_ITEMS)).fetchall()
    items = [ItemCount(row["category"], row["item"], row["label"] or row["item"], row["count"]) for row in found]
    return items, found[0]["items"] if found else 0


def list_problems(rows: sqlite3.Connection, set_id: int) -> list[Problem]:
    """Return the first files that cannot be used, by name."""
    query = "SELECT * FROM picture_problems WHERE set_id = ? ORDER BY name LIMIT ?"
    return [
        Problem(row["name"], row["says"], row["noticed_at"], row["picture_id"])
        for row in rows.execute(query, (set_id, _MOST_PROBLEMS))
    ]


def find_problem(rows: sqlite3.Connection, picture: Picture) -> str:
    """Return what is wrong with the file of a picture; empty: nothing is known."""
    query = "SELECT says FROM picture_problems WHERE set_id = ? AND name = ?"
    row = rows.execute(query, (picture.set_id, picture.name)).fetchone()
    return "" if row is None else str(row["says"])


def notes_of(rows: sqlite3.Connection, set_id: int) -> list[str]:
    """Return what the last look at the folder left out."""
    row = rows.execute("SELECT left_out FROM set_details WHERE set_id = ?", (set_id,)).fetchone()
    return [] if row is None else list(json.loads(row["left_out"]))


def neighbours(rows: sqlite3.Connection, picture: Picture) -> tuple[int | None, int | None]:
    """Return the ids of the pictures before and after one in its set."""
    found = []
    for condition, order in (("id < ?", "DESC"), ("id > ?", "ASC")):
        query = f"SELECT id FROM pictures WHERE set_id = ? AND {condition} ORDER BY id {order} LIMIT 1"  # noqa: S608
        row = rows.execute(query, (picture.set_id, picture.id)).fetchone()
        found.append(None if row is None else int(row["id"]))
    return found[0], found[1]


def _condition(set_id: int, which: Filter, split: str | None) -> tuple[str, list[str | int]]:
    where, values = "set_id = ?", list[str | int]([set_id])
    if which != "all":
        where += " AND boxes = ?"
        values += _BOXES[which]
    if split is not None:
        where += " AND split = ?"
        values.append(split)
    return where, values


def _tiles(rows: sqlite3.Connection, pictures: Sequence[Picture]) -> tuple[Tile, ...]:
    ids = [one.id for one in pictures]
    marks = ", ".join("?" * len(ids))
    crops: dict[int, list[tuple[State, str]]] = defaultdict(list)
    query = f"SELECT picture_id, state, label, item, category FROM crops WHERE picture_id IN ({marks})"  # noqa: S608
    for row in rows.execute(query, ids):
        crops[row["picture_id"]].append((row["state"], row["label"] or row["item"] or row["category"] or ""))
    query = f"SELECT picture_id, says FROM picture_problems WHERE picture_id IN ({marks})"  # noqa: S608  ours
    problems = {row["picture_id"]: row["says"] for row in rows.execute(query, ids)}
    return tuple(_tile(one, crops[one.id], problems.get(one.id, "")) for one in pictures)


def _tile(picture: Picture, crops: Sequence[tuple[State, str]], problem: str) -> Tile:
    decided = sum(state != "open" for state, _ in crops)
    state, label = crops[0] if len(crops) == 1 else ("open", "")
    label = state if state in ("unknown", "nothing") else label
    return Tile(picture, len(crops), decided, label, state != "open", problem)
