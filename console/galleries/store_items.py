"""Reads all items of a store for the index: what a page lists of each, and the mean of its vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from console.galleries.lookalikes import item_means
from edge.gallery.store import read_category
from edge.gallery.store_file import open_store
from gallery_sync.formats.documents import SpaceLog


@dataclass(frozen=True, slots=True)
class StoredItem:
    """One item, as the index has it."""

    key: str  # to sort by
    item: str
    label: str
    vectors: int
    negative: bool
    thumbnail: bool  # whether it has one
    place: int  # in the store
    changed: int  # gallery sequence
    rows: tuple[int, int]  # its vectors lie between these rows of the store


def read_items(
    path: Path, space: SpaceLog, changed: Mapping[str, int], progress: Callable[[int], None]
) -> tuple[list[StoredItem], NDArray[np.int8]]:
    """Read the items of a store, and the mean of the vectors of each, (items, dim).

    Args:
        path: of the store.
        space: its embedding space.
        changed: gallery sequence of the newest change, of the items that changed since the first base.
        progress: called with the number of items that are read.

    Raises:
        GalleryError: the store is damaged.
    """
    read = read_category(path, space.space_id, sum(head.dim for head in space.heads))
    progress(0)
    with open_store(path) as store:
        query = "SELECT item_id, min(row), max(row) FROM vectors GROUP BY item_id"
        places = {row[0]: (row[1], row[2]) for row in store.execute(query)}
        query = "SELECT item_id FROM items WHERE thumbnail IS NOT NULL AND deleted = 0"
        pictured = {row[0] for row in store.execute(query)}
    starts = np.searchsorted(read.row_item, np.arange(len(read.item_ids)))
    counts = np.diff(np.append(starts, len(read.row_item)))
    first = space.bases[0].sequence
    items = [
        StoredItem(
            label.casefold(), item, label, int(counts[place]), bool(read.negative[place]), item in pictured, place,
            changed.get(item, first), places[item],
        )
        for place, (item, label) in enumerate(zip(read.item_ids, read.labels, strict=True))
    ]  # fmt: skip
    progress(len(items))
    return items, item_means(read.vectors_i8, read.scales, starts)
