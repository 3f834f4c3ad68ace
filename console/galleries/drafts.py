"""Drafts: changes of the gallery that somebody made here and nobody has published yet.

Rules this module keeps:
1. A draft says what is to be done, not what results: that is planned when it is shown, on top of the drafts before it.
2. Drafts are never deleted. One is open, waits for signatures, is published in a release, or was withdrawn.
3. Each step has a row in the audit log, in the same transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from console.access.audit import record
from edge.errors import ConsoleError
from edge.gallery.limits import (
    MAX_CATEGORY_CHARACTERS,
    MAX_ID_CHARACTERS,
    MAX_LABEL_CHARACTERS,
    metadata_json,
    text_problem,
)

Kind = Literal["rename", "metadata", "negative", "add", "remove", "merge", "split", "delete", "restore"]
State = Literal["open", "waiting", "published", "withdrawn"]
MOST_OPEN = 1000  # drafts; the next release then takes minutes
MOST_PICTURES = 1000  # of one draft
MOST_VECTORS = 65_536  # that one draft names


@dataclass(frozen=True, slots=True)
class Draft:
    """One change."""

    id: int
    at: float  # Unix time, seconds
    by: str
    kind: Kind
    category: str
    item: str
    arguments: Mapping[str, Any]
    state: State
    says: str
    also: str | None  # id of another item that it changes
    release: int | None
    gallery: int | None
    file: str | None  # the draft that waits for signatures
    release_at: str | None  # when that release was made, as it says
    space_id: str | None  # of its vectors
    is_embedded: bool
    pictures: int
    warnings: tuple[str, ...]
    problem: str  # why its pictures cannot be used

    @property
    def items(self) -> tuple[str, ...]:
        """The ids of the items that it changes."""
        return (self.item,) if self.also is None else (self.item, self.also)


_COLUMNS = (
    "id, at, by, kind, category, item, arguments, state, says, also, release, gallery, file, release_at, space_id, "
    "vectors IS NOT NULL AS is_embedded, warnings, problem, "
    "(SELECT count(*) FROM gallery_pictures p WHERE p.draft_id = gallery_drafts.id) AS pictures"
)


def add_pictures(
    connection: sqlite3.Connection,
    now_s: float,
    by: str,
    category: str,
    item: str,
    label: str,
    crop_ids: Sequence[int],
) -> int:
    """Draft that crops become pictures of an item, new or there already, and return the id of the draft.

    Args:
        connection: of the writer.
        now_s: Unix time, seconds.
        by: name of the user.
        category: of the item.
        item: its id.
        label: of a new item; one that is there keeps its own.
        crop_ids: of console.sets, the best first: it gives the thumbnail.

    Raises:
        ConsoleError: a text or the number of crops breaks a limit (invalid), or there are too many drafts (conflict).
    """
    if not 1 <= len(crop_ids) <= MOST_PICTURES:
        raise ConsoleError("invalid", f"found {len(crop_ids)} crops, expected 1 to {MOST_PICTURES}")
    draft_id = create(connection, now_s, by, "add", category, item, {"label": label})
    connection.executemany(
        "INSERT INTO gallery_pictures(draft_id, number, crop_id) VALUES (?, ?, ?)",
        [(draft_id, number, crop_id) for number, crop_id in enumerate(dict.fromkeys(crop_ids))],
    )
    return draft_id


def create(
    connection: sqlite3.Connection,
    now_s: float,
    by: str,
    kind: Kind,
    category: str,
    item: str,
    arguments: Mapping[str, Any],
    also: str | None = None,
) -> int:
    """Add a draft, and return its id. Whether it can be done is a question of the plan.

    Raises:
        ConsoleError: a text breaks a limit (invalid), or there are too many drafts (conflict).
    """
    check_item(category, item, also, str(arguments.get("label", "x")))
    if "metadata" in arguments:
        try:
            metadata_json(arguments["metadata"])
        except ValueError as error:
            raise ConsoleError("invalid", f"the metadata: {error}") from error
    if (count := count_open(connection)) >= MOST_OPEN:
        raise ConsoleError("conflict", f"{count:,} changes wait already; publish them, or take some back, first")
    cursor = connection.execute(
        "INSERT INTO gallery_drafts(at, by, kind, category, item, arguments, also) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (now_s, by, kind, category, item, json.dumps(dict(arguments), ensure_ascii=False), also),
    )
    draft_id = int(cursor.lastrowid or 0)
    record(connection, now_s, by, f"gallery.{kind}", f"item {item} of {category}", draft=draft_id)
    return draft_id


def check_item(category: str, item: str, also: str | None = None, label: str = "x") -> None:
    """Check the texts that name an item.

    Raises:
        ConsoleError: one is empty, too long or no text (invalid).
    """
    texts = (
        ("category", category, MAX_CATEGORY_CHARACTERS),
        ("id", item, MAX_ID_CHARACTERS),
        ("id of the other item", "x" if also is None else also, MAX_ID_CHARACTERS),
        ("label", label, MAX_LABEL_CHARACTERS),
    )
    for name, text, most in texts:
        problem = text_problem(text, most) or (None if text.strip() else "is empty")
        if problem:
            raise ConsoleError("invalid", f"the {name}: {problem}")


def find(rows: sqlite3.Connection, draft_id: int) -> Draft:
    """Return a draft.

    Raises:
        ConsoleError: not_found.
    """
    row = rows.execute(f"SELECT {_COLUMNS} FROM gallery_drafts WHERE id = ?", (draft_id,)).fetchone()  # noqa: S608
    if row is None:
        raise ConsoleError("not_found", f"there is no change {draft_id}")
    return _draft(row)


def listed(rows: sqlite3.Connection, state: State = "open", limit: int = MOST_OPEN) -> list[Draft]:
    """Return drafts: open and waiting ones in their order, others the newest first."""
    order = "id" if state in ("open", "waiting") else "id DESC"
    query = f"SELECT {_COLUMNS} FROM gallery_drafts WHERE state = ? ORDER BY {order} LIMIT ?"  # noqa: S608  ours
    return [_draft(row) for row in rows.execute(query, (state, limit))]


def count_open(rows: sqlite3.Connection) -> int:
    """Return how many drafts are open."""
    return int(rows.execute("SELECT count(*) FROM gallery_drafts WHERE state = 'open'").fetchone()[0])


def of_item(rows: sqlite3.Connection, category: str, item: str, limit: int = 200) -> list[Draft]:
    """Return the drafts that changed an item, or will, the newest first."""
    query = (
        f"SELECT {_COLUMNS} FROM gallery_drafts WHERE id IN (SELECT id FROM gallery_drafts WHERE category = ? "  # noqa: S608
        "AND item = ? UNION SELECT id FROM gallery_drafts WHERE category = ? AND also = ?) AND state != 'withdrawn' "
        "ORDER BY id DESC LIMIT ?"
    )
    return [_draft(row) for row in rows.execute(query, (category, item, category, item, limit))]


def withdraw(connection: sqlite3.Connection, now_s: float, by: str, draft: Draft) -> None:
    """Take an open draft back.

    Raises:
        ConsoleError: it is published or waits for signatures (conflict).
    """
    changed = connection.execute(
        "UPDATE gallery_drafts SET state = 'withdrawn' WHERE id = ? AND state = 'open'", (draft.id,)
    ).rowcount
    if not changed:
        raise ConsoleError("conflict", f"change {draft.id} is {draft.state}; it cannot be taken back any more")
    record(connection, now_s, by, "gallery.withdraw", f"item {draft.item} of {draft.category}", draft=draft.id)


@dataclass(frozen=True, slots=True)
class Settled:
    """Where published drafts are."""

    release: int
    gallery: int
    release_at: str
    file: str | None = None  # None: devices see it


def settle(connection: sqlite3.Connection, draft_ids: Sequence[int], where: Settled | None) -> None:
    """Mark drafts as published, or as waiting for signatures; None: as open again."""
    state: State = "open" if where is None else "published" if where.file is None else "waiting"
    values: tuple[object, ...] = (state, None, None, None, None)
    if where is not None:
        values = (state, where.release, where.gallery, where.file, where.release_at)
    connection.executemany(
        "UPDATE gallery_drafts SET state = ?, release = ?, gallery = ?, file = ?, release_at = ? WHERE id = ?",
        [(*values, draft_id) for draft_id in draft_ids],
    )


def intend(connection: sqlite3.Connection, draft_ids: Sequence[int], release: int, release_at: str) -> None:
    """Write down which release is about to publish drafts: a console that is killed meanwhile finds out by it."""
    connection.executemany(
        "UPDATE gallery_drafts SET release = ?, release_at = ? WHERE id = ?",
        [(release, release_at, draft_id) for draft_id in draft_ids],
    )


def _draft(row: sqlite3.Row) -> Draft:
    values = dict(row)
    kind: Kind = values["kind"]
    assert kind in get_args(Kind)
    return Draft(
        **{
            **values,
            "arguments": json.loads(values["arguments"]),
            "warnings": tuple(json.loads(values["warnings"])),
            "is_embedded": bool(values["is_embedded"]),
        }
    )
