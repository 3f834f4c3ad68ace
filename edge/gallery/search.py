"""Search the nearest items of one category: an exact int8 product, or an HNSW graph for very many rows.

Rules this module keeps:
1. Both methods only propose rows. A score is always the float32 cosine of the query and the stored vectors, so a
   threshold means the same on either side of the crossover.
2. An index is built in memory from the vectors, with a fixed seed on one thread. No index file is ever read: a damaged
   one crashes the process inside hnswlib (hnswlib #673).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import hnswlib
import numpy as np
from numpy.typing import NDArray

from edge.errors import GalleryError
from edge.gallery.limits import NEGATIVE
from edge.gallery.search_onnx import COUNT, QUERY, search_graph, search_query
from edge.gallery.store import CategoryItems
from edge.inference.onnxruntime_engine import open_session_from_bytes
from edge.types import FloatArray, Hit

log = logging.getLogger(__name__)

# benchmarks/results/search.json: at 50 000 rows HNSW is faster at any length (0.25 ms to 0.36 at 128 numbers,
# 0.36 to 1.26 at 384). At 20 000 it saves 0.04 ms at most, for a build of 4 to 8 s at every start.
CROSSOVER_ROWS = 50_000
# Up to this many rows, one float32 product is faster than the int8 product with rescoring: at 192
# numbers 64 us to 234 for 84 rows, 159 to 305 for 2 640, 420 to 298 for 8 000.
_ALL_ROWS = 4096
_PROPOSED = 32  # rows to rescore: recall@1 is 1.000; the int8 order alone gives .94-.95
_HNSW_M, _HNSW_EF_BUILD, _HNSW_EF, _HNSW_SEED = 16, 200, 64, 1

Rows = NDArray[np.int64]


class Index:
    """The vectors of a category, grouped by item. This class proposes every row; its subclasses propose a few."""

    def __init__(self, items: CategoryItems, best_of: int) -> None:
        order = np.argsort(items.row_item, kind="stable")
        self._items = items
        self._best_of = best_of
        self._vectors_i8 = np.ascontiguousarray(items.vectors_i8[order])
        self._row_item = items.row_item[order]
        # A row's scale cancels in its cosine; its int8 length does not.
        self._weights = (1.0 / np.linalg.norm(self._vectors_i8.astype(np.float32), axis=1)).astype(np.float32)
        self._count: int = self._vectors_i8.shape[0]
        self._dim: int = self._vectors_i8.shape[1]
        self._first = np.searchsorted(self._row_item, np.arange(len(items.item_ids) + 1))
        self._most: int = int(np.diff(self._first).max(initial=1))
        self._negative = [bool(metadata.get(NEGATIVE)) for metadata in items.metadata]

    def search(self, queries: FloatArray, k: int) -> list[list[Hit]]:
        """Return the k nearest items of each query, or all items if there are fewer.

        Args:
            queries: (n, dim) float32.
            k: how many items.

        Raises:
            GalleryError: a query has the wrong length, is zero, or is not finite.
        """
        if k < 1 or self._count == 0:
            return [[] for _ in queries]
        return self._nearest(self._unit(queries), k)

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self._dim

    def sample(self, most: int) -> tuple[FloatArray, list[str]]:
        """Return at most so many of the stored vectors, (n, dim) of unit length, and the item id of each."""
        rows = np.unique(np.linspace(0, self._count - 1, min(most, self._count)).astype(np.int64))
        vectors = self._vectors_i8[rows].astype(np.float32) * self._weights[rows, None]
        return vectors, [self._items.item_ids[item] for item in self._row_item[rows]]

    def _nearest(self, unit: FloatArray, k: int) -> list[list[Hit]]:
        return [self._hits(query, self._propose(query, k), k) for query in unit]

    def _propose(self, query: FloatArray, k: int) -> Rows:  # noqa: ARG002  subclasses need both
        """Return rows that include those of the k nearest items of a query."""
        return np.arange(self._count)

    def _unit(self, queries: FloatArray) -> FloatArray:
        """Check queries and scale them to unit length."""
        if queries.ndim != 2 or queries.shape[1] != self._dim:
            raise GalleryError(f"found queries of shape {queries.shape}, expected (n, {self._dim})")
        lengths = np.linalg.norm(queries, axis=1, keepdims=True)
        if not np.all(np.isfinite(lengths) & (lengths > 0)):
            raise GalleryError(f"queries have lengths {lengths.ravel().tolist()}; give finite vectors other than zero")
        unit: FloatArray = (queries / lengths).astype(np.float32)
        return unit

    def _needed(self, k: int) -> int:
        """Return how many rows to propose so that they cover k items, however many rows an item has."""
        return min(self._count, max(_PROPOSED, k * self._most + _PROPOSED // 2))

    def _best_items(self, scores: FloatArray, k: int) -> list[Hit]:
        """Return hits from the scores of all rows: each item by its best row, best item first."""
        best = np.full(len(self._items.item_ids), -1.0, np.float32)
        np.maximum.at(best, self._row_item, scores)
        order = np.argsort(-best, kind="stable")[:k].tolist()
        return [self._hit(i, min(float(best[i]), 1.0)) for i in order]

    def _hit(self, item: int, score: float) -> Hit:
        return Hit(self._items.item_ids[item], self._items.labels[item], score, self._negative[item])

    def _hits(self, query: FloatArray, proposed: Rows, k: int) -> list[Hit]:
        """Score the items of the proposed rows exactly, by the mean of each item's best rows, best item first."""
        if self._best_of > 1:
            spans = [np.arange(self._first[i], self._first[i + 1]) for i in np.unique(self._row_item[proposed])]
            proposed = np.concatenate(spans)
        scores = (self._vectors_i8[proposed].astype(np.float32) @ query) * self._weights[proposed]
        order = np.argsort(-scores, kind="stable")
        best: dict[int, list[float]] = {}  # by item, its best scores, descending
        for item, score in zip(self._row_item[proposed[order]].tolist(), scores[order].tolist(), strict=True):
            kept = best.setdefault(item, [])
            if len(kept) < self._best_of:
                kept.append(min(score, 1.0))
        ranked = sorted(((sum(kept) / len(kept), item) for item, kept in best.items()), key=lambda pair: -pair[0])
        return [self._hit(item, score) for score, item in ranked[:k]]


class ExactIndex(Index):
    """Compares a query with every row in one matrix product, in int8 where there are many rows."""

    def __init__(self, items: CategoryItems, best_of: int = 1, threads: int = 1) -> None:
        """Prepare the matrix.

        Args:
            items: live items.
            best_of: an item's score is the mean of this many of its best vectors.
            threads: for the product.

        Raises:
            EngineError: the runtime cannot load the product.
        """
        super().__init__(items, best_of)
        self._session: Any = None
        self._small = self._count <= _ALL_ROWS and best_of == 1
        if self._small:
            self._unit_rows = self._vectors_i8.astype(np.float32) * self._weights[:, None]
        elif self._count:
            graph = search_graph(self._vectors_i8, self._weights)
            self._session = open_session_from_bytes(graph, "exact search", threads)

    def _nearest(self, unit: FloatArray, k: int) -> list[list[Hit]]:
        if self._small:
            return [self._best_items(scores, k) for scores in unit @ self._unit_rows.T]
        return super()._nearest(unit, k)

    def _propose(self, query: FloatArray, k: int) -> Rows:
        count = np.array([self._needed(k)], np.int64)
        rows: Rows = self._session.run_named({QUERY: search_query(query), COUNT: count})[0][0].astype(np.int64)
        return rows


class HnswIndex(Index):
    """Searches an HNSW graph: finds nearly all nearest rows in nearly constant time."""

    def __init__(self, items: CategoryItems, best_of: int = 1) -> None:
        """Build the graph.

        Args:
            items: live items.
            best_of: an item's score is the mean of this many of its best vectors.
        """
        super().__init__(items, best_of)
        self._graph: Any = hnswlib.Index(space="ip", dim=self._dim)
        self._graph.init_index(max(1, self._count), ef_construction=_HNSW_EF_BUILD, M=_HNSW_M, random_seed=_HNSW_SEED)
        self._graph.set_num_threads(1)
        if self._count:
            self._graph.add_items(self._vectors_i8.astype(np.float32) * self._weights[:, None])

    def _propose(self, query: FloatArray, k: int) -> Rows:
        needed = self._needed(k)
        for ef in (max(_HNSW_EF, needed), self._count):
            self._graph.set_ef(ef)
            try:
                rows: Rows = self._graph.knn_query(query[None], k=needed)[0][0].astype(np.int64)
            except RuntimeError:  # the search ended early and reached fewer rows than k (hnswlib #321)
                log.warning("HNSW search with ef %s reached fewer than %s rows", ef, needed)
            else:
                return rows
        return super()._propose(query, k)


def build_index(items: CategoryItems, best_of: int = 1, crossover_rows: int = CROSSOVER_ROWS) -> Index:
    """Build the index of a category: exact below the crossover, HNSW from it on.

    Args:
        items: live items.
        best_of: an item's score is the mean of this many of its best vectors.
        crossover_rows: measured by `benchmarks/search.py`.

    Raises:
        EngineError: the runtime cannot load the exact product.
    """
    if len(items.row_item) < crossover_rows:
        return ExactIndex(items, best_of)
    return HnswIndex(items, best_of)


def build_space_index(galleries: Mapping[str, CategoryItems]) -> Index:
    """Build one index of the items of several categories of one embedding space; a hit's label is its category.

    Args:
        galleries: live items by category, with vectors of the same space.

    Raises:
        EngineError: the runtime cannot load the exact product.
    """
    first = np.cumsum([0, *(len(items.item_ids) for items in galleries.values())])
    return build_index(
        CategoryItems(
            item_ids=tuple(item for items in galleries.values() for item in items.item_ids),
            labels=tuple(category for category, items in galleries.items() for _ in items.item_ids),
            metadata=tuple(one for items in galleries.values() for one in items.metadata),
            vectors_i8=np.concatenate([items.vectors_i8 for items in galleries.values()]),
            scales=np.concatenate([items.scales for items in galleries.values()]),
            row_item=np.concatenate([i.row_item + n for i, n in zip(galleries.values(), first[:-1], strict=True)]),
            heads=(),
        )
    )
