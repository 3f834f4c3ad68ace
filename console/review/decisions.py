"""Decisions about crops: what a person said one is, stored with a log row each, and taken back by it.

Rules this module keeps:
1. A decision has an id that its client made. Sent twice, it is stored once.
2. A decision names the version that it saw. Where another one came between, nothing changes, and the newer is shown.
3. Who decides a crop that stands for near-duplicates decides those that were as it was.
4. Nothing is ever overwritten without a row that says who did it, when, and what was there before.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from console.access.audit import record
from console.review.items import KnownItems, checked_category, checked_item, checked_label
from edge.errors import ConsoleError

State = Literal["item", "unknown", "nothing"]
_COLUMNS = "id, set_id, state, category, item, label, decided_by, decided_at, version, fold"
_KEPT = ("state", "category", "item", "label", "decided_by", "decided_at")


@dataclass(frozen=True, slots=True)
class Named:
    """What a crop is."""

    state: State
    category: str | None = None  # category, item and label where state is item
    item: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a client sends."""

    id: str
    crops: tuple[tuple[int, int], ...]  # id and the version that was seen
    named: Named | None = None  # None: `undo` says what is taken back
    undo: str | None = None  # id of a decision


@dataclass(frozen=True, slots=True)
class CropState:
    """A crop after a decision, or as another person left it."""

    id: int
    version: int
    state: str
    category: str | None
    item: str | None
    label: str | None
    decided_by: str | None
    decided_at: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a decision."""

    id: str
    stored: tuple[CropState, ...]  # also those that had been stored before, or were decided so already
    conflicts: tuple[CropState, ...]  # changed by others meanwhile; left as they are
    gone: tuple[int, ...]  # crops that are not in this set


def resolve(known: KnownItems, named: Named) -> Named:
    """Return what is stored for a decision: the item's own label, and an id where only a label was typed.

    Raises:
        ConsoleError: category, id or label cannot be stored.
    """
    if named.state != "item":
        return Named(named.state)
    category = checked_category(named.category or "")
    if named.item is None or not named.item.strip():
        found = known.named_as(category, checked_label(named.label or ""))
        return Named("item", category, found.item, found.label)
    item = checked_item(named.item)
    known_item = known.find(category, item)
    if known_item is not None:
        return Named("item", category, item, known_item.label)
    return Named("item", category, item, checked_label(named.label or item))


def store(
    connection: sqlite3.Connection,
    now_s: float,
    by: str,
    set_id: int,
    decisions: Iterable[Decision],
    known: KnownItems,
    kind: Literal["decide", "accept"] = "decide",
) -> list[Outcome]:
    """Store decisions in their order, with their rows in log and audit.

    Raises:
        ConsoleError: an item's texts cannot be stored; nothing of the call is.
    """
    writer = _Writer(connection, now_s, by, set_id)
    outcomes = []
    for one in decisions:
        if one.named is None:
            outcomes.append(undo(connection, now_s, by, set_id, one.undo or "", one.id))
            continue
        named = resolve(known, one.named)
        outcomes.append(writer.decide(one, named, kind))
    if writer.count:
        record(connection, now_s, by, "review.decide", f"set {set_id}", crops=writer.count)
    return outcomes


def undo(
    connection: sqlite3.Connection,
    now_s: float,
    by: str,
    set_id: int,
    decision: str,
    undo_id: str,
    row_id: int | None = None,
) -> Outcome:
    """Take a decision back, or one row of it; crops that changed since are conflicts."""
    rows = connection.execute(
        "SELECT id, crop_id, before, version FROM review_log WHERE set_id = ? AND decision = ? "
        "AND (? IS NULL OR id = ?) ORDER BY id DESC",
        (set_id, decision, row_id, row_id),
    ).fetchall()
    writer = _Writer(connection, now_s, by, set_id)
    stored, conflicts, gone = [], [], []
    for row in rows:
        crop = writer.find(row["crop_id"])
        if crop is None:
            gone.append(row["crop_id"])
        elif writer.is_logged(undo_id, crop["id"]):
            stored.append(_state(crop))
        elif crop["version"] != row["version"]:
            conflicts.append(_state(crop))
        else:
            new_row = writer.change(crop, json.loads(row["before"]), undo_id, "undo")
            connection.execute("UPDATE review_log SET undone_by = ? WHERE id = ?", (new_row, row["id"]))
            stored.append(writer.state(crop["id"]))
    if writer.count:
        record(connection, now_s, by, "review.undo", f"set {set_id}", crops=writer.count, decision=decision)
    return Outcome(undo_id, tuple(stored), tuple(conflicts), tuple(gone))


class _Writer:
    """Changes crops of one set, in one transaction."""

    def __init__(self, connection: sqlite3.Connection, now_s: float, by: str, set_id: int) -> None:
        self._connection, self._now_s, self._by, self._set_id = connection, now_s, by, set_id
        self.count = 0

    def decide(self, decision: Decision, named: Named, kind: str) -> Outcome:
        stored, conflicts, gone = [], [], []
        for crop_id, version in decision.crops:
            crop = self.find(crop_id)
            if crop is None:
                gone.append(crop_id)
            elif self.is_logged(decision.id, crop_id) or _is(crop, named):
                stored.append(_state(crop))
            elif crop["version"] != version:
                conflicts.append(_state(crop))
            else:
                self._name(crop, named, decision.id, kind)
                stored.append(self.state(crop_id))
        return Outcome(decision.id, tuple(stored), tuple(conflicts), tuple(gone))

    def _name(self, crop: sqlite3.Row, named: Named, decision: str, kind: str) -> None:
        """Name a crop and those folded onto it that were as it was: these first, see the triggers of the schema."""
        after = {
            "state": named.state, "category": named.category or crop["category"], "item": named.item,
            "label": named.label, "decided_by": self._by, "decided_at": self._now_s,
        }  # fmt: skip
        for other in self._folded_onto(crop):
            if not self.is_logged(decision, other["id"]):
                own = after if named.category else {**after, "category": other["category"]}
                self.change(other, own, decision, kind)
        self.change(crop, after, decision, kind, alone=crop["fold"] is not None)

    def _folded_onto(self, crop: sqlite3.Row) -> Sequence[sqlite3.Row]:
        return self._connection.execute(
            f"SELECT {_COLUMNS} FROM crops WHERE set_id = ? AND fold = ? AND state = ? "  # noqa: S608  a constant
            "AND category IS ? AND item IS ?",
            (self._set_id, crop["id"], crop["state"], crop["category"], crop["item"]),
        ).fetchall()

    def change(self, crop: sqlite3.Row, after: dict[str, Any], decision: str, kind: str, *, alone: bool = False) -> int:
        """Write a crop, and return the id of its log row; alone: it does not follow another one any more."""
        before = {name: crop[name] for name in _KEPT}
        version = crop["version"] + 1
        self._connection.execute(
            "UPDATE crops SET state = ?, category = ?, item = ?, label = ?, decided_by = ?, decided_at = ?, "
            "version = ?, fold = CASE WHEN ? THEN NULL ELSE fold END WHERE id = ?",
            (*(after[name] for name in _KEPT), version, alone, crop["id"]),
        )
        self.count += 1
        texts = (json.dumps(one, ensure_ascii=False) for one in (before, after))
        return int(
            self._connection.execute(
                "INSERT INTO review_log(decision, set_id, crop_id, at, by, kind, before, after, version) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (decision, self._set_id, crop["id"], self._now_s, self._by, kind, *texts, version),
            ).lastrowid
            or 0
        )

    def find(self, crop_id: int) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._connection.execute(
            f"SELECT {_COLUMNS} FROM crops WHERE id = ? AND set_id = ?",  # noqa: S608  a constant
            (crop_id, self._set_id),
        ).fetchone()
        return row

    def state(self, crop_id: int) -> CropState:
        row = self.find(crop_id)
        if row is None:  # never: it was written in this transaction
            raise ConsoleError("not_found", f"there is no crop {crop_id}")
        return _state(row)

    def is_logged(self, decision: str, crop_id: int) -> bool:
        query = "SELECT 1 FROM review_log WHERE decision = ? AND crop_id = ?"
        return self._connection.execute(query, (decision, crop_id)).fetchone() is not None


def _is(crop: sqlite3.Row, named: Named) -> bool:
    """Return whether a crop is named so already."""
    if named.state != "item":
        return bool(crop["state"] == named.state)
    return (crop["state"], crop["category"], crop["item"]) == ("item", named.category, named.item)


def _state(row: sqlite3.Row) -> CropState:
    return CropState(
        row["id"], row["version"], row["state"], row["category"], row["item"], row["label"], row["decided_by"],
        row["decided_at"],
    )  # fmt: skip
