"""Crops: one object of a picture, with what is known of it. What people name in the review."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge.errors import ConsoleError
from edge.types import Box, FloatArray

State = Literal["open", "item", "unknown", "nothing"]
MOST_BOXES = 2000  # of a picture
MIN_SIDE_PX = 1.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """An item of a gallery that a crop may show."""

    category: str
    item: str
    label: str
    similarity: float  # -1..1


@dataclass(frozen=True, slots=True)
class Crop:
    """One object of a picture."""

    id: int
    set_id: int
    picture_id: int
    box_px: Box  # of the upright picture
    box_source: str  # whole, human, or what proposed it
    box_score: float
    state: State
    category: str | None  # decided, where state is item; known before, where it is open
    item: str | None  # id; decided or expected likewise
    label: str | None
    decided_by: str | None
    decided_at: float | None  # Unix time, seconds
    version: int  # of the decision
    proposals: tuple[Proposal, ...] | None  # best first; None: not yet
    proposed_category: str | None  # of the classifier
    similarity: float | None  # of the best proposal
    doubt: float  # 0..1
    fold: int | None  # the crop that stands for this near-duplicate
    vector: FloatArray | None  # float32, unit length; None: not yet
    space: str | None  # embedding space of the vector


@dataclass(frozen=True, slots=True)
class NewBox:
    """A box as it is to be; `id` names the crop that stays."""

    id: int | None
    box_px: Box
    source: str = "human"
    score: float = 1.0
    category: str | None = None  # expected; decided, where `decided_by` is given
    item: str | None = None
    label: str | None = None
    decided_by: str | None = None  # who or what decided it, such as import; only for new crops with an item


def find_crop(rows: sqlite3.Connection, crop_id: int) -> Crop:
    """Return a crop.

    Raises:
        ConsoleError: not_found.
    """
    row = rows.execute("SELECT * FROM crops WHERE id = ?", (crop_id,)).fetchone()
    if row is None:
        raise ConsoleError("not_found", f"there is no crop {crop_id}; its box may have been deleted")
    return crop_of(row)


def crops_of(rows: sqlite3.Connection, picture_id: int) -> list[Crop]:
    """Return the crops of a picture, in reading order."""
    found = [crop_of(row) for row in rows.execute("SELECT * FROM crops WHERE picture_id = ?", (picture_id,))]
    return sorted(found, key=lambda one: (one.box_px[1], one.box_px[0], one.id))


def crop_of(row: sqlite3.Row) -> Crop:
    """Return the crop of a row with all columns."""
    proposals = None
    if row["proposals"] is not None:
        proposals = tuple(Proposal(**one) for one in json.loads(row["proposals"]))
    vector = None if row["vector"] is None else np.frombuffer(row["vector"], np.float32)
    return Crop(
        id=row["id"], set_id=row["set_id"], picture_id=row["picture_id"],
        box_px=(row["x0"], row["y0"], row["x1"], row["y1"]),
        box_source=row["box_source"], box_score=row["box_score"], state=row["state"], category=row["category"],
        item=row["item"], label=row["label"], decided_by=row["decided_by"], decided_at=row["decided_at"],
        version=row["version"], proposals=proposals, proposed_category=row["proposed_category"],
        similarity=row["similarity"], doubt=row["doubt"], fold=row["fold"], vector=vector, space=row["space"],
    )  # fmt: skip


def set_boxes(
    connection: sqlite3.Connection,
    picture_id: int,
    version: int,
    boxes: Sequence[NewBox],
    state: Literal["proposed", "confirmed"],
    *,
    now_s: float | None = None,
) -> int:
    """Give a picture these boxes. A crop that is listed keeps its id and decision, others are deleted.

    Args:
        connection: of the writer.
        picture_id: whose boxes they are.
        version: of the picture, as the edit saw it.
        boxes: all of them.
        state: of the picture afterwards.
        now_s: Unix time, seconds; when decisions of new boxes were made.

    Returns:
        the new version of the picture.

    Raises:
        ConsoleError: no such picture, somebody changed its boxes meanwhile (conflict), or a box is wrong (invalid).
    """
    picture = connection.execute("SELECT * FROM pictures WHERE id = ?", (picture_id,)).fetchone()
    if picture is None:
        raise ConsoleError("not_found", f"there is no picture {picture_id}; it may have been deleted")
    if picture["version"] != version:
        raise ConsoleError("conflict", "somebody changed the boxes of this picture meanwhile; look at the newer ones")
    if len(boxes) > MOST_BOXES:
        raise ConsoleError("invalid", f"found {len(boxes)} boxes, expected at most {MOST_BOXES} in a picture")
    size = (picture["width"], picture["height"])
    fitted = [(one, fit_box(one.box_px, size)) for one in boxes]
    known = {row["id"]: row for row in connection.execute("SELECT * FROM crops WHERE picture_id = ?", (picture_id,))}
    kept = [one.id for one in boxes if one.id is not None]
    if len(set(kept)) != len(kept) or not known.keys() >= set(kept):
        raise ConsoleError("conflict", "a box of this picture is gone or listed twice; look at the newer ones")
    delete_crops(connection, picture["set_id"], known.keys() - set(kept))
    for one, box_px in fitted:
        if one.id is None:
            insert_crop(connection, picture["set_id"], picture_id, box_px, one, now_s=now_s)
        else:
            _keep(connection, known[one.id], box_px, one)
    connection.execute(
        "UPDATE pictures SET boxes = ?, version = version + 1, uncertainty = CASE ? WHEN 'confirmed' THEN 0 ELSE "
        "uncertainty END WHERE id = ?",
        (state, state, picture_id),
    )
    return version + 1


def fit_box(box_px: Box, size: tuple[int, int]) -> Box:
    """Return a box cut to a picture of this width and height.

    Raises:
        ConsoleError: it is no box, or nothing of it lies in the picture.
    """
    x0, y0, x1, y1 = (float(value) for value in box_px)
    if not all(math.isfinite(value) for value in (x0, y0, x1, y1)):
        raise ConsoleError("invalid", "a box has a side that is no number")
    fitted = (max(0.0, x0), max(0.0, y0), min(float(size[0]), x1), min(float(size[1]), y1))
    if fitted[2] - fitted[0] < MIN_SIDE_PX or fitted[3] - fitted[1] < MIN_SIDE_PX:
        raise ConsoleError(
            "invalid", f"a box is smaller than 1 pixel, or outside of the picture of {size[0]}x{size[1]}"
        )
    return fitted


def insert_crop(
    connection: sqlite3.Connection,
    set_id: int,
    picture_id: int,
    box_px: Box,
    new: NewBox,
    *,
    now_s: float | None = None,
) -> int:
    """Add a crop that is cut to its picture already, and return its id."""
    is_decided = new.decided_by is not None and new.item is not None and new.category is not None
    cursor = connection.execute(
        "INSERT INTO crops(set_id, picture_id, x0, y0, x1, y1, box_source, box_score, state, category, item, label, "
        "decided_by, decided_at, doubt) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(set_id, picture_id, *box_px, new.source, new.score, "item" if is_decided else "open"),
            *(new.category, new.item, new.label, new.decided_by if is_decided else None),
            *(now_s if is_decided else None, 0.0 if is_decided else 1.0),
        ),
    )
    return int(cursor.lastrowid or 0)


def delete_crops(connection: sqlite3.Connection, set_id: int, crop_ids: Iterable[int]) -> None:
    """Delete crops; near-duplicates that they stood for stand for themselves again."""
    gone = [(one,) for one in crop_ids]
    if gone:
        connection.executemany(f"UPDATE crops SET fold = NULL WHERE set_id = {set_id:d} AND fold = ?", gone)  # noqa: S608
        connection.executemany("DELETE FROM crops WHERE id = ?", gone)


def _keep(connection: sqlite3.Connection, row: sqlite3.Row, box_px: Box, new: NewBox) -> None:
    """Move a crop's box if it moved: what models said of the old pixels is forgotten, decisions of people are not."""
    if row["state"] == "open" and (new.category or new.item):
        connection.execute(
            "UPDATE crops SET category = ?, item = ?, label = ? WHERE id = ?",
            (new.category, new.item, new.label, row["id"]),
        )
    if all(abs(row[side] - value) < 0.01 for side, value in zip(("x0", "y0", "x1", "y1"), box_px, strict=True)):
        return
    connection.execute(
        "UPDATE crops SET x0 = ?, y0 = ?, x1 = ?, y1 = ?, box_source = ?, box_score = ?, proposals = NULL, "
        "proposed_category = NULL, similarity = NULL, doubt = CASE state WHEN 'open' THEN 1 ELSE doubt END, "
        "fold = NULL, vector = NULL, space = NULL WHERE id = ?",
        (*box_px, new.source, new.score, row["id"]),
    )
    connection.execute("UPDATE crops SET fold = NULL WHERE set_id = ? AND fold = ?", (row["set_id"], row["id"]))
