"""The queue of a set's pictures that wait for boxes: the most uncertain first."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

_WAITING = ("none", "proposed")
_IN_ORDER = "ORDER BY uncertainty DESC, id LIMIT 1"
_OF_QUEUE = "SELECT id, uncertainty FROM pictures WHERE set_id = ? AND boxes = ?"


@dataclass(frozen=True, slots=True)
class Counts:
    """How far the boxes of a set are."""

    waiting: int  # without boxes that a person confirmed
    proposed: int  # of them: with proposals
    confirmed: int


@dataclass(frozen=True, slots=True)
class WaitingSet:
    """A set of which pictures wait for boxes."""

    id: int
    name: str
    counts: Counts
    first: tuple[int, ...]  # ids of the first pictures of its queue


def count_boxes(rows: sqlite3.Connection, set_id: int) -> Counts:
    """Return how many pictures of a set wait, and how many are confirmed."""
    found = dict.fromkeys(("none", "proposed", "confirmed"), 0)
    query = "SELECT boxes, COUNT(*) FROM pictures WHERE set_id = ? GROUP BY boxes"
    found |= {row[0]: row[1] for row in rows.execute(query, (set_id,))}
    return Counts(found["none"] + found["proposed"], found["proposed"], found["confirmed"])


def waiting_sets(rows: sqlite3.Connection, pictures: int, most: int = 200) -> list[WaitingSet]:
    """Return the sets with pictures that need boxes or have some; those that wait come first.

    Args:
        rows: the database.
        pictures: how many of the first pictures of each to name.
        most: number of sets.
    """
    found = []
    for set_id, name in map(tuple, rows.execute("SELECT id, name FROM sets ORDER BY id DESC LIMIT ?", (most,))):
        counts = count_boxes(rows, set_id)
        if counts.waiting or counts.confirmed:
            found.append(WaitingSet(set_id, name, counts, first_waiting(rows, set_id, pictures)))
    return sorted(found, key=lambda one: not one.counts.waiting)


def first_waiting(rows: sqlite3.Connection, set_id: int, count: int) -> tuple[int, ...]:
    """Return the first pictures of the queue."""
    parts = []
    for state in _WAITING:
        parts += rows.execute(f"{_OF_QUEUE} ORDER BY uncertainty DESC, id LIMIT ?", (set_id, state, count)).fetchall()
    return tuple(one[0] for one in sorted(parts, key=lambda one: (-one[1], one[0]))[:count])


def next_waiting(rows: sqlite3.Connection, set_id: int, after: int | None = None) -> int | None:
    """Return the picture that comes after another one in the queue, or the first one after the last.

    Args:
        rows: the database.
        set_id: the set.
        after: a picture, in the queue or not; None: begin at the front.

    Returns:
        its id; None: no other picture waits.
    """
    known = None
    if after is not None:
        known = rows.execute(
            "SELECT uncertainty, boxes FROM pictures WHERE id = ? AND set_id = ?", (after, set_id)
        ).fetchone()
    if known is not None and known[1] in _WAITING:
        found = _after(rows, set_id, known[0], after or 0)
        if found is not None:
            return found
    return next((one for one in first_waiting(rows, set_id, 2) if one != after), None)


def _after(rows: sqlite3.Connection, set_id: int, uncertainty: float, picture_id: int) -> int | None:
    """Return the next one of the queue, by two look-ups of the index for each state."""
    parts = []
    for state in _WAITING:
        parts += rows.execute(
            f"{_OF_QUEUE} AND uncertainty = ? AND id > ? {_IN_ORDER}", (set_id, state, uncertainty, picture_id)
        ).fetchall()
        parts += rows.execute(f"{_OF_QUEUE} AND uncertainty < ? {_IN_ORDER}", (set_id, state, uncertainty)).fetchall()
    return min(parts, key=lambda one: (-one[1], one[0]))[0] if parts else None
