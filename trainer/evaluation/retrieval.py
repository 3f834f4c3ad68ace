"""Retrieval measures in the gallery of one category, as papers on CUB-200-2011 and Stanford Online Products print them.

Recall@K follows Oh Song et al. 2016: the share of queries with a picture of their item among the K nearest, without the
query's own picture. MAP@R follows Musgrave et al. 2020. As in pytorch-metric-learning, a query whose item has no other
picture in the gallery is left out of the means; it is counted. A search covers one category; where one embedder serves
several, as on Stanford Online Products, `retrieve_among_all` also searches all pictures, as published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.types import FloatArray
from trainer.evaluation.predictions import Predictions
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


def retrieve_among_all(
    embedders: Mapping[str, object], predictions: Predictions, references: Mapping[str, ReferenceGallery]
) -> Measures:
    """Search the queries of all categories in all galleries at once; empty unless one embedder made all of these.

    Args:
        embedders: by category.
        predictions: of the chain.
        references: its galleries by category.
    """
    listed = list(references.items())
    plain = all(one.ids is not None and not one.gathering for _, one in listed)
    if len(listed) < 2 or not plain or len({id(embedders[category]) for category, _ in listed}) > 1:
        return {}
    everything = ReferenceGallery(
        np.concatenate([one.vectors for _, one in listed]),
        tuple(f"{category}/{item}" for category, one in listed for item in one.items),
        lambda _: None,
        np.concatenate([one.ids for _, one in listed if one.ids is not None]),
    )
    found = [(category, predictions.of_category(category)) for category, _ in listed]
    found = [(category, of) for category, of in found if of[0]]
    if not found:
        return {}
    rows = [row for _, (some, _) in found for row in some]
    items = [f"{category}/{predictions.queries[row].item}" for category, (some, _) in found for row in some]
    vectors = np.concatenate([vectors for _, (_, vectors) in found])
    return retrieve(everything, vectors, items, predictions.query_ids[np.array(rows, int)]).measures


def _measures(ranked: Ranked) -> Measures:
    measures = {f"recall_at_{k}": recall_at(ranked, k) for k in RECALL_AT}
    for k in _PRECISION_AT:
        measures[f"precision_at_{k}"] = precision_at(ranked, k)
        measures[f"map_at_{k}_per_hits"] = average_precision_at(ranked, k, per="hits")
        measures[f"map_at_{k}_per_possible"] = average_precision_at(ranked, k, per="possible")
    return measures | {"map_at_r": map_at_r(ranked), "r_precision": r_precision(ranked)}
