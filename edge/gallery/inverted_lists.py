"""Group the rows of a large category into lists of similar ones: a search reads a few lists instead of all rows.

An inverted file (Sivic and Zisserman 2003; Jégou et al. 2011): spherical k-means on a sample gives the centres, and a
row is in the list of its nearest centre. The less the best row found so far resembles a query, the more lists are read:
how many is measured when the lists are made, with queries whose nearest rows are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.gallery.row_blocks import SIZE, RowBlocks, Rows
from edge.types import FloatArray

MAX_LISTS = 2048  # a search reads fewer rows with more, but to make them each row is compared with each centre
_SAMPLE = 40  # rows of the sample for each list
_ROUNDS = 6  # of k-means
_QUERIES = 128  # of each kind, to measure
LEVELS = 8  # of resemblance
_RECALL = 0.99  # of the measured queries of each level
_MARGIN, _MIN_READ = 1.5, 4  # the second and third item may be in other lists
_MAX_READ = 0.25  # of the blocks: to read all in order takes a third of the time for each row
_LITTLE, _MUCH = (0.2, 1.0), (0.5, 2.0)  # noise of the measured queries, as a share of a row
_CHUNK = 8192  # rows that are compared at a time
_SEED = 1


@dataclass(frozen=True, slots=True)
class Clustering:
    """Which list each row is in, and how many lists a search reads."""

    centres: FloatArray  # (lists, dim) of unit length
    list_of: NDArray[np.uint16]  # (n,), the list of each row
    reads: tuple[int, ...]  # how many lists to read at first, and then in all, LEVELS numbers
    enough: tuple[float, ...]  # at this cosine of the best row, no more are read, LEVELS numbers

    def order(self) -> Rows:
        """Return the rows list by list."""
        return np.argsort(self.list_of, kind="stable")


class Lists:
    """Finds the blocks of the lists that are near to a query; the rows lie list by list in their blocks."""

    def __init__(self, clustering: Clustering) -> None:
        """Note where each list lies.

        Args:
            clustering: of the rows, which lie in its order.
        """
        ends = np.cumsum(np.bincount(clustering.list_of, minlength=len(clustering.centres)))
        starts = np.concatenate([[0], ends[:-1]])
        self._centres = clustering.centres
        self._steps = _steps(zip(clustering.reads, clustering.enough, strict=True))
        self._most_blocks = _MAX_READ * len(clustering.list_of) / SIZE
        self._spans = [
            range(start // SIZE, -(-end // SIZE)) if end > start else range(0)
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        ]

    def stages(self, query: FloatArray) -> Iterator[tuple[NDArray[np.int64] | None, float]]:
        """Yield blocks to search for a query, (dim,), and the cosine at which the best row is good enough to stop.

        All rows of the nearest lists are in them, beside some of their neighbours; no block is there twice. None stands
        for all blocks: it is faster to read all in order than many here and there.
        """
        scores = self._centres @ query
        searched: set[int] = set()
        for reads, enough in self._steps:
            nearest = np.argpartition(scores, len(scores) - reads)[len(scores) - reads :]
            blocks = {block for one in nearest.tolist() for block in self._spans[one]} - searched
            if len(blocks) > self._most_blocks:
                yield None, -2.0
                return
            searched |= blocks
            yield np.array(sorted(blocks), np.int64), enough


def _steps(levels: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Join levels that read less than twice as many lists as the first of them."""
    steps: list[tuple[int, float]] = []
    first = 0
    for reads, enough in levels:
        if steps and reads < 2 * first:
            steps.pop()
        else:
            first = reads
        steps.append((reads, enough))
    return steps


def cluster_rows(rows: RowBlocks, row_item: NDArray[np.int32]) -> Clustering:
    """Cluster rows, and measure how many lists a search must read. Places without a row are in any list.

    Args:
        rows: at least one.
        row_item: (places,), the item of each, -1 where there is no row.
    """
    live = np.flatnonzero(row_item >= 0)
    rng = np.random.default_rng(_SEED)
    count = min(MAX_LISTS, max(1, round(2 * len(live) ** 0.5)))
    sample = rng.choice(live, min(len(live), _SAMPLE * count), replace=False)
    centres = _k_means(_unit(rows.vectors(sample)), count, rng)
    probes = _Probes(rows, row_item, rng)
    list_of = np.empty(rows.places, np.uint16)
    for start, chunk in rows.chunks():
        part = slice(start, start + len(chunk))
        floats = chunk.astype(np.float32) * rows.weights.reshape(-1)[part, None]
        list_of[part] = (floats @ centres.T).argmax(axis=1)
        probes.compare(start, floats)
    return Clustering(centres, list_of, *probes.lists_to_read(centres, list_of))


class _Probes:
    """Queries whose nearest row is found exactly: rows with little noise, rows without their own items, and more noise.

    The first are like other pictures of an item. Those without their own items are like things that are not in the
    gallery, beside similar ones that are. The noise has the distribution of the rows in each component: it looks like a
    vector of the embedder of nothing in the gallery.
    """

    def __init__(self, rows: RowBlocks, row_item: NDArray[np.int32], rng: np.random.Generator) -> None:
        live = np.flatnonzero(row_item >= 0)
        places = rng.choice(live, min(len(live), _QUERIES), replace=False)
        own = _unit(rows.vectors(places))
        noise = [_unit(rng.permuted(own, axis=0)) for _ in range(4)]
        little, share = (np.linspace(*ends, len(own), dtype=np.float32)[:, None] for ends in (_LITTLE, _MUCH))
        kinds = (own, _unit(own + little * noise[3]), *(_unit(own + share * one) for one in noise[1:3]), noise[0])
        self._queries = np.concatenate(kinds)
        self._row_item, self._items = row_item, row_item[places]
        self._best = np.full(len(self._queries), -2.0, np.float32)
        self._nearest = np.zeros(len(self._queries), np.int64)

    def compare(self, start: int, floats: FloatArray) -> None:
        """Compare the queries with some rows, (n, dim), which begin at a place."""
        cosines = self._queries @ floats.T
        own = self._items[:, None] == self._row_item[start : start + len(floats)]
        cosines[: len(own)][own] = -1.0
        nearest = cosines.argmax(axis=1)
        best = np.take_along_axis(cosines, nearest[:, None], 1)[:, 0]
        better = best > self._best
        self._best[better], self._nearest[better] = best[better], nearest[better] + start

    def lists_to_read(
        self, centres: FloatArray, list_of: NDArray[np.uint16]
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Return `reads` and `enough` of a clustering: the queries in levels by the cosine of their nearest row."""
        scores = self._queries @ centres.T
        own = np.take_along_axis(scores, list_of[self._nearest].astype(np.int64)[:, None], 1)
        needed = (scores >= own).sum(axis=1)
        levels = np.array_split(np.argsort(-self._best), LEVELS)
        reads = [max(_MIN_READ, int(_MARGIN * np.quantile(needed[level], _RECALL))) for level in levels]
        enough = [float(self._best[level].min()) for level in levels[:-1]]
        return tuple(np.minimum(np.maximum.accumulate(reads), len(centres)).tolist()), (*enough, -2.0)


def _unit(rows: NDArray[np.generic]) -> FloatArray:
    floats = rows.astype(np.float32)
    lengths = np.linalg.norm(floats, axis=1, keepdims=True)
    return np.asarray(floats / np.maximum(lengths, 1e-9), np.float32)


def _k_means(sample: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """Return centres of unit length: spherical k-means (Dhillon and Modha 2001). An empty list takes a random row."""
    centres = sample[rng.choice(len(sample), count, replace=False)]
    for _ in range(_ROUNDS):
        parts = range(0, len(sample), _CHUNK)
        nearest = np.concatenate([(sample[i : i + _CHUNK] @ centres.T).argmax(axis=1) for i in parts])
        order, sizes = np.argsort(nearest, kind="stable"), np.bincount(nearest, minlength=count)
        filled = np.flatnonzero(sizes)
        starts = (np.cumsum(sizes) - sizes)[filled]
        sums = sample[rng.choice(len(sample), count)]
        sums[filled] = np.add.reduceat(sample[order], starts, axis=0)
        centres = _unit(sums)
    return centres
