"""Pictures of sets: finds, adds and deletes them. A picture stays where it lies; its row has its path and hash."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from console.access.audit import record
from console.sets.crops import NewBox, delete_crops, insert_crop
from console.sets.reading import Looked, look_at, read_file
from console.sets.sets import find_set
from edge.errors import ConsoleError

Boxes = Literal["whole", "none", "proposed", "confirmed"]
MAX_NAME_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a set."""

    id: int
    set_id: int
    name: str  # path below the folder of its set, with /
    path: Path  # absolute
    sha256: str
    size: int  # bytes
    width: int  # upright, pixels
    height: int
    boxes: Boxes
    uncertainty: float  # of its proposed boxes, 0..1
    why: str
    source: Mapping[str, Any]  # device, camera, time, reason, as far as known
    split: str  # train, val, test; "": none
    version: int  # of its boxes
    added_at: float = 0.0  # Unix time, seconds


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a picture before anybody looks."""

    source: Mapping[str, Any] | None = None
    category: str | None = None
    item: str | None = None
    label: str | None = None
    split: str = ""
    decided_by: str | None = None  # None: the item is only expected


NOTHING_KNOWN = Known()


def find_picture(rows: sqlite3.Connection, picture_id: int) -> Picture:
    """Return a picture.

    Raises:
        ConsoleError: not_found.
    """
    row = rows.execute(
        "SELECT pictures.*, sets.folder FROM pictures JOIN sets ON sets.id = set_id WHERE pictures.id = ?",
        (picture_id,),
    ).fetchone()
    if row is None:
        raise ConsoleError("not_found", f"there is no picture {picture_id}; it may have been deleted")
    return picture_of(row, Path(row["folder"]))


def picture_of(row: sqlite3.Row, folder: Path) -> Picture:
    """Return the picture of a row with all columns; `folder` is that of its set."""
    return Picture(
        id=row["id"], set_id=row["set_id"], name=row["name"], path=folder / row["name"], sha256=row["sha256"],
        size=row["size"], width=row["width"], height=row["height"], boxes=row["boxes"],
        uncertainty=row["uncertainty"], why=row["why"], source=json.loads(row["source"]), split=row["split"],
        version=row["version"], added_at=row["added_at"],
    )  # fmt: skip


def add_picture(  # noqa: PLR0913  what a picture has
    connection: sqlite3.Connection,
    now_s: float,
    set_id: int,
    name: str,
    path: Path,
    *,
    whole: bool,
    source: Mapping[str, Any] | None = None,
    category: str | None = None,
    item: str | None = None,
    label: str | None = None,
    split: str = "",
    decided_by: str | None = None,
) -> int | None:
    """Add a picture by its size and hash; it is never copied. Return its id, or None if it is there already.

    Args:
        connection: of the writer.
        now_s: Unix time, seconds.
        set_id: of its set.
        name: path below the folder of the set, with /.
        path: absolute: the same file.
        whole: whether one object fills it, which becomes a crop.
        source: device, camera, time, reason, as far as known.
        category: of the object; None: that of the set, if it has one.
        item: id that the object is expected to be.
        label: of that item.
        split: train, val or test.
        decided_by: who says that it is this item, such as import; None: it is only expected.

    Raises:
        ConsoleError: no such set, or the name does not lead to the path.
        PictureError: it cannot be read.
    """
    folder = find_set(connection, set_id).folder
    if folder / name != path:
        raise ConsoleError("invalid", f"{path}: does not lie at {name} below the folder {folder} of its set")
    known = Known(source, category, item, label, split, decided_by)
    return insert_picture(connection, now_s, set_id, name, look_at(read_file(path)), whole=whole, known=known)


def insert_picture(
    connection: sqlite3.Connection,
    now_s: float,
    set_id: int,
    name: str,
    looked: Looked,
    *,
    whole: bool,
    known: Known = NOTHING_KNOWN,
) -> int | None:
    """Add the row of a picture that was looked at, see add_picture."""
    if not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise ConsoleError("invalid", f"name: found {len(name)} characters, expected 1 to {MAX_NAME_CHARACTERS}")
    cursor = connection.execute(
        "INSERT INTO pictures(set_id, name, sha256, size, width, height, boxes, source, split, added_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(set_id, name) DO NOTHING",
        (
            *(set_id, name, looked.sha256, looked.size, looked.width, looked.height, "whole" if whole else "none"),
            *(json.dumps(dict(known.source or {}), ensure_ascii=False), known.split, now_s),
        ),
    )
    if not cursor.rowcount:
        return None
    picture_id = int(cursor.lastrowid or 0)
    connection.execute("DELETE FROM picture_problems WHERE set_id = ? AND name = ?", (set_id, name))
    if whole:
        category = known.category or find_set(connection, set_id).category
        box = (0.0, 0.0, float(looked.width), float(looked.height))
        new = NewBox(None, box, "whole", 1.0, category, known.item, known.label, known.decided_by)
        insert_crop(connection, set_id, picture_id, box, new, now_s=now_s)
    return picture_id


def forget_picture(connection: sqlite3.Connection, now_s: float, by: str, picture_id: int) -> Picture:
    """Delete the row of a picture with its crops and decisions; its file is the caller's. Return what it was.

    Raises:
        ConsoleError: not_found.
    """
    picture = find_picture(connection, picture_id)
    crops = [row[0] for row in connection.execute("SELECT id FROM crops WHERE picture_id = ?", (picture_id,))]
    delete_crops(connection, picture.set_id, crops)
    connection.execute("DELETE FROM pictures WHERE id = ?", (picture_id,))
    record(connection, now_s, by, "picture.delete", f"picture {picture_id}", set=picture.set_id, name=picture.name)
    return picture


def note_problem(
    connection: sqlite3.Connection, now_s: float, set_id: int, name: str, says: str, picture_id: int | None = None
) -> None:
    """Remember what is wrong with a file of a set."""
    connection.execute(
        "INSERT INTO picture_problems(set_id, name, picture_id, says, noticed_at) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT(set_id, name) DO UPDATE SET picture_id = excluded.picture_id, says = excluded.says",
        (set_id, name, picture_id, says, now_s),
    )
