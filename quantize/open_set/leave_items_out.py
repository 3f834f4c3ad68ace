"""Predictions for pictures while some items are left out of the gallery, so that their pictures count as unknown.

Rules this module keeps:
1. In each round a fifth of the items leaves the gallery. Their pictures count as unknown, the others as known. Pictures
   of items that the gallery never had are unknown in every round. They are the most valuable, because the embedder was
   not trained on them (benchmarks/results/openset.json says how much harder they are).
2. A picture is searched as on a device: every category that is likely enough is searched, and the nearest item of one
   of them is the answer, as `edge.recognition.decision` chooses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.manifest.embedder import OpenSet
from edge.types import Category, FloatArray

SHARE_LEFT_OUT = 0.2  # share of the catalogue items left out in a round
ROUNDS = 20  # on average each picture is unknown in four of them
_LEAST_PROBABILITY = 1e-9  # of a category, as in edge.recognition.decision
_NEVER = -np.inf


@dataclass(frozen=True, slots=True)
class ScoredCrop:
    """One picture and its scores by the packed models."""

    category: str  # the true category
    item: str  # the true item
    categories: list[Category]  # categories to search, most likely first
    scores: Mapping[str, FloatArray]  # by category, the best cosine with each of its items, (items,)


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions for pictures while some items were left out; one row for each picture and round."""

    crop: NDArray[np.int64]  # number of the picture
    item: NDArray[np.str_]  # the true item
    true_category: NDArray[np.str_]
    category: NDArray[np.str_]  # category of the nearest item; "" if nothing was searched
    probability: NDArray[np.float64]  # of that category
    score: NDArray[np.float64]  # cosine with it
    correct: NDArray[np.bool_]
    known: NDArray[np.bool_]  # whether the gallery had the true item
    weight: float = 1.0  # weight of a row: twenty rounds of one picture count as one observation

    def select(self, rows: NDArray[np.bool_]) -> Predictions:
        """Return some of the rows."""
        return Predictions(
            self.crop[rows],
            self.item[rows],
            self.true_category[rows],
            self.category[rows],
            self.probability[rows],
            self.score[rows],
            self.correct[rows],
            self.known[rows],
            self.weight,
        )

    def pictures(self, rows: NDArray[np.bool_]) -> int:
        """Return the number of pictures in some of the rows: rounds of one picture count once."""
        return len(np.unique(self.crop[rows]))


def leave_items_out(
    crops: Sequence[ScoredCrop],
    items: Mapping[str, Sequence[str]],
    *,
    rounds: int = ROUNDS,
    share: float = SHARE_LEFT_OUT,
    seed: int = 0,
) -> Predictions:
    """Predict every picture in each round, with a share of all items left out of the gallery.

    Args:
        crops: pictures.
        items: items of the gallery by category, in the order of `ScoredCrop.scores`.
        rounds: number of random draws.
        share: share of the items that are left out.
        seed: seed of the random draws.
    """
    rng = np.random.default_rng(seed)
    every = sorted((item, category) for category, names in items.items() for item in names)
    number = {(category, item): i for i, (item, category) in enumerate(every)}
    own = np.array([number.get((crop.category, crop.item), -1) for crop in crops], np.int64)
    searches = _searches_of(crops, items, number)
    rounds = rounds if every and crops else 0
    parts = []
    for _ in range(rounds):
        left_out = np.zeros(len(every), bool)
        left_out[rng.choice(len(every), max(1, round(share * len(every))), replace=False)] = True
        parts.append(_predict(searches, own, left_out))
    category, probability, score, correct, known = (
        np.concatenate(columns) if parts else np.zeros(0)
        for columns in (zip(*parts, strict=True) if parts else ((),) * 5)
    )
    return Predictions(
        np.tile(np.arange(len(crops)), rounds),
        np.tile(np.asarray([crop.item for crop in crops], np.str_), rounds),
        np.tile(np.asarray([crop.category for crop in crops], np.str_), rounds),
        category.astype(np.str_),
        probability.astype(np.float64),
        score.astype(np.float64),
        correct.astype(np.bool_),
        known.astype(np.bool_),
        1 / max(1, rounds),
    )


@dataclass(frozen=True, slots=True)
class _Search:
    """The pictures that are searched in one category."""

    category: str
    items: NDArray[np.int64]  # numbers of its items
    crops: NDArray[np.int64]  # numbers of the pictures
    rank: NDArray[np.int64]  # place of the category among those of each picture
    log_probability: NDArray[np.float64]  # of the category, for each picture
    scores: FloatArray  # (pictures, items)


def _searches_of(
    crops: Sequence[ScoredCrop], items: Mapping[str, Sequence[str]], number: Mapping[tuple[str, str], int]
) -> list[_Search]:
    found: dict[str, list[tuple[int, int, float, FloatArray]]] = {}
    for i, crop in enumerate(crops):
        for rank, category in enumerate(crop.categories):
            if category.name in crop.scores and items.get(category.name):
                row = (i, rank, float(np.log(max(category.score, _LEAST_PROBABILITY))), crop.scores[category.name])
                found.setdefault(category.name, []).append(row)
    return [
        _Search(
            name,
            np.array([number[name, item] for item in items[name]], np.int64),
            np.array([row[0] for row in rows], np.int64),
            np.array([row[1] for row in rows], np.int64),
            np.array([row[2] for row in rows], np.float64),
            np.stack([row[3] for row in rows]),
        )
        for name, rows in sorted(found.items())
    ]


def _predict(
    searches: Sequence[_Search], own: NDArray[np.int64], left_out: NDArray[np.bool_]
) -> tuple[NDArray[np.generic], ...]:
    """Return what a device would answer without a threshold.

    Returns:
        category, its probability, cosine, whether it is right, whether the item was known; (pictures,) each.
    """
    rule = OpenSet(threshold=-1.0)
    weight = np.full(len(own), _NEVER)
    rank = np.zeros(len(own), np.int64)
    probability, score = np.zeros(len(own)), np.full(len(own), -1.0)
    answer = np.full(len(own), -1, np.int64)
    category = np.full(len(own), "", object)
    for search in searches:
        if left_out[search.items].all():
            continue
        scores = np.where(left_out[search.items], np.float32(_NEVER), search.scores)
        nearest = scores.argmax(axis=1)
        best = scores[np.arange(len(scores)), nearest].astype(np.float64)
        odds = search.log_probability + rule.slope * (best - rule.midpoint)
        rows = search.crops
        wins = (odds > weight[rows]) | ((odds == weight[rows]) & (search.rank < rank[rows]))
        won = rows[wins]
        weight[won], rank[won], score[won] = odds[wins], search.rank[wins], best[wins]
        answer[won], category[won] = search.items[nearest[wins]], search.category
        probability[won] = np.exp(search.log_probability[wins])
    known = (own >= 0) & ~left_out[own]
    return category, probability, score, (answer == own) & (own >= 0), known
