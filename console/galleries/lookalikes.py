"""Items that look alike, by the means of their vectors.

Rules this module keeps:
1. Means are int8 and lie in a file beside the store, in the order of the items' ids: nothing of it stays in memory.
2. Pairs are looked for among all items of a small gallery; of a large one, for the items that changed last.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from console.storage.database import Database
from edge.gallery.store import quantise
from edge.inference.postprocess import unit_rows
from edge.types import FloatArray
from gallery_sync.gallery_log.records import Upsert

MOST_PAIRS = 200  # of a store, the most alike
_MOST_PRODUCTS = 100_000_000  # of two means: 10,000 items with each other; some seconds
_ROWS = 4096  # at once


@dataclass(frozen=True, slots=True)
class LookAlike:
    """Another item, and how alike it is."""

    item: str
    label: str
    similarity: float  # cosine of the means
    vectors: int
    has_thumbnail: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """Two items that look alike."""

    one: LookAlike
    other: LookAlike
    similarity: float


def mean_row(record: Upsert) -> NDArray[np.int8]:
    """Return the mean of the vectors of an item, of unit length and quantised; zeros if they cancel out."""
    return quantised_mean(record.vectors_i8.astype(np.float32) * record.scales[:, None])


def quantised_mean(vectors: FloatArray) -> NDArray[np.int8]:
    """Return the mean of rows of unit length, quantised: (n, dim) to (dim,)."""
    mean = vectors.sum(axis=0, dtype=np.float32)
    if not np.abs(mean).max() > 1e-6:
        return np.zeros(vectors.shape[1], np.int8)
    row: NDArray[np.int8] = quantise(mean[None])[0][0]
    return row


def item_means(vectors_i8: NDArray[np.int8], scales: FloatArray, starts: NDArray[np.int64]) -> NDArray[np.int8]:
    """Return the mean of the vectors of each item, of unit length and quantised; zeros where they cancel out.

    Args:
        vectors_i8: of all items, (n, dim), those of an item together.
        scales: (n,), vector = int8 * scale.
        starts: the first row of each item, (items,).
    """
    means = np.zeros((len(starts), vectors_i8.shape[1]), np.int8)
    for at in range(0, len(starts), _ROWS):
        some = starts[at : at + _ROWS]
        end = starts[at + _ROWS] if at + _ROWS < len(starts) else len(vectors_i8)
        rows = vectors_i8[some[0] : end].astype(np.float32) * scales[some[0] : end, None]
        sums = np.add.reduceat(rows, some - some[0], axis=0)
        good = np.abs(sums).max(axis=1) > 1e-6
        if good.any():
            means[at : at + len(some)][good] = quantise(sums[good])[0]
    return means


def means_path(store: Path) -> Path:
    """Return where the means of a store lie."""
    return store.with_suffix(".means.npy")


def nearest(
    rows: sqlite3.Connection, store: sqlite3.Row, mean: NDArray[np.int8], without: Sequence[str], count: int
) -> list[LookAlike]:
    """Return the items whose means are nearest to a mean, the most alike first.

    Args:
        rows: the console's tables.
        store: the row of the store.
        mean: quantised, (dim,).
        without: ids of items that do not count.
        count: how many to return at most.
    """
    means = np.load(means_path(Path(store["path"])), mmap_mode="r")
    if not len(means) or means.shape[1] != len(mean):
        return []
    query = unit_rows(mean.astype(np.float32)[None])[0]
    scores = np.concatenate([_unit(means[at : at + _ROWS]) @ query for at in range(0, len(means), _ROWS)])
    count = min(count + len(without), len(scores))
    best = np.argpartition(-scores, count - 1)[:count]
    found = []
    for place in best[np.argsort(-scores[best])]:
        row = rows.execute("SELECT * FROM gallery_items WHERE id = ?", (store["first_id"] + int(place),)).fetchone()
        if row is not None and row["item"] not in without:
            found.append(_look_alike(row, float(scores[place])))
    return found[: count - len(without) if count > len(without) else count]


def find_pairs(database: Database, store_id: int, threshold: float) -> None:
    """Look for the pairs of items of a store whose similarity reaches a threshold, and keep the most alike."""
    with database.read() as rows:
        store = rows.execute("SELECT * FROM gallery_stores WHERE id = ?", (store_id,)).fetchone()
        means = np.load(means_path(Path(store["path"])))
        most = min(len(means), max(100, _MOST_PRODUCTS // max(len(means), 1)))
        query = (
            "SELECT id FROM gallery_items INDEXED BY gallery_items_by_change WHERE store_id = ? "
            "ORDER BY changed DESC, id LIMIT ?"
        )
        places = np.array([row[0] - store["first_id"] for row in rows.execute(query, (store_id, most))], np.int64)
    pairs: dict[tuple[int, int], float] = {}
    for start in range(0, len(places), 1024):
        some = places[start : start + 1024]
        queries = _unit(means[some])
        for at in range(0, len(means), _ROWS):
            scores = queries @ _unit(means[at : at + _ROWS]).T
            for row, column in zip(*np.nonzero(scores >= threshold), strict=True):
                one, other = sorted((int(some[row]), at + int(column)))
                if one != other:
                    pairs[one, other] = float(scores[row, column])
            if len(pairs) > 50 * MOST_PAIRS:
                pairs = dict(_best(pairs))
    with database.write() as connection:
        connection.executemany(
            "INSERT OR REPLACE INTO gallery_pairs(store_id, similarity, one, other) VALUES (?, ?, ?, ?)",
            [
                (store_id, score, store["first_id"] + one, store["first_id"] + other)
                for (one, other), score in _best(pairs)
            ],
        )
        connection.execute("UPDATE gallery_stores SET compared = ? WHERE id = ?", (len(places), store_id))


def pairs_of(rows: sqlite3.Connection, store_id: int, limit: int) -> list[Pair]:
    """Return the pairs of a store, the most alike first."""
    query = "SELECT * FROM gallery_pairs WHERE store_id = ? ORDER BY similarity DESC, one, other LIMIT ?"
    found = []
    for pair in rows.execute(query, (store_id, limit)).fetchall():
        ends = [rows.execute("SELECT * FROM gallery_items WHERE id = ?", (pair[end],)).fetchone() for end in
                ("one", "other")]  # fmt: skip
        if None not in ends:
            one, other = (_look_alike(row, pair["similarity"]) for row in ends)
            found.append(Pair(one, other, pair["similarity"]))
    return found


def _best(pairs: dict[tuple[int, int], float]) -> list[tuple[tuple[int, int], float]]:
    return sorted(pairs.items(), key=lambda one: (-one[1], one[0]))[:MOST_PAIRS]


def _unit(rows: NDArray[np.int8]) -> FloatArray:
    """Return rows of unit length, float32; rows of zeros stay."""
    found = rows.astype(np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", found, found))
    return np.asarray(found / np.maximum(lengths, 1.0)[:, None], np.float32)


def _look_alike(row: sqlite3.Row, similarity: float) -> LookAlike:
    return LookAlike(row["item"], row["label"], similarity, row["vectors"], bool(row["thumbnail"]))
