"""Accepts the best proposals of all crops above a similarity, after a person has looked at a sample of them.

Rules this module keeps:
1. What would be accepted is fixed when the sample is drawn. Crops that changed since are left alone.
2. The sample is random, and its seed is kept: the same seed draws the same sample again.
3. Nothing is accepted before all of the sample was looked at. Those marked as wrong stay open, as the first to review.
4. It is one decision: one undo takes all of it back.
"""

from __future__ import annotations

import json
import math
import random
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from console.background.tasks import Progress
from console.review.decisions import Decision, Named, store
from console.review.items import Items
from console.review.proposals import from_json
from console.storage.database import Database
from edge.errors import ConsoleError

SAMPLE = 20
MARGIN_STEP = 0.01
_CHUNK = 500  # crops in one transaction
_SURE = 0.95  # confidence of the bound


@dataclass(frozen=True, slots=True)
class Cell:
    """Open crops whose best proposal is about as similar, and leads by about as much."""

    similarity: int  # steps of 0.01, rounded down
    margin: int  # steps of MARGIN_STEP, rounded down; 50 at most
    shown: int  # crops in the queue
    crops: int  # with the near-duplicates that they stand for


@dataclass(frozen=True, slots=True)
class Sample:
    """What was drawn to look at."""

    id: int
    set_id: int
    seed: int
    similarity: float
    margin: float
    crops: tuple[tuple[int, int, str, str, str], ...]  # all: id, version, category, item, label
    sample: tuple[int, ...]  # ids to look at
    is_accepted: bool


def count_cells(rows: sqlite3.Connection, set_id: int) -> list[Cell]:
    """Return how many crops a threshold would accept, in cells to be added up."""
    found = rows.execute(
        "SELECT cast(100 * c.similarity AS INTEGER), min(50, cast(m.margin / ? + 1e-6 AS INTEGER)), count(*), "
        "sum(1 + coalesce(f.number, 0)) FROM crops c JOIN review_marks m ON m.crop_id = c.id LEFT JOIN "
        "(SELECT fold, count(*) AS number FROM crops WHERE set_id = ? AND fold IS NOT NULL AND state = 'open' "
        "GROUP BY fold) f ON f.fold = c.id "
        "WHERE c.set_id = ? AND c.state = 'open' AND c.fold IS NULL AND c.proposals IS NOT NULL "
        "AND c.similarity > 0 GROUP BY 1, 2",
        (MARGIN_STEP, set_id, set_id),
    )
    return [Cell(*row) for row in found]


def draw(
    connection: sqlite3.Connection,
    now_s: float,
    by: str,
    set_id: int,
    similarity: float,
    margin: float,
    seed: int,
) -> Sample:
    """Fix what a threshold accepts, and draw the sample of it.

    Raises:
        ConsoleError: nothing is that similar.
    """
    crops = []
    for row in connection.execute(
        "SELECT c.id, c.version, c.proposals FROM crops c JOIN review_marks m ON m.crop_id = c.id WHERE c.set_id = ? "
        "AND c.state = 'open' AND c.fold IS NULL AND c.similarity >= ? AND m.margin >= ? ORDER BY c.id",
        (set_id, similarity, margin),
    ):
        crops += [
            (row["id"], row["version"], one.category, one.item, one.label) for one in from_json(row["proposals"])[:1]
        ]
    if not crops:
        raise ConsoleError("invalid", "no open crop is that similar to an item; choose a lower similarity or margin")
    # a seed is not a secret: the sample is to be drawn again by whoever doubts it
    sample = random.Random(seed).sample([one[0] for one in crops], min(SAMPLE, len(crops)))
    cursor = connection.execute(
        "INSERT INTO review_samples(set_id, at, by, similarity, margin, seed, crops, sample) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (set_id, now_s, by, similarity, margin, seed, json.dumps(crops, ensure_ascii=False), json.dumps(sample)),
    )
    connection.execute(  # those of others that nobody accepted are of no use any more
        "DELETE FROM review_samples WHERE set_id = ? AND accepted_at IS NULL AND at < ?", (set_id, now_s - 86_400)
    )
    return Sample(
        int(cursor.lastrowid or 0), set_id, seed, similarity, margin, tuple(crops), tuple(sample), is_accepted=False
    )


def find_sample(rows: sqlite3.Connection, set_id: int, sample_id: int) -> Sample:
    """Return a sample of a set.

    Raises:
        ConsoleError: there is none of this id.
    """
    row = rows.execute("SELECT * FROM review_samples WHERE id = ? AND set_id = ?", (sample_id, set_id)).fetchone()
    if row is None:
        raise ConsoleError("not_found", "there is no such sample; draw one")
    return Sample(
        row["id"], set_id, row["seed"], row["similarity"], row["margin"],
        tuple((one[0], one[1], one[2], one[3], one[4]) for one in json.loads(row["crops"])),
        tuple(json.loads(row["sample"])), row["accepted_at"] is not None,
    )  # fmt: skip


def check_looked_at(sample: Sample, looked_at: Sequence[int]) -> None:
    """Refuse to accept what nobody looked at, and to accept twice.

    Raises:
        ConsoleError: it was accepted, or a crop of the sample is not among those that were looked at.
    """
    if sample.is_accepted:
        raise ConsoleError("conflict", "this sample was accepted before; draw another one")
    missing = set(sample.sample) - set(looked_at)
    if missing:
        raise ConsoleError("invalid", f"{len(missing)} of the sample were not looked at; look at all of them first")


def decision_of(sample: Sample) -> str:
    """Return the id of the decision that accepts a sample."""
    return f"accept-{sample.id}"


def accept(
    database: Database, now_s: float, by: str, sample: Sample, wrong: Sequence[int], items: Items, progress: Progress
) -> str:
    """Name the crops of a sample's threshold by their best proposals; return the result in a sentence."""
    left = [one for one in sample.crops if one[0] not in set(wrong)]
    with database.write() as connection:
        connection.execute("UPDATE review_samples SET accepted_at = ? WHERE id = ?", (now_s, sample.id))
        for one in set(wrong) & set(sample.sample):
            connection.execute("UPDATE crops SET doubt = 1 WHERE id = ? AND set_id = ?", (one, sample.set_id))
    named = changed = 0
    for start in range(0, len(left), _CHUNK):
        progress(start, len(left))
        with database.write() as connection:
            known = items.known(connection, sample.set_id, None)
            decisions = [
                Decision(decision_of(sample), ((crop, version),), Named("item", category, item, label))
                for crop, version, category, item, label in left[start : start + _CHUNK]
            ]
            for outcome in store(connection, now_s, by, sample.set_id, decisions, known, "accept"):
                named += len(outcome.stored)
                changed += len(outcome.conflicts) + len(outcome.gone)
    more = f"; {changed:,} were left alone, because somebody changed them" if changed else ""
    return f"{named:,} crops are named, with their near-duplicates{more}"


def upper_bound(wrong: int, looked_at: int) -> float:
    """Return the largest share of wrong ones that a sample leaves likely, 0..1 (Clopper-Pearson, one side, 95 %)."""
    if looked_at == 0 or wrong >= looked_at:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(40):
        share = (low + high) / 2
        chance = sum(math.comb(looked_at, k) * share**k * (1 - share) ** (looked_at - k) for k in range(wrong + 1))
        low, high = (share, high) if chance > 1 - _SURE else (low, share)
    return high
