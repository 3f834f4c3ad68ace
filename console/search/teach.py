"""Keeps a picture that somebody searched with, and one object of it, so that the review names it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from console.access.audit import record
from console.sets.crops import NewBox, crops_of, fit_box, set_boxes
from console.sets.pictures import add_picture, find_picture
from console.sets.reading import decode, look_at, suffix_of
from console.sets.sets import create_set
from edge.durable import make_folder, write_durably
from edge.errors import ConsoleError
from edge.types import Box

SET_NAME = "from search"
_FOLDER = "from-search"
_SAME_PX = 1.0


@dataclass(frozen=True, slots=True)
class Taught:
    """Where the object waits for the review."""

    set_id: int
    crop_id: int


def keep_picture(uploads: Path, data: bytes, box_px: Box) -> Path:
    """Write a picture into the set's folder, named by its hash, and return its path.

    Raises:
        PictureError: it is no picture, or damaged.
        ConsoleError: the box lies outside of it, or it cannot be written.
    """
    picture = decode(data)  # what cannot be reviewed is not kept
    fit_box(box_px, (picture.width, picture.height))
    path = uploads / _FOLDER / f"{look_at(data).sha256[:32]}{suffix_of(data)}"
    try:
        make_folder(path.parent)
        if not path.exists():
            write_durably(path, data)
    except OSError as error:
        if path.exists():  # somebody taught the same picture at the same moment
            return path
        raise ConsoleError("storage", f"the picture cannot be kept: {error.strerror}; free some space") from error
    return path


def teach(
    connection: sqlite3.Connection, now_s: float, by: str, path: Path, box_px: Box, category: str | None
) -> Taught:
    """Put an object into the review of the set "from search", which is made when it is first needed.

    Args:
        connection: of the writer.
        now_s: Unix time, seconds.
        by: name of the user.
        path: of the picture, see `keep_picture`.
        box_px: of the object.
        category: that the models told, if any; the review may tell another one.

    Raises:
        ConsoleError: the box lies outside the picture.
    """
    set_id = _set_id(connection, now_s, by, path.parent)
    picture_id = add_picture(connection, now_s, set_id, path.name, path, whole=False, source={"reason": "from search"})
    if picture_id is None:
        row = connection.execute(
            "SELECT id FROM pictures WHERE set_id = ? AND name = ?", (set_id, path.name)
        ).fetchone()
        picture_id = int(row["id"])
    picture, crops = find_picture(connection, picture_id), crops_of(connection, picture_id)
    for crop in crops:
        if max(abs(a - b) for a, b in zip(crop.box_px, box_px, strict=True)) <= _SAME_PX:
            return Taught(set_id, crop.id)  # somebody taught it already
    kept = [NewBox(one.id, one.box_px, one.box_source, one.box_score) for one in crops]
    new = NewBox(None, box_px, "search", 1.0, category)
    set_boxes(connection, picture_id, picture.version, [*kept, new], "confirmed", now_s=now_s)
    crop_id = max(one.id for one in crops_of(connection, picture_id))
    record(connection, now_s, by, "search.teach", f"crop {crop_id}", set=set_id, picture=picture_id)
    return Taught(set_id, crop_id)


def _set_id(connection: sqlite3.Connection, now_s: float, by: str, folder: Path) -> int:
    row = connection.execute("SELECT id FROM sets WHERE folder = ? AND kind = 'uploads'", (str(folder),)).fetchone()
    if row is not None:
        return int(row["id"])
    number, name = 1, SET_NAME
    while connection.execute("SELECT 1 FROM sets WHERE name = ? COLLATE NOCASE", (name,)).fetchone():
        number += 1
        name = f"{SET_NAME} {number}"
    return create_set(connection, now_s, by, name, "uploads", folder)
