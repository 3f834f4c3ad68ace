"""Retrieval measures in the gallery of one category, as papers on CUB-200-2011 and Stanford Online Products print them.

Recall@K follows Oh Song et al. 2016: the share of queries with a picture of their item among the K nearest, without the
query's own picture. MAP@R follows Musgrave et al. 2020. As in pytorch-metric-learning, a query whose item has no other
picture in the gallery is left out of the means; it is counted. A search covers one category: for Stanford Online
Products with its twelve categories it is easier than the published search among all pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.types import FloatArray
from trainer.evaluation.reference_gallery import Ids, ReferenceGallery
from trainer.metrics import Ranked, average_precision_at, map_at_r, precision_at, r_precision, rank, recall_at

RECALL_AT = (1, 2, 4, 5, 8, 10, 16, 32)
_PRECISION_AT = (5, 10)
Measures = dict[str, NDArray[np.float64]]  # values of each query, by name of the measure


@dataclass(frozen=True, slots=True)
class Retrieval:
    """The measures of the queries whose item has another picture in the gallery."""

    kept: NDArray[np.int64]  # places of these queries among those given
    measures: Measures = field(default_factory=dict)  # empty if there are none
    fewest: int = 0  # fewest pictures that a query was searched among


def retrieve(reference: ReferenceGallery, vectors: FloatArray, items: Sequence[str], ids: Ids) -> Retrieval:
    """Search queries in a gallery, a chunk at a time, and measure what is found.

    Args:
        reference: the gallery.
        vectors: (queries, dim), rows of unit length.
        items: item of each query.
        ids: (queries,) which picture each query is.
    """
    kept = np.array(
        [i for i, (item, number) in enumerate(zip(items, ids.tolist(), strict=True)) if reference.shows(item, number)],
        np.int64,
    )
    if not len(kept):
        return Retrieval(kept)
    place = {name: number for number, name in enumerate(reference.names)}
    numbers = np.array([place[items[i]] for i in kept], np.int64)
    parts, fewest = [], len(reference.items)
    for chunk in reference.chunks(len(kept)):
        similar = reference.similar(vectors[kept[chunk]], ids[kept[chunk]])
        ranked = rank(similar, numbers[chunk], reference.item_numbers, nearest=max(RECALL_AT))
        parts.append(_measures(ranked))
        fewest = min(fewest, int(ranked.searched.min()))
    measures = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Retrieval(kept, measures, fewest)


def _measures(ranked: Ranked) -> Measures:
    measures = {f"recall_at_{k}": recall_at(ranked, k) for k in RECALL_AT}
    for k in _PRECISION_AT:
        measures[f"precision_at_{k}"] = precision_at(ranked, k)
        measures[f"map_at_{k}_per_hits"] = average_precision_at(ranked, k, per="hits")
        measures[f"map_at_{k}_per_possible"] = average_precision_at(ranked, k, per="possible")
    return measures | {"map_at_r": map_at_r(ranked), "r_precision": r_precision(ranked)}
