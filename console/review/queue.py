"""The queue of a set: which crops are shown, in which order, page by page.

A page goes on after the last row of the one before (keyset), so that it costs the same at the end of 50,000 crops, and
decisions of others move nothing that is shown.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from console.review.proposals import Suggestion, from_json
from console.review.reading_order import reading_order
from console.sets.sets import counted
from edge.errors import ConsoleError
from edge.types import Box

Order = Literal["doubt", "sure", "picture"]
STATES = ("open", "item", "unknown", "nothing")
_COLUMNS = (
    "c.id, c.picture_id, c.x0, c.y0, c.x1, c.y1, c.state, c.category, c.item, c.label, c.decided_by, c.decided_at, "
    "c.version, c.proposals, c.proposed_category, c.similarity, c.doubt, c.fold, p.name, p.width, p.height"
)
_PICTURES = 3  # of a page in the order of pictures


@dataclass(frozen=True, slots=True)
class Filters:
    """Which crops are shown; None and "": all."""

    states: tuple[str, ...] = ("open",)
    category: str | None = None
    item: str | None = None
    text: str = ""  # in label, id, proposals or the picture's name


@dataclass(frozen=True, slots=True)
class QueuedCrop:
    """A crop as the review shows it."""

    id: int
    picture_id: int
    picture_name: str
    picture_size: tuple[int, int]  # pixels
    box_px: Box
    state: str
    category: str | None
    item: str | None
    label: str | None
    decided_by: str | None
    decided_at: float | None
    version: int
    proposals: tuple[Suggestion, ...] | None  # None: nobody has looked yet
    proposed_category: str | None
    similarity: float | None
    doubt: float
    fold: int | None
    folded: int = 0  # open near-duplicates that it stands for


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the queue."""

    crops: tuple[QueuedCrop, ...]
    after: str | None  # where the next page goes on; None: this is the last one


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the review of a set is."""

    open: int
    item: int
    unknown: int
    nothing: int
    folded: int  # open ones that another one stands for
    unseen: int  # that no model has looked at

    @property
    def total(self) -> int:
        """All crops."""
        return self.open + self.item + self.unknown + self.nothing

    @property
    def done(self) -> int:
        """Crops that are decided."""
        return self.total - self.open


def read_page(
    rows: sqlite3.Connection, set_id: int, filters: Filters, order: Order, after: str | None, limit: int
) -> Page:
    """Return a page of the queue.

    Raises:
        ConsoleError: `after` is not from a page.
    """
    if order == "picture":
        return _page_of_pictures(rows, set_id, filters, after)
    found = _read_ordered(rows, set_id, filters, _cursor(after), limit + 1, up=order == "sure")
    crops = with_folded(rows, set_id, [_crop(row) for row in found[:limit]])
    last = found[limit - 1] if len(found) > limit else None
    return Page(crops, None if last is None else f"{last['doubt']!r},{last['id']}")


def read_crops(rows: sqlite3.Connection, set_id: int, crop_ids: Sequence[int]) -> tuple[QueuedCrop, ...]:
    """Return crops of a set in the order of their ids' list; ids that are not there are left out."""
    marks = ",".join("?" * len(crop_ids))
    query = (
        f"SELECT {_COLUMNS} FROM crops c JOIN pictures p ON p.id = c.picture_id "  # noqa: S608  constants and marks
        f"WHERE c.set_id = ? AND c.id IN ({marks})"
    )
    found = {row["id"]: _crop(row) for row in rows.execute(query, (set_id, *crop_ids))}
    return with_folded(rows, set_id, [found[one] for one in crop_ids if one in found])


def read_folded(rows: sqlite3.Connection, set_id: int, crop_id: int) -> tuple[QueuedCrop, ...]:
    """Return the open crops that a crop stands for."""
    found = rows.execute(
        "SELECT id FROM crops WHERE set_id = ? AND fold = ? AND state = 'open' ORDER BY id LIMIT 500", (set_id, crop_id)
    )
    return read_crops(rows, set_id, [row[0] for row in found])


def read_progress(rows: sqlite3.Connection, set_id: int) -> Progress:
    """Return how far the review of a set is."""
    states = counted(rows, set_id, "crops")
    folded = "SELECT count(*) FROM crops WHERE set_id = ? AND fold IS NOT NULL AND state = 'open'"
    unseen = "SELECT count(*) FROM crops WHERE set_id = ? AND proposals IS NULL"
    counts = [rows.execute(query, (set_id,)).fetchone()[0] for query in (folded, unseen)]
    return Progress(*(states.get(one, 0) for one in STATES), *counts)


def unfold(connection: sqlite3.Connection, set_id: int, crop_id: int) -> tuple[int, ...]:
    """Let the near-duplicates that a crop stands for stand for themselves; return their ids."""
    ids = tuple(one.id for one in read_folded(connection, set_id, crop_id))
    for one in ids:
        connection.execute("UPDATE crops SET fold = NULL WHERE id = ?", (one,))
        connection.execute("UPDATE review_marks SET apart = 1 WHERE crop_id = ?", (one,))
    return ids


def _read_ordered(
    rows: sqlite3.Connection,
    set_id: int,
    filters: Filters,
    after: tuple[float, int] | None,
    limit: int,
    *,
    up: bool,
) -> list[sqlite3.Row]:
    """Return rows by doubt: of each state from its index, and the first of all states together."""
    less, more, way = (">", "<", "ASC") if up else ("<", ">", "DESC")
    ids = "DESC" if up else "ASC"
    where, values = _where(filters)
    if after is not None:
        where += f" AND c.doubt {less}= ? AND (c.doubt {less} ? OR c.id {more} ?)"
        values += [after[0], after[0], after[1]]
    found: list[sqlite3.Row] = []
    for state in filters.states:
        unfolded = " AND c.fold IS NULL" if state == "open" else ""  # those that are folded are shown by one
        query = (
            f"SELECT {_COLUMNS} FROM crops c CROSS JOIN pictures p ON p.id = c.picture_id "  # noqa: S608  constants
            f"WHERE c.set_id = ? AND c.state = ?{unfolded}{where} ORDER BY c.doubt {way}, c.id {ids} LIMIT ?"
        )
        found += rows.execute(query, (set_id, state, *values, limit)).fetchall()
    sign = 1 if up else -1
    return sorted(found, key=lambda row: (sign * row["doubt"], -sign * row["id"]))[:limit]


def _page_of_pictures(rows: sqlite3.Connection, set_id: int, filters: Filters, after: str | None) -> Page:
    """Return whole pictures: all crops of those that have one in question, in reading order."""
    where, values = _where(filters)
    pictures: set[int] = set()
    cursor = _cursor(after)
    start = 0 if cursor is None else int(max(0.0, min(cursor[0], 2.0**53)))
    for state in filters.states:
        query = (
            "SELECT DISTINCT c.picture_id FROM crops c INDEXED BY crops_by_picture "  # noqa: S608  constants
            "CROSS JOIN pictures p ON p.id = c.picture_id "
            f"WHERE c.set_id = ? AND c.state = ? AND c.picture_id > ?{where} ORDER BY c.picture_id LIMIT ?"
        )
        pictures |= {row[0] for row in rows.execute(query, (set_id, state, start, *values, _PICTURES + 1))}
    chosen = sorted(pictures)[:_PICTURES]
    crops: list[QueuedCrop] = []
    for picture in chosen:
        query = (
            f"SELECT {_COLUMNS} FROM crops c JOIN pictures p ON p.id = c.picture_id "  # noqa: S608  constants
            "WHERE c.picture_id = ?"
        )
        found = [_crop(row) for row in rows.execute(query, (picture,))]
        crops += [found[index] for index in reading_order([one.box_px for one in found])]
    return Page(with_folded(rows, set_id, crops), f"{chosen[-1]},0" if len(pictures) > _PICTURES else None)


def _where(filters: Filters) -> tuple[str, list[Any]]:
    """Return the conditions of filters, each beginning with AND, and their values."""
    where, values = "", []
    first = "json_extract(c.proposals, '$[0].{0}')"
    for name, value in (("category", filters.category), ("item", filters.item)):
        if value is not None:
            where += f" AND coalesce(c.{name}, {first.format(name)}) = ?"
            values.append(value)
    if filters.text:
        pattern = "%" + "".join(f"\\{one}" if one in "%_\\" else one for one in filters.text) + "%"
        columns = ("c.label", "c.item", "p.name", "c.proposals")
        where += " AND (" + " OR ".join(f"{one} LIKE ? ESCAPE '\\'" for one in columns) + ")"
        values += [pattern] * len(columns)
    return where, values


def _cursor(after: str | None) -> tuple[float, int] | None:
    if after is None:
        return None
    try:
        number, _, crop = after.partition(",")
        found = float(number), max(0, min(int(crop), 2**53))
    except ValueError as error:
        raise ConsoleError("invalid", f"after: found {after[:80]!r}, expected what a page gave") from error
    if not math.isfinite(found[0]):
        raise ConsoleError("invalid", f"after: found {after[:80]!r}, expected what a page gave")
    return found


def with_folded(rows: sqlite3.Connection, set_id: int, crops: Iterable[QueuedCrop]) -> tuple[QueuedCrop, ...]:
    """Return crops with the number of those that they stand for."""
    crops = tuple(crops)
    ids = [one.id for one in crops]
    query = (
        "SELECT fold, count(*) FROM crops WHERE set_id = ? AND state = 'open' "  # noqa: S608  marks
        f"AND fold IN ({','.join('?' * len(ids))}) GROUP BY fold"
    )
    counts = dict(rows.execute(query, (set_id, *ids)).fetchall())
    return tuple(replace(one, folded=counts[one.id]) if one.id in counts else one for one in crops)


def _crop(row: sqlite3.Row) -> QueuedCrop:
    return QueuedCrop(
        row["id"], row["picture_id"], row["name"], (row["width"], row["height"]),
        (row["x0"], row["y0"], row["x1"], row["y1"]), row["state"], row["category"], row["item"], row["label"],
        row["decided_by"], row["decided_at"], row["version"],
        None if row["proposals"] is None else from_json(row["proposals"]), row["proposed_category"],
        row["similarity"], row["doubt"], row["fold"],
    )  # fmt: skip
