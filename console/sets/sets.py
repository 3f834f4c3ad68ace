"""Sets of pictures: finds, lists, makes, changes and deletes them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from console.access.audit import record
from edge.errors import ConsoleError

Kind = Literal["uploads", "folder", "inbox", "taught", "evaluation"]
Shows = Literal["objects", "scenes"]  # one object fills each picture, or boxes come first
Names = Literal["ignore", "expect", "decide"]  # names that a data set gives: unread, expected in the review, or decided
MAX_NAME_CHARACTERS = 100
MAX_CATEGORY_CHARACTERS = 200
_COLUMNS = "sets.*, coalesce(shows, 'scenes') AS shows, coalesce(names, 'expect') AS names, looked_at"
_JOIN = "sets LEFT JOIN set_details ON set_details.set_id = sets.id"
_TO_BOX = ("none", "proposed")


@dataclass(frozen=True, slots=True)
class PictureSet:
    """One set of pictures."""

    id: int
    name: str
    kind: Kind
    folder: Path  # absolute: where its pictures lie
    category: str | None  # of all its objects; None: the models tell it
    model: str  # id of the choice in console.models that proposes; "": the default one
    created_at: float  # Unix time, seconds
    created_by: str
    version: int
    shows: Shows = "scenes"
    names: Names = "expect"
    looked_at: float | None = None  # when its folder was last read to the end

    @property
    def grows(self) -> bool:
        """Whether its folder may hold new pictures that somebody else put there."""
        return self.kind in ("folder", "inbox", "taught")


@dataclass(frozen=True, slots=True)
class SetCounts:
    """A set, and how far it is."""

    set: PictureSet
    pictures: int = 0
    crops: int = 0
    open: int = 0  # crops that nobody has decided
    named: int = 0
    unknown: int = 0  # crops decided to be of no known item
    nothing: int = 0  # crops decided to show no object
    to_box: int = 0  # pictures whose boxes nobody has confirmed
    problems: int = 0  # files that cannot be used

    @property
    def decided(self) -> int:
        """Return how many crops are decided."""
        return self.crops - self.open


def find_set(rows: sqlite3.Connection, set_id: int) -> PictureSet:
    """Return a set.

    Raises:
        ConsoleError: not_found.
    """
    row = rows.execute(f"SELECT {_COLUMNS} FROM {_JOIN} WHERE sets.id = ?", (set_id,)).fetchone()  # noqa: S608  ours
    if row is None:
        raise ConsoleError("not_found", f"there is no set {set_id}; it may have been deleted")
    return _set_of(row)


def list_sets(rows: sqlite3.Connection) -> list[SetCounts]:
    """Return all sets with their counts, the newest first."""
    sets = [_set_of(row) for row in rows.execute(f"SELECT {_COLUMNS} FROM {_JOIN} ORDER BY sets.id DESC")]  # noqa: S608
    return [count_set(rows, one) for one in sets]


def count_set(rows: sqlite3.Connection, picture_set: PictureSet) -> SetCounts:
    """Return a set with its counts."""
    boxes, states = counted(rows, picture_set.id, "boxes"), counted(rows, picture_set.id, "crops")
    problems = rows.execute("SELECT count(*) FROM picture_problems WHERE set_id = ?", (picture_set.id,)).fetchone()[0]
    return SetCounts(
        picture_set,
        pictures=sum(boxes.values()),
        crops=sum(states.values()),
        open=states.get("open", 0),
        named=states.get("item", 0),
        unknown=states.get("unknown", 0),
        nothing=states.get("nothing", 0),
        to_box=sum(boxes.get(one, 0) for one in _TO_BOX),
        problems=problems,
    )


def create_set(  # noqa: PLR0913  what a set has
    connection: sqlite3.Connection,
    now_s: float,
    by: str,
    name: str,
    kind: Kind,
    folder: Path,
    category: str | None = None,
    model: str = "",
    *,
    shows: Shows = "scenes",
    names: Names = "expect",
) -> int:
    """Make a set without pictures, and return its id.

    Args:
        connection: of the writer.
        now_s: Unix time, seconds.
        by: name of the user.
        name: of the set.
        kind: where its pictures come from.
        folder: absolute: where they lie.
        category: of all its objects; None: the models tell it.
        model: id of the choice in console.models that proposes.
        shows: whether one object fills each picture.
        names: what names are worth that a data set gives.

    Raises:
        ConsoleError: the name is taken (conflict) or wrong (invalid).
    """
    if kind not in get_args(Kind):
        raise ConsoleError("invalid", f"kind: found {kind!r}, expected one of {', '.join(get_args(Kind))}")
    name, category = _free_name(connection, name), clean_category(category)
    cursor = connection.execute(
        "INSERT INTO sets(name, kind, folder, category, model, created_at, created_by) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (name, kind, str(folder), category, model, now_s, by),
    )
    set_id = int(cursor.lastrowid or 0)
    connection.execute("INSERT INTO set_details(set_id, shows, names) VALUES (?, ?, ?)", (set_id, shows, names))
    record(connection, now_s, by, "set.create", f"set {set_id}", name=name, kind=kind, folder=str(folder))
    return set_id


def change_set(
    connection: sqlite3.Connection,
    now_s: float,
    by: str,
    set_id: int,
    version: int,
    name: str,
    category: str | None,
    model: str = "",
) -> int:
    """Give a set another name, category and model; return its new version. Open crops expect the new category.

    Raises:
        ConsoleError: no such set, the name is taken or wrong, or somebody changed the set meanwhile.
    """
    known = find_set(connection, set_id)
    if known.version != version:
        raise ConsoleError("conflict", f"somebody changed the set {known.name!r} meanwhile; look, and change it again")
    if name.strip() != known.name:
        name = _free_name(connection, name, set_id)
    name, category = name.strip(), clean_category(category)
    connection.execute(
        "UPDATE sets SET name = ?, category = ?, model = ?, version = version + 1 WHERE id = ?",
        (name, category, model, set_id),
    )
    if category != known.category:
        connection.execute(
            "UPDATE crops SET category = ?, proposals = NULL, doubt = 1 WHERE set_id = ? AND state = 'open' "
            "AND category IS ? AND item IS NULL",
            (category, set_id, known.category),
        )
    record(connection, now_s, by, "set.change", f"set {set_id}", name=name, category=category, model=model)
    return version + 1


def forget_set(connection: sqlite3.Connection, now_s: float, by: str, set_id: int) -> PictureSet:
    """Delete a set with its pictures' rows, crops and decisions; files are the caller's. Return what it was.

    Raises:
        ConsoleError: not_found.
    """
    counts = count_set(connection, find_set(connection, set_id))
    connection.execute("DELETE FROM crops WHERE set_id = ?", (set_id,))
    connection.execute("DELETE FROM picture_problems WHERE set_id = ?", (set_id,))
    connection.execute("DELETE FROM pictures WHERE set_id = ?", (set_id,))
    connection.execute("DELETE FROM set_details WHERE set_id = ?", (set_id,))
    connection.execute("DELETE FROM set_counts WHERE set_id = ?", (set_id,))
    connection.execute("DELETE FROM sets WHERE id = ?", (set_id,))
    record(
        connection, now_s, by, "set.delete", f"set {set_id}", name=counts.set.name, pictures=counts.pictures,
        decisions=counts.decided,
    )  # fmt: skip
    return counts.set


def clean_category(category: str | None) -> str | None:
    """Return a category without surrounding blanks; None for none.

    Raises:
        ConsoleError: it is too long or cannot be printed.
    """
    text = (category or "").strip()
    if len(text) > MAX_CATEGORY_CHARACTERS or not text.isprintable():
        raise ConsoleError("invalid", f"category: give up to {MAX_CATEGORY_CHARACTERS} printable characters, or none")
    return text or None


def _free_name(rows: sqlite3.Connection, name: str, but: int | None = None) -> str:
    name = name.strip()
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or not name.isprintable():
        raise ConsoleError("invalid", f"name: give the set a name of 1 to {MAX_NAME_CHARACTERS} printable characters")
    for row in rows.execute("SELECT id, name FROM sets"):
        if row["name"].casefold() == name.casefold() and row["id"] != but:
            raise ConsoleError("conflict", f"there is a set {row['name']!r}; give this one another name")
    return name


def counted(rows: sqlite3.Connection, set_id: int, what: Literal["boxes", "crops", "split"]) -> Mapping[str, int]:
    """Return how many pictures or crops of a set there are, by boxes and split, or by state; without those of none."""
    query = "SELECT substr(what, 7), count FROM set_counts WHERE set_id = ? AND what BETWEEN ? AND ? AND count > 0"
    return {row[0]: row[1] for row in rows.execute(query, (set_id, f"{what} ", f"{what}!"))}


def _set_of(row: sqlite3.Row) -> PictureSet:
    values: dict[str, Any] = {key: row[key] for key in row.keys() if key != "folder"}  # noqa: SIM118  a Row's
    return PictureSet(**values, folder=Path(row["folder"]))
