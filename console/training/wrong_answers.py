"""Leads from the answers of an evaluation back to the crops of sets, so that people can review them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from console.sets.crops import NewBox, set_boxes
from console.sets.pictures import NOTHING_KNOWN, Known, insert_picture
from console.sets.reading import Looked, look_at, read_file
from console.sets.sets import create_set
from console.settings import Settings
from console.training.results import Answer
from edge.errors import ConsoleError, PictureError

_SAME_PX = 0.51  # boxes that differ by less are one


@dataclass(frozen=True, slots=True)
class Linked:
    """An answer, and the crop that it is about."""

    answer: Answer
    set_id: int | None  # None: no set has this crop
    crop_id: int | None
    state: str = ""  # of the crop, now
    item_now: str = ""  # what people say now


def link(rows: sqlite3.Connection, answers: Sequence[Answer], set_ids: Iterable[int] = ()) -> list[Linked]:
    """Find the crop of each answer, first in the sets that were trained on."""
    preferred = list(set_ids)
    folders = [(row["id"], Path(row["folder"])) for row in rows.execute("SELECT id, folder FROM sets")]
    sets = sorted(folders, key=lambda one: (one[0] not in preferred, one[0]))
    return [_link(rows, answer, sets) for answer in answers]


def look_at_pictures(settings: Settings, answers: Iterable[Answer]) -> dict[Path, Looked]:
    """Read the pictures of answers; without those that the console may not read, or that are none any more.

    Raises:
        ConsoleError: that leaves none.
    """
    allowed, found = [*settings.folders, settings.data], dict[Path, Looked]()
    for path in dict.fromkeys(one.path for one in answers):
        if ".." not in path.parts and any(path.is_relative_to(place) for place in allowed):
            with contextlib.suppress(PictureError):
                found[path] = look_at(read_file(path))
    if not found:
        raise ConsoleError("invalid", "no such picture can be read in a folder that the console may read (--folder)")
    return found


def make_evaluation_set(
    connection: sqlite3.Connection,
    now_s: float,
    by: str,
    name: str,
    answers: Iterable[Answer],
    pictures: Mapping[Path, Looked],
) -> int:
    """Make a set of pictures that are in no set, each with the item that it should have been; return its id.

    Args:
        connection: of the writer.
        now_s: Unix time, seconds.
        by: name of the user.
        name: of the set.
        answers: about the pictures; those about others are left out.
        pictures: see `look_at_pictures`.

    Raises:
        ConsoleError: the name is taken.
    """
    folder = Path(os.path.commonpath([path.parent for path in pictures]))
    set_id = create_set(connection, now_s, by, name, "evaluation", folder)
    about: dict[Path, list[Answer]] = {}
    for answer in answers:
        about.setdefault(answer.path, []).append(answer)
    for path, looked in pictures.items():
        of_picture, inner = about[path], path.relative_to(folder).as_posix()
        whole = next((one for one in of_picture if one.box_px is None), None)
        known = Known(category=whole.category, item=whole.item, label=whole.label) if whole else NOTHING_KNOWN
        picture = insert_picture(connection, now_s, set_id, inner, looked, whole=whole is not None, known=known)
        if whole is None and picture is not None:
            boxes = [NewBox(None, one.box_px, "evaluation", 1.0, one.category, one.item, one.label)
                     for one in of_picture if one.box_px is not None]  # fmt: skip
            set_boxes(connection, picture, 1, boxes, "confirmed")
    return set_id


def _link(rows: sqlite3.Connection, answer: Answer, sets: Sequence[tuple[int, Path]]) -> Linked:
    for set_id, folder in sets:
        if not answer.path.is_relative_to(folder):
            continue
        found = rows.execute(
            "SELECT crops.* FROM pictures JOIN crops ON picture_id = pictures.id"
            " WHERE pictures.set_id = ? AND pictures.name = ?",
            (set_id, answer.path.relative_to(folder).as_posix()),
        ).fetchall()
        for row in found:
            box = (row["x0"], row["y0"], row["x1"], row["y1"])
            fills = answer.box_px is None
            if fills or all(abs(a - b) < _SAME_PX for a, b in zip(box, answer.box_px or (), strict=True)):
                now = str(row["item"] or "") if row["state"] == "item" else ""
                return Linked(answer, set_id, row["id"], row["state"], now)
    return Linked(answer, None, None)
