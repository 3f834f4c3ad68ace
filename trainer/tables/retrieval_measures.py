"""The measures of retrieval that published tables quote, from vectors alone. Used by the tables and by `evaluate`.

Without a gallery, each picture is searched among all others (leave-one-out), as the tables on classes that were never
trained do. Vectors are compared by their cosine; on vectors of unit length, the Euclidean distance ranks alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.types import FloatArray
from trainer.metrics import Items, Ranked, average_precision_at, map_at_r, precision_at, r_precision, rank, recall_at
from trainer.tables.table import Measures

RECALL_AT = (1, 2, 4, 8, 16, 32)  # HDCL's tables
AP_AT = (1, 5, 10)  # Precision@K and mAP@K: SCDA's tables quote 1 and 5, HDCL's 10
_BLOCK = 2**24  # most similarities in memory at a time


def retrieval_measures(
    vectors: FloatArray,
    items: Items,
    gallery: FloatArray | None = None,
    gallery_items: Items | None = None,
    *,
    recall_ks: Sequence[int] = RECALL_AT,
    precision_ks: Sequence[int] = AP_AT,
) -> Measures:
    """Return the means over the queries of every measure, as 0..1, by the names of `measure_names`.

    Args:
        vectors: (queries, d) vectors of the queries, of any length.
        items: (queries,) the class or item of each.
        gallery: (rows, d) vectors that are searched; None: the queries themselves, each without itself. Then a query
            that is alone of its item cannot be found, and is no query.
        gallery_items: (rows,) the item of each row; None: with `gallery` None.
        recall_ks: the K of R@K.
        precision_ks: the K of P@K and of both mAP@K.

    Returns:
        R@K: the share of queries with their item among the K nearest. P@K: the share of the item among the K nearest.
        `mAP@K per hits` divides by the hits among the K, as HDCL's tables do; `mAP@K per possible` by min(R, K).
        MAP@R and R-precision (Musgrave et al. 2020). Nothing of queries at all: an empty dictionary.

    Raises:
        ValueError: the numbers of vectors and items differ.
    """
    own = gallery is None
    rows, row_items = (vectors, items) if gallery is None else (gallery, gallery_items)
    query_items, searched_items = np.asarray(items), np.asarray([] if row_items is None else row_items)
    if len(vectors) != len(query_items) or len(rows) != len(searched_items):
        raise ValueError(f"{len(vectors)} and {len(rows)} vectors, {len(query_items)} and {len(searched_items)} items")
    queries, searched = _unit(vectors), _unit(rows)
    found: dict[str, list[NDArray[np.float64]]] = {}
    for start in range(0, len(queries), step := max(1, _BLOCK // max(1, len(searched)))):
        similar = np.asarray(queries[start : start + step] @ searched.T, np.float32)
        if own:
            np.fill_diagonal(similar[:, start:], -np.inf)
        # Every K needs its ranks; the R nearest always count, too.
        ranked = rank(
            similar, query_items[start : start + step], searched_items, nearest=max((*recall_ks, *precision_ks))
        )
        counts = ranked.relevant > 0 if own else np.ones(len(similar), bool)
        for name, values in measures_of(ranked, recall_ks, precision_ks).items():
            found.setdefault(name, []).append(values[counts])
    joined = {name: np.concatenate(blocks) for name, blocks in found.items()}
    return {name: float(values.mean()) for name, values in joined.items() if len(values)}


def measures_of(
    ranked: Ranked, recall_ks: Sequence[int] = RECALL_AT, precision_ks: Sequence[int] = AP_AT
) -> dict[str, NDArray[np.float64]]:
    """Return every measure of each query of a ranking, (queries,), by the names of `measure_names`."""
    values = [recall_at(ranked, k) for k in recall_ks]
    for k in precision_ks:
        values += [precision_at(ranked, k)]
        values += [average_precision_at(ranked, k, per="hits"), average_precision_at(ranked, k, per="possible")]
    values += [map_at_r(ranked), r_precision(ranked)]
    return dict(zip(measure_names(recall_ks, precision_ks), values, strict=True))


def measure_names(recall_ks: Sequence[int] = RECALL_AT, precision_ks: Sequence[int] = AP_AT) -> list[str]:
    """Return the names of the measures, in order, as columns of a table."""
    by_k = [name for k in precision_ks for name in (f"P@{k}", f"mAP@{k} per hits", f"mAP@{k} per possible")]
    return [*(f"R@{k}" for k in recall_ks), *by_k, "MAP@R", "R-precision"]


def _unit(vectors: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
