"""Vectors of many rows in int8, laid out for one product: find the rows nearest to a query.

Rows this module keeps lie in blocks of 64, each transposed, so that one component of 64 rows is one line of cache. A
product of one query with such a block needs no copy of the rows in another layout: ONNX Runtime reads these arrays.

Rules this module keeps:
1. The int8 product only proposes rows. A score is always the float32 cosine of the query and the stored vector.
2. Arrays are never written to once they are in use: several indexes and threads may share them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge.gallery.search_onnx import BIAS_OF_DELETED, QUERY_ZERO, Scan, scan_graph, search_query
from edge.types import FloatArray

if TYPE_CHECKING:
    from edge.inference.onnxruntime_engine import OnnxRuntimeEngine

SIZE = 64  # rows of a block
# Up to so many blocks, float32 products are faster than the int8 product with rescoring: at 256 numbers 23 us of CPU
# time to 165 for 2 blocks, 60 to 210 for 8, 120 to 210 for 16; 24 and more take as long or longer.
_FEW_BLOCKS = 16
_BLOCKS_AT_ONCE = 4  # as float32 they fit the second cache: 256 KiB at 256 numbers
_CHUNK_BLOCKS = 64  # converted or copied at a time: 4,096 rows

Rows = NDArray[np.int64]


@functools.cache
def _scan(*, some: bool) -> OnnxRuntimeEngine:
    from edge.inference.onnxruntime_engine import open_session_from_bytes  # whoever only names a cache does not search

    return open_session_from_bytes(scan_graph(some=some), "gallery search")


@dataclass(frozen=True, slots=True)
class RowBlocks:
    """Rows of int8 vectors; their numbers are their places."""

    blocks: NDArray[np.int8]  # (blocks, dim, SIZE); unused places are zero
    weights: FloatArray  # (blocks, 1, SIZE), 1 / length of the int8 row; 0: unused or deleted
    biases: FloatArray  # (blocks, 1, SIZE), what takes QUERY_ZERO out of a product
    floats: FloatArray | None = None  # (n, dim), the vectors again if there are few

    @classmethod
    def of(cls, vectors_i8: NDArray[np.int8], order: Rows | None = None) -> RowBlocks:
        """Lay out rows.

        Args:
            vectors_i8: (n, dim), none of them zero.
            order: of the rows; None: as they are.
        """
        count, dim = vectors_i8.shape
        made = cls.empty(count, dim)
        for start in range(0, count, _CHUNK_BLOCKS * SIZE):
            part = slice(start, min(start + _CHUNK_BLOCKS * SIZE, count))
            made.put(start, vectors_i8[part] if order is None else vectors_i8[order[part]])
        if len(made.blocks) > _FEW_BLOCKS:
            return made
        return replace(made, floats=(vectors_i8 if order is None else vectors_i8[order]).astype(np.float32))

    @classmethod
    def empty(cls, count: int, dim: int) -> RowBlocks:
        """Return room for rows, to be filled by `put` before it is used."""
        number = -(-count // SIZE)
        shape = (number, 1, SIZE)
        blocks = np.empty((number, dim, SIZE), np.int8)
        blocks[-1:] = 0
        return cls(blocks, np.zeros(shape, np.float32), np.full(shape, BIAS_OF_DELETED, np.float32))

    def put(self, start: int, vectors_i8: NDArray[np.int8]) -> None:
        """Write rows to the places from `start` on, which begins a block."""
        count, dim = vectors_i8.shape
        first, whole = start // SIZE, count // SIZE
        self.blocks[first : first + whole] = vectors_i8[: whole * SIZE].reshape(whole, SIZE, dim).transpose(0, 2, 1)
        if rest := count - whole * SIZE:
            self.blocks[first + whole, :, :rest] = vectors_i8[whole * SIZE :].T
        floats = vectors_i8.astype(np.float32)
        # A row's scale cancels in its cosine; its int8 length does not.
        weights = 1.0 / np.sqrt(np.einsum("ij,ij->i", floats, floats))
        self.weights.reshape(-1)[start : start + count] = weights
        self.biases.reshape(-1)[start : start + count] = -QUERY_ZERO * weights * floats.sum(axis=1)

    def fill(self, chunks: Iterable[NDArray[np.int8]]) -> None:
        """Write chunks of rows one after the other, gathered to whole blocks."""
        start, rest = 0, np.empty((0, self.dim), np.int8)
        for chunk in chunks:
            rows = np.concatenate([rest, chunk]) if len(rest) else chunk
            whole = len(rows) // SIZE * SIZE
            self.put(start, rows[:whole])
            start, rest = start + whole, rows[whole:]
        self.put(start, rest)

    @property
    def places(self) -> int:
        """The number of places for rows, used or not."""
        return len(self.blocks) * SIZE

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self.blocks.shape[1])

    def without(self, rows: Rows) -> RowBlocks:
        """Return the same rows but some, which no search finds any more; the vectors are shared."""
        weights, biases = self.weights.copy(), self.biases.copy()
        weights.reshape(-1)[rows], biases.reshape(-1)[rows] = 0.0, BIAS_OF_DELETED
        return replace(self, weights=weights, biases=biases)

    def vectors(self, rows: Rows) -> NDArray[np.int8]:
        """Return rows, (n, dim)."""
        starts = rows // SIZE * (SIZE * self.dim) + rows % SIZE
        taken: NDArray[np.int8] = self.blocks.reshape(-1).take(starts[:, None] + np.arange(self.dim) * SIZE)
        return taken

    def read(self, rows: Rows) -> Iterator[NDArray[np.int8]]:
        """Yield rows, some thousand at a time."""
        for start in range(0, len(rows), _CHUNK_BLOCKS * SIZE):
            yield self.vectors(rows[start : start + _CHUNK_BLOCKS * SIZE])

    def places_in(self, which: NDArray[np.int64] | None) -> int:
        """Return the number of places in some blocks, None for all."""
        number: int = len(self.blocks) if which is None else len(which)
        return number * SIZE

    def chunks(self) -> Iterator[tuple[int, NDArray[np.int8]]]:
        """Yield all places in order, some thousand at a time: the first place and the rows, (n, dim)."""
        for first in range(0, len(self.blocks), _CHUNK_BLOCKS):
            part = self.blocks[first : first + _CHUNK_BLOCKS]
            yield first * SIZE, np.ascontiguousarray(part.transpose(0, 2, 1)).reshape(-1, self.dim)

    def cosines(self, query: FloatArray) -> FloatArray | None:
        """Return the cosine of a query, (dim,) of unit length, and each row, (n,); None if there are many."""
        return None if self.floats is None else (self.floats @ query) * self.weights.reshape(-1)[: len(self.floats)]

    def nearest(self, query: FloatArray, count: int, which: NDArray[np.int64] | None = None) -> tuple[Rows, FloatArray]:
        """Return the rows nearest to a query and their cosines, best first; places without a row may come last.

        Args:
            query: (dim,) of unit length.
            count: how many rows; fewer, if there are fewer.
            which: blocks to search; None: all.
        """
        places = self.places_in(which)
        if places <= _FEW_BLOCKS * SIZE:
            rows, scores = self._few(query, np.arange(len(self.blocks)) if which is None else which)
            return _best(rows, scores, count)
        feeds: dict[str, NDArray[np.generic]] = {
            Scan.QUERY: search_query(query)[None],
            Scan.BLOCKS: self.blocks,
            Scan.WEIGHTS: self.weights,
            Scan.BIASES: self.biases,
            Scan.COUNT: np.array([min(count, places)], np.int64),
        }
        if which is not None:
            feeds[Scan.WHICH] = which
        rows = _scan(some=which is not None).run_named(feeds)[0].astype(np.int64)
        if which is not None:
            rows = which[rows // SIZE] * SIZE + rows % SIZE
        return self.scored(query, rows)

    def scored(self, query: FloatArray, rows: Rows) -> tuple[Rows, FloatArray]:
        """Return rows and their cosines with a query, (dim,) of unit length, best first."""
        scores = (self.vectors(rows).astype(np.float32) @ query) * self.weights.reshape(-1)[rows]
        return _best(rows, scores, len(rows))

    def _few(self, query: FloatArray, which: NDArray[np.int64]) -> tuple[Rows, FloatArray]:
        """Return all rows of a few blocks and their cosines."""
        parts = [which[start : start + _BLOCKS_AT_ONCE] for start in range(0, len(which), _BLOCKS_AT_ONCE)]
        products = np.concatenate([np.matmul(query, self.blocks[part]) for part in parts])
        rows = (which[:, None] * SIZE + np.arange(SIZE)).reshape(-1)
        return rows, (products * self.weights[which, 0]).reshape(-1)


def _best(rows: Rows, scores: FloatArray, count: int) -> tuple[Rows, FloatArray]:
    order = np.argsort(-scores, kind="stable")[:count]
    return rows[order], scores[order]
