"""Metrics of retrieval, detection and calibration. Pure numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge.inference.postprocess import iou_matrix, softmax
from edge.types import FloatArray

_DRAWN = 2**22  # most values of bootstrap draws in memory at a time
_LUCK = 0.01  # probability from which a guess explains the answers
_FEWEST_ANSWERS = 10  # that can be told from guesses
Names = NDArray[np.str_] | Sequence[str]
Items = Names | NDArray[np.int64]  # names, or numbers that stand for them


@dataclass(frozen=True, slots=True)
class Boxes:
    """The boxes found in one picture."""

    boxes_px: FloatArray  # (n, 4)
    scores: FloatArray  # (n,)


def similarity(queries: FloatArray, gallery: FloatArray) -> FloatArray:
    """Return the cosines of unit rows: (queries, gallery)."""
    return np.asarray(queries @ gallery.T, np.float32)


@dataclass(frozen=True, slots=True)
class Ranked:
    """The nearest gallery rows of each query, best first; of equally near rows, the first."""

    hits: NDArray[np.bool_]  # (queries, ranks): whether the row is of the query's item
    relevant: NDArray[np.int64]  # (queries,): R, the number of searched rows of its item
    searched: NDArray[np.int64]  # (queries,): the number of searched rows


def rank(
    similar: FloatArray,
    query_items: Items,
    gallery_items: Items,
    *,
    same_set: bool = False,
    nearest: int | None = None,
) -> Ranked:
    """Rank the gallery for each query.

    Args:
        similar: (queries, gallery) cosines; -inf or NaN: the row is not searched, such as the query's own picture.
        query_items: items of the rows.
        gallery_items: items of the columns.
        same_set: whether queries and gallery are the same list; then no query finds itself.
        nearest: number of ranks that count; None: all. The R nearest always count, too.
    """
    similar = np.where(np.isnan(similar), np.float32(-np.inf), similar)
    if same_set:
        np.fill_diagonal(similar, -np.inf)
    searched = similar > -np.inf
    of_item = (np.asarray(gallery_items) == np.asarray(query_items)[:, None]) & searched
    relevant = of_item.sum(axis=1)
    most = max(nearest, int(relevant.max(initial=0))) if nearest is not None else similar.shape[1]
    hits = np.take_along_axis(of_item, _nearest_rows(similar, min(most, similar.shape[1])), axis=1)
    return Ranked(hits, relevant.astype(np.int64), searched.sum(axis=1).astype(np.int64))


def _nearest_rows(similar: FloatArray, count: int) -> NDArray[np.int64]:
    """Return the columns of the largest values of each row, (rows, count), best first, without sorting all of them."""
    columns = similar.shape[1]
    if 4 * count >= columns:
        return np.argsort(-similar, axis=1, kind="stable")[:, :count]
    chosen = np.empty((len(similar), count), np.int64)
    for place, row in enumerate(similar):
        among = np.flatnonzero(row >= np.partition(row, columns - count)[columns - count])
        chosen[place] = among[np.argsort(-row[among], kind="stable")[:count]]
    return chosen


def recall_at(ranked: Ranked, k: int) -> NDArray[np.float64]:
    """Return 1 for each query with its item among the k nearest, else 0; the mean is Recall@k."""
    return np.asarray(ranked.hits[:, :k].any(axis=1), np.float64)


def map_at_r(ranked: Ranked) -> NDArray[np.float64]:
    """Return MAP@R of each query: the precision summed over the hits among its R nearest, divided by R.

    R is the number of gallery pictures of its item (Musgrave et al. 2020). A query whose item is not in the gallery
    counts 0.
    """
    hits = ranked.hits
    within = np.arange(hits.shape[1])[None, :] < ranked.relevant[:, None]
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return np.asarray((precision * hits * within).sum(axis=1) / np.maximum(ranked.relevant, 1), np.float64)


def precision_at(ranked: Ranked, k: int) -> NDArray[np.float64]:
    """Return the share of each query's item among the k nearest; the mean is Precision@k."""
    return np.asarray(ranked.hits[:, :k].sum(axis=1) / np.clip(ranked.searched, 1, k), np.float64)


def r_precision(ranked: Ranked) -> NDArray[np.float64]:
    """Return the share of each query's item among its R nearest, for an item of R gallery pictures; 0 if R is 0."""
    within = np.arange(ranked.hits.shape[1])[None, :] < ranked.relevant[:, None]
    return np.asarray((ranked.hits & within).sum(axis=1) / np.maximum(ranked.relevant, 1), np.float64)


def average_precision_at(ranked: Ranked, k: int, *, per: Literal["hits", "possible"]) -> NDArray[np.float64]:
    """Return for each query the average precision at the hits among its k nearest; the mean is mAP@k.

    Args:
        ranked: the gallery, ranked for each query.
        k: number of nearest rows that count.
        per: `hits` divides by the hits among the k, as HDCL's tables do (so that mAP@k may be above Precision@k);
            `possible` divides by the hits there could be, min(R, k). They differ: name the one you quote.
    """
    hits = ranked.hits[:, :k]
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    divisor = hits.sum(axis=1) if per == "hits" else np.minimum(ranked.relevant, k)
    return np.asarray((precision * hits).sum(axis=1) / np.maximum(divisor, 1), np.float64)


def per_class(predicted: Names, true: Names) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1, count and accuracy, (TP + TN) / all, of each class."""
    predicted, true = np.asarray(predicted), np.asarray(true)
    table = {}
    for name in sorted({*predicted.tolist(), *true.tolist()}):
        hit = float(((predicted == name) & (true == name)).sum())
        precision = hit / max(1, int((predicted == name).sum()))
        recall = hit / max(1, int((true == name).sum()))
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        table[name] = {"precision": precision, "recall": recall, "f1": f1, "count": float((true == name).sum())}
        table[name]["accuracy"] = float(((predicted == name) == (true == name)).mean())
    return table


def mean_over_classes(table: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the means over the classes of `per_class` that are shown: of precision, recall, F1 and accuracy."""
    shown = [one for one in table.values() if one["count"]]
    keys = ("precision", "recall", "f1", "accuracy")
    return {key: float(np.mean([one[key] for one in shown])) if shown else 0.0 for key in keys}


def bootstrap(values: NDArray[np.float64], seed: int = 0, draws: int = 1000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of per-picture values."""
    if not len(values):
        return (0.0, 0.0)
    rng = np.random.default_rng(seed)
    step = max(1, _DRAWN // len(values))
    blocks = [min(step, draws - start) for start in range(0, draws, step)]
    means = np.concatenate([values[rng.integers(len(values), size=(n, len(values)))].mean(axis=1) for n in blocks])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def measured(values: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """Return the mean of per-picture values, its 95 % bootstrap interval, and their count."""
    mean = float(values.mean()) if len(values) else 0.0
    return {"mean": mean, "interval": list(bootstrap(values, seed)), "count": len(values)}


def match_boxes(found: list[Boxes], truths: list[FloatArray], iou: float) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Match boxes to true boxes greedily, best score first, each true box once.

    Returns:
        scores, and whether each box is right, over all pictures, best score first.
    """
    scores, right = [], []
    for boxes, truth in zip(found, truths, strict=True):
        overlap = iou_matrix(boxes.boxes_px, truth) if len(truth) else np.zeros((len(boxes.scores), 0), np.float32)
        for row in np.argsort(-boxes.scores, kind="stable"):
            best = int(overlap[row].argmax()) if overlap.shape[1] else -1
            hit = best >= 0 and bool(overlap[row, best] >= iou)
            if hit:
                overlap[:, best] = -1.0
            scores.append(boxes.scores[row])
            right.append(hit)
    order = np.argsort(-np.asarray(scores, np.float32), kind="stable")
    return np.asarray(scores, np.float32)[order], np.asarray(right, bool)[order]


def average_precision(found: list[Boxes], truths: list[FloatArray], iou: float) -> float:
    """Return the area under the precision envelope at COCO's 101 points."""
    total = sum(len(truth) for truth in truths)
    _, right = match_boxes(found, truths, iou)
    if not total or not len(right):
        return 0.0
    hits = np.cumsum(right)
    recall, precision = hits / total, hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.where(at < len(envelope), envelope[np.minimum(at, len(envelope) - 1)], 0.0).mean())


def detection_map(found: list[Boxes], truths: list[FloatArray]) -> dict[str, float]:
    """Return mAP50 and mAP50-95 of one class."""
    by_iou = [average_precision(found, truths, iou) for iou in np.arange(0.5, 0.96, 0.05)]
    return {"map50": by_iou[0], "map50_95": float(np.mean(by_iou))}


def best_threshold(found: list[Boxes], truths: list[FloatArray]) -> tuple[float, float]:
    """Return the score threshold with the largest F1 at IoU 0.5, and that F1."""
    scores, right = match_boxes(found, truths, 0.5)
    total = sum(len(truth) for truth in truths)
    if not len(right) or not total:
        return 0.5, 0.0
    hits = np.cumsum(right)
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + total)
    best = int(f1.argmax())
    return float(scores[best]), float(f1[best])


def fit_temperature(logits: FloatArray, labels: NDArray[np.int64]) -> float:
    """Return the temperature with the smallest negative log-likelihood (Guo et al. 2017), from 0.25 to 4."""
    candidates = np.geomspace(0.25, 4.0, 65)
    rows = np.arange(len(labels))
    loss = [-np.log(softmax(logits, float(t))[rows, labels] + 1e-9).mean() for t in candidates]
    return float(candidates[int(np.argmin(loss))])


def calibration_error(probabilities: FloatArray, right: NDArray[np.bool_], bins: int = 10) -> float:
    """Return the expected calibration error over equal bins of the top probability."""
    slot = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = [
        abs(float(probabilities[slot == b].mean()) - float(right[slot == b].mean())) * float((slot == b).mean())
        for b in range(bins)
        if (slot == b).any()
    ]
    return float(sum(gaps))


def is_a_guess(share_right: float, total: int, choices: int) -> bool:
    """Return whether guessing explains so many right answers: at least so many come with a probability above 1 %.

    Args:
        share_right: of the answers, 0..1.
        total: number of answers; of fewer than ten, nothing is said.
        choices: number of answers to choose from, all equally likely.
    """
    if total < _FEWEST_ANSWERS or choices < 2:
        return False
    chance, right = 1 / choices, round(share_right * total)
    rows = (math.comb(total, n) * chance**n * (1 - chance) ** (total - n) for n in range(right, total + 1))
    return sum(rows) > _LUCK
