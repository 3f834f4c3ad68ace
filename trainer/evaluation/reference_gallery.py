"""The gallery of one category under evaluation, and the search that leaves out a query's own picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.bundle.bundle import read_bundle
from edge.gallery.attributes import Attributes
from edge.gallery.generation import read_gallery
from edge.gallery.item_vectors import shrink_to_centroid
from edge.gallery.store import CategoryItems, read_category
from edge.manifest.embedder import EmbedderModel
from edge.types import FloatArray, Image

_CELLS = 2**24  # most cosines in memory at a time: 64 MB
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class ReferenceGallery:
    """The gallery of one category."""

    vectors: FloatArray  # (n, dim), rows of unit length
    items: tuple[str, ...]  # item of each row
    picture: Callable[[str], Image | None]  # returns the picture of an item, for the report
    ids: Ids | None = None  # (n,) which picture each row shows; None: unknown, so that no row is left out
    unshrunk: FloatArray | None = None  # (n, dim) before they were shrunk to their centroids; None: they were not
    gathering: float = 0.0  # how far they were shrunk
    cameras: tuple[str, ...] = ()  # which camera took the picture of each row; empty: unknown
    attributes: Mapping[str, Attributes] = field(default_factory=dict)  # of the items that have any

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The items, sorted."""
        return tuple(sorted(set(self.items)))

    @cached_property
    def item_numbers(self) -> NDArray[np.int64]:
        """The place in `names` of each row's item: (n,)."""
        place = {name: number for number, name in enumerate(self.names)}
        return np.array([place[item] for item in self.items], np.int64)

    def chunks(self, count: int) -> Iterator[slice]:
        """Divide the rows of queries so that their cosines fit in memory."""
        step = max(1, _CELLS // max(1, len(self.items)))
        return (slice(start, start + step) for start in range(0, count, step))

    def similar(self, vectors: FloatArray, ids: Ids) -> FloatArray:
        """Return the cosines of queries with every row, -inf where the row shows the query's own picture.

        Where rows are shrunk to their centroid, a query's own picture is left out of that centroid, too.

        Args:
            vectors: (queries, dim), rows of unit length.
            ids: (queries,) which picture each query is.

        Returns:
            (queries, n) float32.
        """
        found = np.asarray(vectors @ self.vectors.T, np.float32)
        for row, number in enumerate(ids.tolist()):
            own = self._rows_of.get(number)
            if own is None:
                continue
            if self.unshrunk is not None:
                for item in set(self.item_numbers[own].tolist()):
                    rest = np.setdiff1d(self._rows_of_item[item], own)
                    again = shrink_to_centroid(self.unshrunk[rest], [""] * len(rest), self.gathering)
                    found[row, rest] = again @ vectors[row]
            found[row, own] = -np.inf
        return found

    def best_by_item(self, similar: FloatArray) -> FloatArray:
        """Return the best cosine of each item, in the order of `names`: (queries, items)."""
        order = np.argsort(self.item_numbers, kind="stable")
        starts = np.searchsorted(self.item_numbers[order], np.arange(len(self.names)))
        return np.asarray(np.maximum.reduceat(similar[:, order], starts, axis=1), np.float32)

    def shows(self, item: str, number: int) -> bool:
        """Return whether a row shows an item by another picture than the query's own."""
        return self._pictures[item] > self._own_pictures[item, number]

    @cached_property
    def _rows_of(self) -> dict[int, NDArray[np.int64]]:
        return {} if self.ids is None else _rows_by_value(self.ids)

    @cached_property
    def _rows_of_item(self) -> dict[int, NDArray[np.int64]]:
        return _rows_by_value(self.item_numbers)

    @cached_property
    def _pictures(self) -> Counter[str]:
        return Counter(self.items)

    @cached_property
    def _own_pictures(self) -> Counter[tuple[str, int]]:
        return Counter(zip(self.items, [] if self.ids is None else self.ids.tolist(), strict=False))


def stored_items(bundle: Path, gallery: Path) -> Iterator[tuple[str, EmbedderModel, CategoryItems]]:
    """Yield each category of a gallery that a bundle can search, with its embedder and its items as stored.

    Raises:
        BundleError, GalleryError: bundle or gallery is unusable.
    """
    manifest, generation = read_bundle(bundle, verify=False).manifest, read_gallery(gallery, verify=False)
    for model in manifest.embedders:
        for category in model.categories:
            if category in generation.categories:
                yield category, model, read_category(generation.path(category), model.space_id, model.dim)


def _rows_by_value(values: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    order = np.argsort(values, kind="stable")
    found, starts = np.unique(values[order], return_index=True)
    return dict(zip(found.tolist(), np.split(order, starts[1:]), strict=True))
