"""Fills what the review needs of crops: vector, proposals, doubt, and which are near-duplicates. Background work.

Rules this module keeps:
1. Work is committed in batches. What is done is skipped when it begins again.
2. A picture that cannot be read has no proposals, and stops nothing else.
3. People wait for nobody: a crop can be named before any model has looked at it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from console.background.tasks import Progress
from console.models.looks import Look
from console.review.folding import Candidate, difference_hash, fold, sequence_of
from console.review.neighbours import DecidedCrops, Neighbours
from console.review.proposals import MOST, Suggestion, best, doubt, from_json, lead, to_json
from console.sets.images import crop_pixels
from console.sets.pictures import find_picture
from console.sets.sets import find_set
from console.storage.database import Database
from edge.errors import CaptureError, ConsoleError, PictureError
from edge.types import FloatArray, Image

_BATCH = 32  # crops in one transaction, while models look
_MARGIN = 0.0  # of a box: the models cut as they were trained
_CHUNK = 2000  # crops in one transaction, while only vectors are compared
_HITS = 5  # of the gallery, that are kept
_CHANGED = 0.02  # of a doubt, that is worth writing
_FIRST_RANK = 4  # decisions after which all open crops are ranked the first time


class Looks(Protocol):
    """What looks at crops: console.models."""

    def look(self, image_rgb: Image, choice_id: str = "", category: str | None = None) -> Look:
        """Return what the models see in a picture that one object fills."""
        ...


@dataclass(frozen=True, slots=True)
class _Seen:
    """What models saw in one crop."""

    crop_id: int
    hash: str = ""
    category: str | None = None
    hits: tuple[Suggestion, ...] = ()
    vector: FloatArray | None = None
    space: str | None = None


def propose(database: Database, models: Looks, neighbours: Neighbours, set_id: int, progress: Progress) -> str:
    """Look at all crops of a set that nobody has looked at, rank and fold them; return the result in a sentence.

    Raises:
        FinesightError: there is no such set, or no model that can look.
    """
    with database.read() as rows:
        about = find_set(rows, set_id)
        total = rows.execute("SELECT count(*) FROM crops WHERE set_id = ? AND proposals IS NULL", (set_id,)).fetchone()[
            0
        ]
    done = 0
    while True:
        with database.read() as rows:
            todo = rows.execute(
                "SELECT id, picture_id, x0, y0, x1, y1, state, category FROM crops WHERE set_id = ? AND proposals IS "
                "NULL ORDER BY picture_id, id LIMIT ?",
                (set_id, _BATCH),
            ).fetchall()
        if not todo:
            break
        seen = []
        for row in todo:
            progress(done, max(total, done + 1))
            seen.append(_look(database, models, about.model, about.category, row))
            done += 1
        with database.read() as rows:
            decided = neighbours.of(rows, set_id)
        with database.write() as connection:
            _write_seen(connection, decided, todo, seen)
    neighbours.forget(set_id)
    rank(database, neighbours, set_id, lambda *_: progress(done, max(total, done)))
    folded = fold_set(database, set_id)
    return f"{done:,} crops have proposals; {folded:,} of the open ones are near-duplicates of another"


def _look(database: Database, models: Looks, model: str, category: str | None, row: sqlite3.Row) -> _Seen:
    try:
        with database.read() as rows:
            picture = find_picture(rows, row["picture_id"])
        pixels = crop_pixels(picture, (row["x0"], row["y0"], row["x1"], row["y1"]), _MARGIN)
    except (ConsoleError, PictureError, CaptureError):
        return _Seen(row["id"])
    if min(pixels.shape[:2]) < 1:
        return _Seen(row["id"])
    look = models.look(pixels, model, row["category"] or category)
    best_category = next((one.name for one in look.categories if one.name in look.vectors), None)
    of = best_category or next(iter(look.vectors), None)
    hits = [
        Suggestion(name, one.item_id, one.label, float(one.score))
        for name, found in look.hits.items()
        for one in found
        if not one.negative
    ]
    vector = None if of is None else np.asarray(look.vectors[of], np.float32)
    first = look.categories[0].name if look.categories else None
    space = None if of is None else look.spaces[of]
    return _Seen(row["id"], f"{difference_hash(pixels):016x}", first, best(hits, _HITS), vector, space)


def _write_seen(
    connection: sqlite3.Connection, decided: dict[str, DecidedCrops], looked: list[sqlite3.Row], seen: list[_Seen]
) -> None:
    """Store what models saw; a crop whose box moved meanwhile is looked at again."""
    boxes = {row["id"]: (row["x0"], row["y0"], row["x1"], row["y1"]) for row in looked}
    for one in seen:
        merged = best([*one.hits, *_near(decided, one.space, one.vector)])
        vector = None if one.vector is None else one.vector.tobytes()
        changed = connection.execute(
            "UPDATE crops SET vector = ?, space = ?, proposals = ?, proposed_category = ?, similarity = ?, doubt = ? "
            "WHERE id = ? AND x0 = ? AND y0 = ? AND x1 = ? AND y1 = ?",
            (
                *(vector, one.space, to_json(merged), one.category, merged[0].similarity if merged else None),
                *(doubt(merged), one.crop_id, *boxes[one.crop_id]),
            ),
        ).rowcount
        if changed:
            connection.execute(
                "INSERT INTO review_marks(crop_id, hash, hits, margin) VALUES (?, ?, ?, ?) ON CONFLICT(crop_id) DO "
                "UPDATE SET hash = excluded.hash, hits = excluded.hits, margin = excluded.margin",
                (one.crop_id, one.hash, to_json(one.hits), lead(merged)),
            )


def _near(decided: dict[str, DecidedCrops], space: str | None, vector: FloatArray | None) -> list[Suggestion]:
    if vector is None or space not in decided:
        return []
    return decided[space].nearest(vector[None])[0]


def suggest(
    rows: sqlite3.Connection, decided: dict[str, DecidedCrops], set_id: int, crop_ids: list[int], most: int = MOST
) -> dict[int, tuple[Suggestion, ...]]:
    """Return the proposals of crops by what is decided, by id; crops that nobody has looked at are left out."""
    marks = ",".join("?" * len(crop_ids))
    found = rows.execute(
        "SELECT c.id, c.space, c.vector, m.hits FROM crops c LEFT JOIN review_marks m ON m.crop_id = c.id "  # noqa: S608
        f"WHERE c.set_id = ? AND c.id IN ({marks}) AND c.proposals IS NOT NULL",
        (set_id, *crop_ids),
    ).fetchall()
    return _ranked(found, decided, most)


def _ranked(
    found: list[sqlite3.Row], decided: dict[str, DecidedCrops], most: int = MOST
) -> dict[int, tuple[Suggestion, ...]]:
    """Return the best of gallery and decided crops; a crop is no neighbour of itself."""
    near: dict[int, list[Suggestion]] = {}
    for space, crops in decided.items():
        same = [row for row in found if row["space"] == space and row["vector"] is not None]
        if same:
            queries = np.stack([np.frombuffer(row["vector"], np.float32) for row in same])
            near |= dict(zip((row["id"] for row in same), crops.nearest(queries, most + 1), strict=True))
    ranked = {}
    for row in found:
        others = [one for one in near.get(row["id"], ()) if one.crop_id != row["id"]]
        ranked[row["id"]] = best([*from_json(row["hits"]), *others], most)
    return ranked


def rank(database: Database, neighbours: Neighbours, set_id: int, progress: Progress) -> str:
    """Rank all open crops of a set by what is decided now; return the result in a sentence."""
    with database.read() as rows:
        before = _changes(rows, set_id)[0]
    after, done, changed = 0, 0, 0
    while True:
        with database.read() as rows:
            decided = neighbours.of(rows, set_id)
            found = rows.execute(
                "SELECT c.id, c.space, c.vector, c.doubt, c.proposals, m.hits FROM crops c JOIN review_marks m "
                "ON m.crop_id = c.id WHERE c.id > ? AND c.set_id = ? AND c.state = 'open' AND c.proposals IS NOT NULL "
                "ORDER BY c.id LIMIT ?",
                (after, set_id, _CHUNK),
            ).fetchall()
        if not found:
            break
        ranked, after = _ranked(found, decided), found[-1]["id"]
        new = [row for row in found if _is_new(row, ranked[row["id"]])]
        with database.write() as connection:
            for row in new:
                _write_ranked(connection, row["id"], ranked[row["id"]])
        done, changed = done + len(found), changed + len(new)
        progress(done, done)
    with database.write() as connection:
        connection.execute("UPDATE review_changes SET ranked = ? WHERE set_id = ?", (before, set_id))
    return f"{changed:,} of {done:,} open crops have new proposals"


def _write_ranked(connection: sqlite3.Connection, crop_id: int, merged: tuple[Suggestion, ...]) -> None:
    connection.execute(
        "UPDATE crops SET proposals = ?, similarity = ?, doubt = ? WHERE id = ? AND state = 'open'",
        (to_json(merged), merged[0].similarity if merged else None, doubt(merged), crop_id),
    )
    connection.execute("UPDATE review_marks SET margin = ? WHERE crop_id = ?", (lead(merged), crop_id))


def _is_new(row: sqlite3.Row, merged: tuple[Suggestion, ...]) -> bool:
    """Return whether proposals are worth writing: another item is the first, or the doubt changed."""
    first = [(one.category, one.item) for one in (*from_json(row["proposals"])[:1], *merged[:1])]
    return abs(doubt(merged) - row["doubt"]) > _CHANGED or (bool(first) and first != [first[0]] * 2)


def wants_rank(rows: sqlite3.Connection, set_id: int) -> bool:
    """Return whether so much was decided since all open crops were ranked that it is worth doing it again."""
    decisions, ranked = _changes(rows, set_id)
    return decisions >= max(_FIRST_RANK, 2 * ranked)


def _changes(rows: sqlite3.Connection, set_id: int) -> tuple[int, int]:
    row = rows.execute("SELECT decisions, ranked FROM review_changes WHERE set_id = ?", (set_id,)).fetchone()
    return (row[0], row[1]) if row else (0, 0)


def fold_set(database: Database, set_id: int) -> int:
    """Find the near-duplicates among the open crops of a set; return how many another one stands for."""
    with database.read() as rows:
        folds = fold(_candidates(rows, set_id))
    with database.write() as connection:
        connection.executemany(
            "UPDATE crops SET fold = ? WHERE id = ? AND state = 'open' AND fold IS NOT ? AND NOT EXISTS "
            "(SELECT 1 FROM review_marks m WHERE m.crop_id = crops.id AND m.apart)",
            [(to, one, to) for one, to in folds.items()],
        )
        connection.execute(  # people went on deciding, and unfolding, meanwhile
            "UPDATE crops SET fold = NULL WHERE set_id = ? AND fold IS NOT NULL AND state = 'open' AND "
            "(SELECT state FROM crops o WHERE o.id = crops.fold) IS NOT 'open'",
            (set_id,),
        )
    return sum(to is not None for to in folds.values())


def _candidates(rows: sqlite3.Connection, set_id: int) -> Iterator[Candidate]:
    pictures = {}
    for row in rows.execute("SELECT id, name, source FROM pictures WHERE set_id = ?", (set_id,)):
        source = json.loads(row["source"])
        pictures[row["id"]] = sequence_of(row["name"], f"{source.get('device')}/{source.get('camera')}")
    query = (
        "SELECT c.id, c.picture_id, c.x0, c.y0, c.x1, c.y1, c.vector, c.space, c.proposals, m.hash FROM crops c JOIN "
        "review_marks m ON m.crop_id = c.id WHERE c.picture_id = ? AND c.state = 'open' AND c.vector IS NOT NULL "
        "AND m.hash != '' AND NOT m.apart ORDER BY c.id"
    )
    for picture in sorted(pictures, key=lambda one: (*pictures[one], one)):
        for row in rows.execute(query, (picture,)):
            first = from_json(row["proposals"])[:1]
            yield Candidate(
                row["id"], picture, *pictures[picture],
                (row["x1"] - row["x0"]) * (row["y1"] - row["y0"]), int(row["hash"], 16),
                (first[0].category, first[0].item) if first else None,
                np.frombuffer(row["vector"], np.float32), row["space"],
            )  # fmt: skip
