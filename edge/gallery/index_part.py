"""Rows of a category with the items that they belong to: what an index searches, as a whole or by lists."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.gallery.inverted_lists import Clustering, Lists
from edge.gallery.row_blocks import RowBlocks, Rows
from edge.gallery.store import CategoryItems
from edge.gallery.texts import Texts
from edge.types import FloatArray

_PROPOSED = 32  # rows to score exactly: recall@1 is 1.000; the int8 order alone gives .94-.95


class Graph(Protocol):
    """An HNSW graph; its library is loaded where one is wanted."""

    def propose(self, query: FloatArray, count: int) -> Rows | None:
        """Return rows near a query, None if they cannot be found."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """Rows and the items that they belong to."""

    item_ids: Sequence[str]
    labels: Sequence[str]
    negative: NDArray[np.bool_]
    rows: RowBlocks
    row_item: NDArray[np.int32]  # (places,), -1: no row, or a deleted one
    items: int  # live ones
    lists: Lists | None = None
    graph: Graph | None = None

    @classmethod
    def of(cls, items: CategoryItems, clustering: Clustering | None = None) -> Part:
        """Lay out the rows of some items, in lists if a clustering is given."""
        order = None if clustering is None else clustering.order()
        row_item = items.row_item if order is None else items.row_item[order]
        lists = None if clustering is None else Lists(clustering)
        rows = RowBlocks.of(items.vectors_i8, order)
        return cls(
            items.item_ids, items.labels, items.negative, rows, _padded(row_item, rows), len(items.item_ids), lists
        )

    @property
    def live(self) -> Rows:
        """Places of the live rows."""
        return np.flatnonzero(self.row_item >= 0)

    def without(self, item_ids: Collection[str]) -> Part:
        """Return the part without some items, sharing the vectors."""
        gone = np.fromiter((item_id in item_ids for item_id in self.item_ids), np.bool_, len(self.item_ids))
        rows = np.flatnonzero((self.row_item >= 0) & gone[self.row_item])
        if not len(rows):
            return self
        row_item = self.row_item.copy()
        row_item[rows] = -1
        return replace(
            self, rows=self.rows.without(rows), row_item=row_item, items=self.items - len(set(self.row_item[rows]))
        )

    def nearest(self, query: FloatArray, k: int) -> list[tuple[int, float]]:
        """Return number and cosine of the k items nearest to a query, best first."""
        wanted = min(k, self.items)
        if (cosines := self.rows.cosines(query)) is not None:
            return self._best_items(cosines, wanted)
        if self.lists is None:
            return self._distinct(query, wanted, None)
        found: list[tuple[int, float]] = []
        for which, enough in self.lists.stages(query):
            if which is None or len(which):
                found = _best_of(found, self._distinct(query, wanted, which))[:wanted]
            if len(found) == wanted and found[0][1] >= enough:
                return found
        return found if len(found) == wanted else self._distinct(query, wanted, None)

    def _best_items(self, cosines: FloatArray, wanted: int) -> list[tuple[int, float]]:
        """Return the nearest items by the cosine of every row, best first."""
        best = np.full(len(self.item_ids) + 1, -np.inf, np.float32)  # the last is of deleted rows
        np.maximum.at(best, self.row_item[: len(cosines)], cosines)
        order = np.argsort(-best[:-1], kind="stable")[:wanted]
        return list(zip(order.tolist(), best[order].tolist(), strict=True))

    def _distinct(self, query: FloatArray, wanted: int, which: NDArray[np.int64] | None) -> list[tuple[int, float]]:
        """Return the nearest items in some blocks (None: in all), best first: as many as wanted, if there are."""
        places = self.rows.places_in(which)
        count = max(_PROPOSED, 2 * wanted)
        while True:
            rows, scores = self._nearest_rows(query, min(count, places), which)
            best: dict[int, float] = {}
            for item, score in zip(self.row_item[rows].tolist(), scores.tolist(), strict=True):
                if item >= 0:
                    best.setdefault(item, score)
            if len(best) >= wanted or count >= places:
                return list(best.items())[:wanted]
            count *= 8

    def _nearest_rows(self, query: FloatArray, count: int, which: NDArray[np.int64] | None) -> tuple[Rows, FloatArray]:
        proposed = None if self.graph is None else self.graph.propose(query, count)
        return self.rows.nearest(query, count, which) if proposed is None else self.rows.scored(query, proposed)


def _best_of(some: list[tuple[int, float]], others: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the items of both, each with its better cosine, best first."""
    if not some:
        return others
    best = dict(sorted([*some, *others], key=lambda found: found[1]))
    return sorted(best.items(), key=lambda found: -found[1])


def _padded(row_item: NDArray[np.int32], rows: RowBlocks) -> NDArray[np.int32]:
    return np.pad(row_item, (0, rows.places - len(row_item)), constant_values=-1)


def joined(parts: Sequence[Part]) -> Part:
    """Return one part with the live rows and items of several."""
    if len(parts) == 1 and parts[0].items == len(parts[0].item_ids):
        return parts[0]
    live = [part.live for part in parts]
    kept = [np.unique(part.row_item[rows]) for part, rows in zip(parts, live, strict=True)]
    first = np.cumsum([0, *(len(items) for items in kept)])
    rows = RowBlocks.empty(sum(len(one) for one in live), parts[0].rows.dim)
    rows.fill(itertools.chain(*(part.rows.read(one) for part, one in zip(parts, live, strict=True))))
    numbers = [np.searchsorted(items, part.row_item[one]) for part, items, one in zip(parts, kept, live, strict=True)]
    row_item = np.concatenate([one + n for one, n in zip(numbers, first, strict=False)]).astype(np.int32)
    return Part(
        Texts.of(part.item_ids[item] for part, items in zip(parts, kept, strict=True) for item in items),
        Texts.of(part.labels[item] for part, items in zip(parts, kept, strict=True) for item in items),
        np.concatenate([part.negative[items] for part, items in zip(parts, kept, strict=True)]),
        rows,
        _padded(row_item, rows),
        int(first[-1]),
    )


def in_lists(part: Part, clustering: Clustering) -> Part:
    """Return a part without lists in the order of its lists."""
    live = part.live
    clustering = replace(clustering, list_of=clustering.list_of[live])
    order = live[clustering.order()]
    rows = RowBlocks.empty(len(order), part.rows.dim)
    rows.fill(part.rows.read(order))
    return replace(part, rows=rows, row_item=_padded(part.row_item[order], rows), lists=Lists(clustering))
