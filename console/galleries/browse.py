"""What pages show of the indexed galleries: categories, pages of items, letters, warnings.

Every query goes through an index and ends after one page of rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from console.galleries.index import FEW_VECTORS

Sort = Literal["label", "vectors", "change"]
Only = Literal["", "few", "faceless", "negative"]
PAGE = 60  # items
_STALE_S = 365 * 86400.0
_SHORTEST_TRIGRAM = 3  # characters that the text index can find
_CONDITIONS = {"few": f"i.vectors < {FEW_VECTORS}", "faceless": "i.thumbnail = 0", "negative": "i.negative = 1"}


@dataclass(frozen=True, slots=True)
class Category:
    """One category of the gallery."""

    store_id: int
    category: str
    items: int
    vectors: int
    few: int  # items with fewer than FEW_VECTORS
    faceless: int  # items without a thumbnail
    negative: int
    searched: bool  # the newest bundle has an embedder for it
    threshold: float | None
    changed: int  # gallery sequence
    changed_at: float | None  # Unix time of the release that first had it
    pairs: int  # of items that look alike
    compared: int  # items whose look-alikes were looked for

    def is_stale(self, now_s: float) -> bool:
        """Whether nothing changed for a year."""
        return self.changed_at is not None and now_s - self.changed_at > _STALE_S

    @property
    def has_warnings(self) -> bool:
        """Whether there is something to look at."""
        return bool(self.few or self.faceless or self.pairs or not self.searched)


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a page."""

    id: int
    item: str
    label: str
    vectors: int
    negative: bool
    has_thumbnail: bool
    changed: int


@dataclass(frozen=True, slots=True)
class Query:
    """Which items, in which order."""

    text: str = ""
    sort: Sort = "label"
    only: Only = ""
    after: tuple[int, int] | None = None  # the sort's value, and the id, of the last item of the page before


@dataclass(frozen=True, slots=True)
class Items:
    """A page of items."""

    items: Sequence[Item]
    next: tuple[int, int] | None  # `after` of the next page; None: this is the last one


def categories(rows: sqlite3.Connection) -> list[Category]:
    """Return the categories, by name."""
    query = (
        "SELECT s.*, (SELECT min(at) FROM gallery_releases r WHERE r.gallery = s.changed) AS changed_at, "
        "(SELECT count(*) FROM gallery_pairs p WHERE p.store_id = s.id) AS pairs "
        "FROM gallery_stores s WHERE shown = 1 AND is_ready = 1 ORDER BY category"
    )
    return [_category(row) for row in rows.execute(query)]


def category_of(rows: sqlite3.Connection, store: sqlite3.Row) -> Category:
    """Return the category of a store."""
    return next(one for one in categories(rows) if one.store_id == store["id"])


def items(rows: sqlite3.Connection, store: sqlite3.Row, query: Query) -> Items:
    """Return one page of the items of a store. A search is in the order of labels."""
    found = _found(rows, store, query) if query.text.strip() else _sorted(rows, store, query)
    last = found[PAGE - 1] if len(found) > PAGE else None
    following = None
    if last is not None:
        key = {"vectors": last["vectors"], "change": last["changed"]}.get(query.sort, 0)
        following = (key, last["id"])
    return Items([_item(row) for row in found[:PAGE]], following)


def letters(rows: sqlite3.Connection, store: sqlite3.Row) -> list[tuple[str, int]]:
    """Return the first letters of labels, and the id of the first item of each, in order."""
    query = "SELECT letter, first_id FROM gallery_letters WHERE store_id = ? ORDER BY first_id LIMIT 200"
    found: dict[str, int] = {}
    for letter, first_id in rows.execute(query, (store["id"],)):
        found.setdefault(letter, first_id)
    return list(found.items())


def find_item(rows: sqlite3.Connection, store: sqlite3.Row, item: str) -> Item | None:
    """Return an item of a store."""
    row = rows.execute("SELECT * FROM gallery_items WHERE store_id = ? AND item = ?", (store["id"], item)).fetchone()
    return None if row is None else _item(row)


def time_of_gallery(rows: sqlite3.Connection, gallery: int) -> float | None:
    """Return when the first release with a gallery sequence was made."""
    row = rows.execute("SELECT at FROM gallery_releases WHERE gallery = ?", (gallery,)).fetchone()
    return None if row is None else row[0]


def _sorted(rows: sqlite3.Connection, store: sqlite3.Row, query: Query) -> list[sqlite3.Row]:
    """Return one row more than a page holds."""
    where, values = ["i.store_id = ?"], [store["id"]]
    if query.only:
        where.append(_CONDITIONS[query.only])
    start = query.after
    match query.sort:
        case "vectors":
            order = "i.vectors, i.id"
            if start is not None:
                where.append("(i.vectors, i.id) > (?, ?)")
                values += start
        case "change":
            order = "i.changed DESC, i.id"
            if start is not None:
                where.append("(i.changed < ? OR (i.changed = ? AND i.id > ?))")
                values += [start[0], *start]
        case _:
            order = "i.id"
            where[0] = "i.store_id + 0 = ?" if not query.only else where[0]
            where.append("i.id BETWEEN ? AND ?")
            first, last = store["first_id"], store["first_id"] + store["items"]
            values += [max(first, start[1] + 1 if start else 0), last]
    text = f"SELECT i.* FROM gallery_items i WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?"  # noqa: S608  ours
    return rows.execute(text, (*values, PAGE + 1)).fetchall()


def _found(rows: sqlite3.Connection, store: sqlite3.Row, query: Query) -> list[sqlite3.Row]:
    """Return one row more than a page holds: items whose id or label has the text."""
    text = query.text.strip()
    first, last = store["first_id"], store["first_id"] + store["items"]
    start = max(first, query.after[1] + 1 if query.after else 0)
    more = f" AND {_CONDITIONS[query.only]}" if query.only else ""
    if len(text) < _SHORTEST_TRIGRAM:
        pattern = text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
        select = (
            "SELECT i.* FROM gallery_items i WHERE i.id BETWEEN ? AND ? AND (i.label LIKE ? ESCAPE '\\' "  # noqa: S608
            f"OR i.item LIKE ? ESCAPE '\\'){more} ORDER BY i.id LIMIT ?"
        )
        return rows.execute(select, (start, last, f"{pattern}%", f"{pattern}%", PAGE + 1)).fetchall()
    quoted = '"' + text.replace('"', '""') + '"'
    select = (
        "SELECT i.* FROM gallery_text t CROSS JOIN gallery_items i ON i.id = t.rowid WHERE gallery_text MATCH ? "  # noqa: S608
        f"AND t.rowid BETWEEN ? AND ?{more} ORDER BY t.rowid LIMIT ?"
    )
    return rows.execute(select, (quoted, start, last, PAGE + 1)).fetchall()


def _category(row: sqlite3.Row) -> Category:
    return Category(
        row["id"], row["category"], row["items"], row["vectors"], row["few"], row["faceless"], row["negative"],
        row["threshold"] is not None, row["threshold"], row["changed"], row["changed_at"], row["pairs"],
        row["compared"],
    )  # fmt: skip


def _item(row: sqlite3.Row) -> Item:
    return Item(
        row["id"], row["item"], row["label"], row["vectors"], bool(row["negative"]), bool(row["thumbnail"]),
        row["changed"],
    )  # fmt: skip
