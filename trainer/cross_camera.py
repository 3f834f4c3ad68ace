"""The protocol of vehicle re-identification: a vehicle is found again by another camera. Pure numpy.

Rules of the protocol (Zheng et al. 2015, Liu et al. 2016):
1. A gallery picture of the query's vehicle by the query's camera is junk: it is not searched.
2. Everything else is searched, other vehicles by the same camera, too.
3. A query whose vehicle no other camera saw cannot be found, and is no query.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.inference.postprocess import unit_rows
from edge.types import FloatArray
from trainer.metrics import Items, Ranked, average_precision_at, rank, recall_at

CMC_AT = (1, 5, 10)
_CELLS = 2**24  # most cosines in memory at a time
NAMES = ("mAP", "mAP trapezoid", *(f"CMC@{k}" for k in CMC_AT))


@dataclass(frozen=True, slots=True)
class Views:
    """Pictures of vehicles."""

    vectors: FloatArray  # (n, d), of any length
    items: Items  # (n,) the vehicle of each
    cameras: Items  # (n,) the camera of each

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.vectors)


def without_own_camera(
    similar: FloatArray, query_items: Items, query_cameras: Items, gallery_items: Items, gallery_cameras: Items
) -> FloatArray:
    """Return cosines (queries, gallery) with -inf where a row shows the query's vehicle by the query's camera."""
    same_item = np.asarray(query_items)[:, None] == np.asarray(gallery_items)
    same_camera = np.asarray(query_cameras)[:, None] == np.asarray(gallery_cameras)
    return np.asarray(np.where(same_item & same_camera, np.float32(-np.inf), similar), np.float32)


def measures_across_cameras(ranked: Ranked) -> dict[str, NDArray[np.float64]]:
    """Return the measures of each query that can be found, by name: `NAMES`.

    mAP is the mean precision at the hits of the whole ranking, as in current work; `mAP trapezoid` is the area under
    precision over recall as VeRi's own MATLAB code sums it, which is a little smaller. CMC@K is 1 if the vehicle is
    among the K nearest.

    Args:
        ranked: the whole gallery, ranked for each query; junk is not searched.
    """
    kept = ranked.relevant > 0
    some = Ranked(ranked.hits[kept], ranked.relevant[kept], ranked.searched[kept])
    cmc = [recall_at(some, k) for k in CMC_AT]
    whole = average_precision_at(some, max(1, some.hits.shape[1]), per="possible")
    return dict(zip(NAMES, [whole, _trapezoid(some), *cmc], strict=True))


def _trapezoid(ranked: Ranked) -> NDArray[np.float64]:
    """Return the mean over the hits of each query of the precision at the hit and at the rank before."""
    hits = ranked.hits
    found = np.cumsum(hits, axis=1)
    precision = found / np.arange(1, hits.shape[1] + 1)
    before = np.concatenate([np.ones((len(hits), 1)), precision[:, :-1]], axis=1)
    total = ((precision + before) / 2 * hits).sum(axis=1)
    return np.asarray(total / np.maximum(ranked.relevant, 1), np.float64)


def across_cameras(queries: Views, gallery: Views) -> dict[str, float]:
    """Return the mean measures of queries in a gallery, see `measures_across_cameras`; empty if none can be found."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    rows = unit_rows(gallery.vectors)
    for part in _chunks(len(queries), len(gallery)):
        similar = np.asarray(unit_rows(queries.vectors[part]) @ rows.T, np.float32)
        items, cameras = np.asarray(queries.items)[part], np.asarray(queries.cameras)[part]
        similar = without_own_camera(similar, items, cameras, gallery.items, gallery.cameras)
        for name, values in measures_across_cameras(rank(similar, items, gallery.items)).items():
            found.setdefault(name, []).append(values)
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    return {name: float(values.mean()) for name, values in joined.items() if len(values)}


def _chunks(queries: int, rows: int) -> Iterator[slice]:
    step = max(1, _CELLS // max(1, rows))
    return (slice(start, start + step) for start in range(0, queries, step))


def have_cameras(cameras: Sequence[str]) -> bool:
    """Return whether every picture says which camera took it."""
    return bool(cameras) and all(cameras)
