"""Search the nearest items of one category: every row of a small one, the nearest inverted lists of a large one.

Rules this module keeps:
1. A score is always the float32 cosine of the query and a stored vector of the item: the nearest of those that were
   proposed, whatever proposed them. So a threshold means the same with any number of rows.
2. An index answers from the moment it is made. Lists are built beside it and take over between two searches.
3. An index that changes is a new one. It shares the vectors with the old one, which stays as it was.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from edge.errors import GalleryError
from edge.gallery.index_cache import IndexCache
from edge.gallery.index_part import Graph, Part, in_lists, joined
from edge.gallery.inverted_lists import cluster_rows
from edge.gallery.store import CategoryItems
from edge.gallery.texts import Texts
from edge.types import FloatArray, Hit

IndexKind = Literal["auto", "exact", "hnsw"]

# Rows. With 5,000, lists save up to 0.1 ms for queries that resemble an item, and cost 0.45 ms for others
# (benchmarks/results/search.json).
LISTS_FROM = 16_384
_MAX_CHANGED = 0.1  # of the rows: with more, the lists are built again
_MIN_CHANGED = 2048  # rows


class Index:
    """The vectors of a category, grouped by item."""

    def __init__(
        self, parts: Sequence[Part], dim: int, kind: IndexKind = "auto", cache: IndexCache | None = None, key: str = ""
    ) -> None:
        """See `build_index`."""
        self._parts = tuple(parts)  # replaced as a whole: a search takes it once
        self._dim = dim
        self._kind: IndexKind = kind
        self._cache, self._key = cache, key
        self._building = threading.Lock()

    def search(self, queries: FloatArray, k: int) -> list[list[Hit]]:
        """Return the k nearest items of each query, or all items if there are fewer.

        Args:
            queries: (n, dim) float32.
            k: how many items.

        Raises:
            GalleryError: a query has the wrong length, is zero, or is not finite.
        """
        parts = [part for part in self._parts if part.items]
        if k < 1 or not parts:
            return [[] for _ in queries]
        if queries.ndim != 2 or queries.shape[1] != self._dim:
            raise GalleryError(f"found queries of shape {queries.shape}, expected (n, {self._dim})")
        return [_merged([_hits(part, query, k) for part in parts], k) for query in map(_unit, queries)]

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self._dim

    @property
    def method(self) -> str:
        """How this index searches now: "exact", "lists" or "hnsw"."""
        main = self._parts[0]
        return "lists" if main.lists is not None else "exact" if main.graph is None else "hnsw"

    @property
    def needs_lists(self) -> bool:
        """Whether lists (or a graph) are wanted: it is large, and has none or much changed since they were built."""
        main, *added = parts = self._parts
        if self._kind == "exact" or sum(len(part.live) for part in parts) < LISTS_FROM:
            return False
        if main.lists is None and main.graph is None:
            return True
        changed = main.rows.places - len(main.live) + sum(part.rows.places for part in added)
        return changed > max(_MIN_CHANGED, _MAX_CHANGED * main.rows.places)

    def build_lists(self) -> None:
        """Build the lists (or the graph) if they are needed, write them to the cache, and use them from then on.

        Lists take 2 s of CPU time for 100,000 rows, a graph minutes. Any thread may call it while others search.
        """
        with self._building:
            if not self.needs_lists:
                return
            main = joined(self._parts)
            if self._kind == "hnsw":
                self._parts = (replace(main, graph=_graph(main, self._cache, self._key)),)
                return
            clustering = cluster_rows(main.rows, main.row_item)
            if self._cache is not None and self._key:
                self._cache.write(self._key, replace(clustering, list_of=clustering.list_of[main.live]))
            self._parts = (in_lists(main, clustering),)

    def changed(self, removed: Collection[str], added: CategoryItems) -> Index:
        """Return an index without some items and with others. It shares the vectors of all other items.

        Args:
            removed: ids; those that are not there are ignored.
            added: items, which replace those of the same id.
        """
        gone = {*removed, *added.item_ids}
        main, *tail = (part.without(gone) for part in self._parts)
        parts = [part for part in (*tail, Part.of(added)) if part.items]
        return Index([main, *([joined(parts)] if parts else [])], self._dim, self._kind)

    def sample(self, most: int) -> tuple[FloatArray, list[str]]:
        """Return at most so many of the stored vectors, (n, dim) of unit length, and the item id of each."""
        vectors, item_ids = [np.zeros((0, self._dim), np.float32)], []
        for part in self._parts:
            share = most * part.items // max(1, sum(one.items for one in self._parts))
            rows = part.live[np.unique(np.linspace(0, len(part.live) - 1, min(share, len(part.live))).astype(np.int64))]
            vectors.append(part.rows.vectors(rows) * part.rows.weights.reshape(-1)[rows, None])
            item_ids += [part.item_ids[item] for item in part.row_item[rows]]
        return np.concatenate(vectors), item_ids


def _unit(query: FloatArray) -> FloatArray:
    """Check a query and scale it to unit length."""
    length = math.sqrt(float(query @ query))
    if not 0 < length < math.inf:
        raise GalleryError(f"found a query of length {length}; give finite vectors other than zero")
    return np.asarray(query / np.float32(length), np.float32)


def _hits(part: Part, query: FloatArray, k: int) -> list[Hit]:
    return [
        Hit(part.item_ids[item], part.labels[item], min(score, 1.0), bool(part.negative[item]))
        for item, score in part.nearest(query, k)
    ]


def _merged(found: Sequence[list[Hit]], k: int) -> list[Hit]:
    """Return the k best of several lists of hits, each best first."""
    return found[0] if len(found) == 1 else sorted(itertools.chain(*found), key=lambda hit: -hit.score)[:k]


def _graph(part: Part, cache: IndexCache | None, key: str) -> Graph:
    """Return the graph of a part whose rows are all live: from the cache, or built and written there."""
    from edge.gallery.hnsw_graph import HnswGraph, open_graph

    count = len(part.live)
    if cache is None or not key:
        return HnswGraph.of(part.rows, count)
    if (opened := open_graph(cache.graph_path(key), key, count, part.rows.dim)) is not None:
        cache.counts.add("gallery_cache", result="hit")
        return opened
    cache.counts.add("gallery_cache", result="miss")
    graph = HnswGraph.of(part.rows, count)
    cache.write_graph(key, graph.save)
    return graph


def build_index(
    items: CategoryItems, kind: IndexKind = "auto", *, cache: IndexCache | None = None, key: str = ""
) -> Index:
    """Build the index of a category. A large one has its lists at once if they are in the cache, else `needs_lists`.

    Args:
        items: live items; the index keeps no reference to their vectors.
        kind: how to search a large category: by inverted lists (auto), by reading every row, or by an HNSW graph.
        cache: where lists are kept.
        key: names the rows and their order in the cache: the hash of the store and what else changes them. "":
            the lists are neither read nor written.
    """
    dim, count = items.vectors_i8.shape[1], len(items.row_item)
    is_cached = cache is not None and key and count >= LISTS_FROM and kind == "auto"
    clustering = cache.read(key, count, dim) if is_cached and cache is not None else None
    return Index([Part.of(items, clustering)], dim, kind, cache, key)


class SpaceIndex:
    """Searches several categories of one embedding space; a hit's label is its category."""

    def __init__(self, indexes: Iterable[tuple[str, Index]]) -> None:
        """Search these.

        Args:
            indexes: each with the category of its items; "": its labels are categories already.
        """
        self._indexes = tuple(indexes)

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self._indexes[0][1].dim

    @property
    def needs_lists(self) -> bool:
        """As `Index.needs_lists`."""
        return any(index.needs_lists for _, index in self._indexes)

    def build_lists(self) -> None:
        """As `Index.build_lists`."""
        for _, index in self._indexes:
            index.build_lists()

    @property
    def method(self) -> str:
        """How this index searches now: as its least exact part, see `Index.method`."""
        return max(index.method for _, index in self._indexes)

    def search(self, queries: FloatArray, k: int) -> list[list[Hit]]:
        """Return the k nearest items of each query; as `Index.search`."""
        found = [
            [[replace(hit, label=category) if category else hit for hit in hits] for hits in index.search(queries, k)]
            for category, index in self._indexes
        ]
        return [_merged([hits[number] for hits in found], k) for number in range(len(queries))]

    def sample(self, most: int) -> tuple[FloatArray, list[str]]:
        """Return some of the vectors and the item id of each; as `Index.sample`."""
        samples = [index.sample(most // len(self._indexes)) for _, index in self._indexes]
        return np.concatenate([vectors for vectors, _ in samples]), [one for _, item_ids in samples for one in item_ids]


def build_space_index(
    galleries: Mapping[str, CategoryItems], indexes: Mapping[str, Index] | None = None, kind: IndexKind = "auto"
) -> SpaceIndex:
    """Build one index of the items of several categories of one embedding space; a hit's label is its category.

    Args:
        galleries: live items by category, with vectors of the same space; those with an index are not needed.
        indexes: of large categories, which are searched as they are: their vectors are not held twice.
        kind: how to search the others, if they are many together.
    """
    large = [] if indexes is None else list(indexes.items())
    small = {category: items for category, items in galleries.items() if category not in dict(large)}
    if not small:
        return SpaceIndex(large)
    first = np.cumsum([0, *(len(items.item_ids) for items in small.values())])
    together = CategoryItems(
        item_ids=Texts.of(item for items in small.values() for item in items.item_ids),
        labels=Texts.of(category for category, items in small.items() for _ in items.item_ids),
        negative=np.concatenate([items.negative for items in small.values()]),
        vectors_i8=np.concatenate([items.vectors_i8 for items in small.values()]),
        scales=np.concatenate([items.scales for items in small.values()]),
        row_item=np.concatenate([i.row_item + n for i, n in zip(small.values(), first, strict=False)]),
        heads=(),
    )
    return SpaceIndex([*large, ("", build_index(together, kind))])
