"""Named crops that go on to the gallery: which ones have not gone yet, grouped by item."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

_NEW = (  # the index holds every column: SQLite counts 45,000 crops without reading their rows
    "FROM crops c INDEXED BY crops_waiting LEFT JOIN review_marks m ON m.crop_id = c.id "
    "WHERE c.set_id = ? AND c.state = 'item' AND m.sent_version IS NOT c.version"
)
_MOST_OF_ITEM = 50  # crops of one draft: more pictures of one item add little to a gallery

Add = Callable[[str, str, str, Sequence[int]], object]  # category, item, label and crops, to a gallery's draft


@dataclass(frozen=True, slots=True)
class Waiting:
    """Named crops of an item that have not gone to the gallery."""

    category: str
    item: str
    label: str
    crops: tuple[tuple[int, int], ...]  # id and version; the surest boxes first


def count_waiting(rows: sqlite3.Connection, set_id: int) -> tuple[int, int]:
    """Return how many named crops have not gone to the gallery, and of how many items."""
    of_items = f"SELECT count(*) AS crops {_NEW} GROUP BY c.category, c.item"
    crops, items = rows.execute(f"SELECT COALESCE(SUM(crops), 0), COUNT(*) FROM ({of_items})", (set_id,)).fetchone()  # noqa: S608  no text from outside
    return crops, items


def read_waiting(rows: sqlite3.Connection, set_id: int) -> list[Waiting]:
    """Return the named crops that have not gone to the gallery, by item."""
    found: dict[tuple[str, str], tuple[str, list[tuple[int, int]]]] = {}
    for row in rows.execute(
        f"SELECT c.category, c.item, c.label, c.id, c.version {_NEW} ORDER BY c.category, c.item, "
        "c.fold IS NOT NULL, (c.x1 - c.x0) * (c.y1 - c.y0) DESC",
        (set_id,),
    ):
        _, crops = found.setdefault((row["category"], row["item"]), (row["label"] or row["item"], []))
        crops.append((row["id"], row["version"]))
    return [Waiting(*key, label, tuple(crops)) for key, (label, crops) in found.items()]


def send(connection: sqlite3.Connection, waiting: Iterable[Waiting], add: Add) -> int:
    """Give named crops to a gallery's draft, in the transaction of the caller; return how many crops went.

    Near-duplicates and the smallest boxes of an item stay behind where it has more than 50; they count as gone, too.
    """
    sent = 0
    for one in waiting:
        chosen = [crop for crop, _ in one.crops[:_MOST_OF_ITEM]]
        add(one.category, one.item, one.label, chosen)
        connection.executemany(
            "INSERT INTO review_marks(crop_id, sent_version) VALUES (?, ?) ON CONFLICT(crop_id) DO UPDATE SET "
            "sent_version = excluded.sent_version",
            one.crops,
        )
        sent += len(chosen)
    return sent
