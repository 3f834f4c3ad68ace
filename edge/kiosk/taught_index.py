"""Search taught items beside a gallery, and doubt those that other taught items are nearly as near as.

Taught items come without thresholds of their own: a bundle's are fitted on its own items, and an embedder that never
saw such things may put all of them close together. So a taught item is named only if it is clearly nearer than every
other one, by the ratio test (Lowe 2004): its angle to the query is at most MAX_RATIO of the angle of the nearest other
taught item. A ratio means the same in every embedding space. The angles are taken after whitening by how the views of
one picture differ (within-class covariance normalisation, Hatch et al. 2006): directions in which a picture of one
thing varies anyway count less.

Items of the gallery are no rivals in that test: the bundle knows them, and a taught item may well be their sibling.
Asking for the same lead over them took 4.4 of 92.5 right answers in a hundred on new items of the demo's world.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge.gallery.search import build_index, build_space_index
from edge.gallery.store import CategoryItems, quantise
from edge.inference.postprocess import unit_rows
from edge.kiosk.taught_embeddings import ItemEmbeddings
from edge.kiosk.taught_store import TaughtItem
from edge.recognition.loaded_models import LoadedModels, Search
from edge.types import FloatArray, Hit

MAX_RATIO = 0.85  # chosen on half of the items in benchmarks/taught_foreign.py
_SHRINKAGE = 1.0  # of the covariance of the views, towards a sphere of the same size: few views show few directions
_SMALLEST = 1e-9  # variance of the views: below it they are alike


class RatioTest:
    """Compares a query with the taught items of one embedding space."""

    def __init__(self, views: dict[str, FloatArray]) -> None:
        """Learn how the views of one picture differ.

        Args:
            views: by item, (pictures, views, dim), rows of unit length.
        """
        self._items = list(views)
        rows = [one.reshape(-1, one.shape[-1]) for one in views.values()]
        spread = np.concatenate([(v - v.mean(axis=1, keepdims=True)).reshape(-1, v.shape[-1]) for v in views.values()])
        self._whitening = _whitening(spread)
        self._rows = self._whiten(np.concatenate(rows))
        self._first = np.cumsum([0, *(len(one) for one in rows[:-1])])

    def rival_ratio(self, query: FloatArray, item: str) -> float:
        """Return the angle of an item over that of the nearest other one; 0 if there is no other.

        Args:
            query: (dim,) of unit length.
            item: one of the taught items.
        """
        cosines = np.maximum.reduceat(self._rows @ self._whiten(query[None])[0], self._first)
        others = np.delete(cosines, self._items.index(item))
        if not len(others):
            return 0.0
        return angle_ratio(float(cosines[self._items.index(item)]), float(others.max()))

    def _whiten(self, rows: FloatArray) -> FloatArray:
        return unit_rows(rows @ self._whitening)


def _whitening(spread: FloatArray) -> FloatArray:
    """Return the matrix, (dim, dim), after which differences as in the rows are equally large in every direction."""
    covariance = spread.T.astype(np.float64) @ spread / max(1, len(spread))
    size = float(np.trace(covariance)) / len(covariance)
    if size < _SMALLEST:
        return np.eye(len(covariance), dtype=np.float32)
    factor = np.linalg.cholesky(covariance / size + _SHRINKAGE * np.eye(len(covariance)))
    return np.asarray(np.linalg.inv(factor).T, np.float32)


def angle_ratio(cosine: float, other: float) -> float:
    """Return the angle of one cosine over the angle of another; 1 if the other is zero."""
    one_rad, other_rad = (float(np.arccos(np.clip(c, -1.0, 1.0))) for c in (cosine, other))
    return one_rad / other_rad if other_rad > 0 else 1.0


@dataclass(frozen=True, slots=True)
class WithTaught:
    """The gallery of one category together with the taught items."""

    base: Search | None  # None: the gallery has no such category
    taught: Search
    ratio_test: RatioTest | None = None  # of the taught items of the embedding space; None: none is doubted

    def search(self, queries: FloatArray, k: int) -> list[list[Hit]]:
        """Return the k nearest items of each (n, dim) unit row, best first."""
        base = self.base.search(queries, k) if self.base else [[] for _ in queries]
        return [
            self._merge(query, of_base, of_taught)[:k]
            for query, of_base, of_taught in zip(queries, base, self.taught.search(queries, k), strict=True)
        ]

    def _merge(self, query: FloatArray, base: Sequence[Hit], taught: Sequence[Hit]) -> list[Hit]:
        taught = [replace(hit, taught=True) for hit in taught]
        hits = sorted([*base, *taught], key=lambda hit: -hit.score)
        if self.ratio_test is None or not taught or hits[0] is not taught[0]:
            return hits
        ratio = self.ratio_test.rival_ratio(query, taught[0].item_id)
        return [replace(taught[0], ambiguous=ratio > MAX_RATIO), *hits[1:]]


def with_taught(base: LoadedModels, live: Mapping[TaughtItem, ItemEmbeddings]) -> LoadedModels:
    """Return models that search taught items, too.

    Args:
        base: the models without taught items.
        live: the items and their embeddings.
    """
    spaces: dict[str, dict[str, FloatArray]] = {}
    for item, one in live.items():
        for space_id, views in one.views.items():
            spaces.setdefault(space_id, {})[item.item_id] = views
    tests = {space_id: RatioTest(views) for space_id, views in spaces.items()}
    by_category: dict[str, dict[TaughtItem, FloatArray]] = {}
    for item, one in live.items():
        for category, rows in one.vectors.items():
            by_category.setdefault(category, {})[item] = rows
    indexes = {}
    for category, rows_of in by_category.items():
        taught = build_index(_items_of(rows_of))
        indexes[category] = WithTaught(base.indexes.get(category), taught, tests[base.space_ids[category]])
    return replace(base, indexes={**base.indexes, **indexes}, spaces=_spaces_with_taught(base, by_category))


def _spaces_with_taught(
    base: LoadedModels, by_category: Mapping[str, Mapping[TaughtItem, FloatArray]]
) -> dict[str, Search]:
    """Return the indexes of whole spaces with the taught items; there are none if a classifier names the category."""
    spaces: dict[str, dict[str, CategoryItems]] = {}
    for category, rows_of in by_category.items():
        spaces.setdefault(base.space_ids[category], {})[category] = _items_of(rows_of)
    if base.stages.classifier is not None:
        return base.spaces
    taught = {
        space_id: WithTaught(base.spaces.get(space_id), build_space_index(galleries))
        for space_id, galleries in spaces.items()
    }
    return {**base.spaces, **taught}


def _items_of(rows_of: Mapping[TaughtItem, FloatArray]) -> CategoryItems:
    vectors_i8, scales = quantise(np.concatenate(list(rows_of.values())))
    return CategoryItems(
        item_ids=tuple(item.item_id for item in rows_of),
        labels=tuple(item.label for item in rows_of),
        negative=np.array([item.negative for item in rows_of], np.bool_),
        vectors_i8=vectors_i8,
        scales=scales,
        row_item=np.repeat(np.arange(len(rows_of), dtype=np.int32), [len(rows) for rows in rows_of.values()]),
        heads=(),
    )
