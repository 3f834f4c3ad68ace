"""Decided crops of a set as neighbours of its open ones: their vectors, kept in memory, and a search by cosine.

Rules this module keeps:
1. Only vectors of one embedding space are compared.
2. An item counts by its newest crops, 32 at most: a page ranks in a bounded time.
3. What is cached is read again when a decision or a box of its set changed, by whomever; where that takes long, only
   after ten times as long.
4. A request reads few vectors. Where there are many, a task reads them, and requests go on with what is cached.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from console.review.proposals import MOST, Suggestion
from console.sets.sets import counted
from edge.types import FloatArray

_PER_ITEM = 32
_MOST_SETS = 4  # kept in memory
_MOST_COSINES = 4_000_000  # in memory at once: 16 MB
_AT_ONCE = 500  # ids in one query
_QUICK_S, _REST = 0.02, 10  # reading again takes no rest if it is quick; else so many times as long
_FEW = 2000  # decided crops of a set, that a request reads


@dataclass(frozen=True, slots=True)
class DecidedCrops:
    """Decided crops of one embedding space."""

    items: tuple[tuple[str, str, str], ...]  # category, id, label
    starts: NDArray[np.int64]  # (items,) first row of each item
    crop_ids: NDArray[np.int64]  # (n,)
    vectors: FloatArray  # (n, dim) float32, rows of unit length

    def nearest(self, queries: FloatArray, most: int = MOST) -> list[list[Suggestion]]:
        """Return for each query its nearest items, best first.

        Args:
            queries: (m, dim) float32, rows of unit length.
            most: items for each.
        """
        block = max(1, _MOST_COSINES // len(self.crop_ids))
        if len(queries) > block:
            parts = [queries[start : start + block] for start in range(0, len(queries), block)]
            return [found for part in parts for found in self.nearest(part, most)]
        cosines = queries @ self.vectors.T
        of_items = np.maximum.reduceat(cosines, self.starts, axis=1)
        ends = np.append(self.starts[1:], len(self.crop_ids))
        found = []
        for row, by_item in zip(cosines, of_items, strict=True):
            order = np.argsort(-by_item, kind="stable")[:most]
            found.append([self._suggestion(row, int(one), int(ends[one])) for one in order])
        return found

    def _suggestion(self, cosines: FloatArray, item: int, end: int) -> Suggestion:
        start = int(self.starts[item])
        at = start + int(np.argmax(cosines[start:end]))
        return Suggestion(*self.items[item], float(cosines[at]), int(self.crop_ids[at]))


@dataclass(frozen=True, slots=True)
class _Cached:
    changes: tuple[int, int] = (-1, -1)
    read_at: float = -1e9  # monotonic, seconds
    took_s: float = 0.0
    spaces: dict[str, DecidedCrops] = field(default_factory=dict)
    vectors: dict[int, tuple[str, FloatArray]] = field(default_factory=dict)  # by crop

    def is_old(self, changes: tuple[int, int]) -> bool:
        """Return whether it is worth reading again."""
        rests = self.took_s > _QUICK_S and time.monotonic() - self.read_at < _REST * self.took_s
        return self.changes != changes and not rests


class Neighbours:
    """The decided crops of the sets that people review; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reading = threading.Lock()  # one thread reads; the others find what it has read
        self._sets: OrderedDict[int, _Cached] = OrderedDict()

    def of(self, rows: sqlite3.Connection, set_id: int) -> dict[str, DecidedCrops]:
        """Return the decided crops of a set, by embedding space; they are read where they changed, however many."""
        with self._reading:
            changes, cached = _changes(rows, set_id), self._find(set_id) or _Cached()
            if cached.is_old(changes):
                cached = _read(rows, set_id, cached, changes)
                with self._lock:
                    self._sets[set_id] = cached
                    while len(self._sets) > _MOST_SETS:
                        self._sets.popitem(last=False)
            return cached.spaces

    def at_once(self, rows: sqlite3.Connection, set_id: int) -> tuple[dict[str, DecidedCrops] | None, bool]:
        """Return the decided crops as a request needs them, and whether `of` is to read them again in the background.

        None: they were never read.
        """
        cached = self._find(set_id)
        if cached is not None and not cached.is_old(_changes(rows, set_id)):
            return cached.spaces, False
        if counted(rows, set_id, "crops").get("item", 0) <= _FEW:
            return self.of(rows, set_id), False
        return None if cached is None else cached.spaces, True

    def _find(self, set_id: int) -> _Cached | None:
        with self._lock:
            if set_id in self._sets:
                self._sets.move_to_end(set_id)
            return self._sets.get(set_id)

    def forget(self, set_id: int) -> None:
        """Read a set again the next time: vectors of decided crops were made."""
        with self._reading, self._lock:
            self._sets.pop(set_id, None)


def _changes(rows: sqlite3.Connection, set_id: int) -> tuple[int, int]:
    row = rows.execute("SELECT decisions, boxes FROM review_changes WHERE set_id = ?", (set_id,)).fetchone()
    return (row[0], row[1]) if row else (0, 0)


def _read(rows: sqlite3.Connection, set_id: int, cached: _Cached, changes: tuple[int, int]) -> _Cached:
    """Return the decided crops of a set; of those that are cached, only the vectors that are missing are read."""
    started = time.monotonic()
    decided = rows.execute(
        "SELECT category, item, label, id FROM crops WHERE set_id = ? AND state = 'item' "
        "ORDER BY category, item, label, id",
        (set_id,),
    ).fetchall()
    kept: dict[int, tuple[str, str, str]] = {}
    for (category, item), crops in groupby(decided, key=lambda row: (row[0], row[1])):
        newest = list(crops)[-_PER_ITEM:]
        kept |= {row[3]: (category, item, newest[-1][2] or item) for row in newest}
    known = cached.vectors if cached.changes[1] == changes[1] else {}
    vectors = {one: value for one, value in known.items() if one in kept}
    vectors |= read_vectors(rows, [one for one in kept if one not in vectors])
    by_space: dict[str, list[int]] = {}
    for one in kept:
        if one in vectors:
            by_space.setdefault(vectors[one][0], []).append(one)
    spaces = {space: _joined(ids, kept, vectors) for space, ids in by_space.items()}
    now = time.monotonic()
    return _Cached(changes, now, now - started, spaces, vectors)


def _joined(
    ids: Sequence[int], items: dict[int, tuple[str, str, str]], vectors: dict[int, tuple[str, FloatArray]]
) -> DecidedCrops:
    """Return crops of one space; `ids` has the crops of an item after each other."""
    names: list[tuple[str, str, str]] = []
    starts: list[int] = []
    for row, one in enumerate(ids):
        if not names or names[-1] != items[one]:
            names.append(items[one])
            starts.append(row)
    return DecidedCrops(
        tuple(names),
        np.array(starts, np.int64),
        np.array(ids, np.int64),
        np.stack([vectors[one][1] for one in ids]),
    )


def read_vectors(rows: sqlite3.Connection, crop_ids: Iterable[int]) -> dict[int, tuple[str, FloatArray]]:
    """Return space and vector of crops, by id; those without a vector are left out."""
    ids = list(crop_ids)
    found: dict[int, tuple[str, FloatArray]] = {}
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        marks = ",".join("?" * len(part))
        query = f"SELECT id, space, vector FROM crops WHERE id IN ({marks}) AND vector IS NOT NULL"  # noqa: S608  marks
        found |= {one: (space, np.frombuffer(blob, np.float32)) for one, space, blob in rows.execute(query, part)}
    return found
