"""The log of decisions of a set, newest first, and what of it can be taken back."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from console.review.decisions import Outcome, undo
from edge.errors import ConsoleError

PAGE = 50


@dataclass(frozen=True, slots=True)
class LogRow:
    """One crop of one decision."""

    id: int
    decision: str
    crop_id: int
    at: float
    by: str
    kind: str
    before: str  # in words
    after: str
    is_undone: bool
    can_undo: bool  # the crop is as this row left it
    crops: int  # of the whole decision
    is_there: bool  # the crop was not deleted


def read_log(rows: sqlite3.Connection, set_id: int, before: int | None, limit: int = PAGE) -> list[LogRow]:
    """Return rows of the log of a set, the newest first; `before`: the id of the last one that was shown."""
    found = rows.execute(
        "SELECT l.*, c.version AS now, (SELECT count(*) FROM review_log o WHERE o.decision = l.decision) AS crops "
        "FROM review_log l LEFT JOIN crops c ON c.id = l.crop_id AND c.set_id = l.set_id "
        "WHERE l.set_id = ? AND l.id < ? ORDER BY l.id DESC LIMIT ?",
        (set_id, 2**53 if before is None else before, limit),
    )
    return [
        LogRow(
            row["id"], row["decision"], row["crop_id"], row["at"], row["by"], row["kind"],
            in_words(json.loads(row["before"])), in_words(json.loads(row["after"])),
            row["undone_by"] is not None, row["now"] == row["version"], row["crops"], row["now"] is not None,
        )
        for row in found
    ]  # fmt: skip


def undo_row(
    connection: sqlite3.Connection, now_s: float, by: str, set_id: int, row_id: int, *, whole: bool
) -> Outcome:
    """Take back one row of the log, or the whole decision that it is of.

    Raises:
        ConsoleError: there is no such row, or the crop was changed since.
    """
    row = connection.execute("SELECT * FROM review_log WHERE id = ? AND set_id = ?", (row_id, set_id)).fetchone()
    if row is None:
        raise ConsoleError("not_found", "there is no such row in the log of this set")
    if row["undone_by"] is not None and not whole:
        raise ConsoleError("conflict", "this row was taken back already")
    undo_id = f"undo-{row_id}{'-all' if whole else ''}"
    outcome = undo(connection, now_s, by, set_id, row["decision"], undo_id, None if whole else row_id)
    if outcome.conflicts and not outcome.stored:
        newest = outcome.conflicts[0]
        by_whom = f"; {newest.decided_by} did, and it is {in_words_of(newest.state, newest.label)} now"
        raise ConsoleError("conflict", "changed since" + (by_whom if newest.decided_by else "; look at it first"))
    if outcome.gone and not outcome.stored:
        raise ConsoleError("not_found", "the crop was deleted meanwhile; there is nothing to take back")
    return outcome


def in_words(values: dict[str, Any]) -> str:
    """Return what a crop was, in words."""
    text = in_words_of(values["state"], values["label"] or values["item"])
    return f"{text} ({values['category']})" if values["state"] == "item" else text


def in_words_of(state: str, label: str | None) -> str:
    """Return a state in words."""
    return {"open": "open", "unknown": "unknown", "nothing": "no object"}.get(state, label or "")
