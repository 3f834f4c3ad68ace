"""Fits the open-set rule of each category: a logistic curve and a threshold, on items left out of the gallery.

Rules this module keeps:
1. Unknown objects are simulated from the catalogue. In each round a fifth of the items leaves the gallery, and their
   held-out crops count as unknown; the other crops count as known. Crops of items that the gallery never had are
   unknown in every round. They are the most valuable, because the embedder was not trained on them
   (benchmarks/results/openset.json says how much harder they are).
2. A crop is searched as on a device: every category that is likely enough is searched, and edge.recognition.decision
   chooses among them. So a category's rule is fitted on every crop that reaches its gallery, whatever its category.
3. A category with few predictions uses the curve of all categories as its prior (shrinkage).
4. One probability is the threshold of all categories, because that accepts the most known objects at a given share of
   accepted unknown ones. It is stored as a cosine for each category. It is never below the accuracy over all
   predictions: a score that makes the item less likely than that does not name it. Without a requested share, the
   threshold is that accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.manifest import OpenSet
from edge.recognition.decision import decide
from edge.types import Category, FloatArray, Hit

SHARE_LEFT_OUT = 0.2  # share of the catalogue items left out in a round
ROUNDS = 20  # on average each crop is unknown in four of them
MIN_PREDICTIONS = 20  # correct ones, and ones of unknown crops
OPERATING_POINTS = (0.01, 0.05, 0.1)  # shares of accepted unknown objects; every bundle has a threshold for each
_ACCEPT_ALL = OpenSet(threshold=-1.0)
_MIN_SLOPE, _MAX_SLOPE = 5.0, 200.0
_PRIOR = (0.1, 0.6)  # standard deviations of a category's steepness, relative, and of its offset in logits


@dataclass(frozen=True, slots=True)
class ScoredCrop:
    """One held-out crop and its scores by the packed models."""

    item: str  # the true item
    categories: list[Category]  # categories to search, most likely first
    scores: Mapping[str, FloatArray]  # by category, the best cosine with each of its items, (items,)


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions for crops while some items were left out; one row for each crop and round."""

    item: NDArray[np.str_]  # the true item
    category: NDArray[np.str_]  # category of the nearest item; "" if nothing was searched
    score: NDArray[np.float64]  # cosine with it
    correct: NDArray[np.bool_]
    known: NDArray[np.bool_]  # whether the gallery had the true item
    weight: float = 1.0  # weight of a row: twenty rounds of one crop count as one observation

    def select(self, rows: NDArray[np.bool_]) -> Predictions:
        """Return some of the rows."""
        return Predictions(
            self.item[rows], self.category[rows], self.score[rows], self.correct[rows], self.known[rows], self.weight
        )


@dataclass(frozen=True, slots=True)
class ThresholdFit:
    """An open-set rule and its error rates on the crops it was fitted on."""

    open_set: OpenSet
    known: int  # predictions in this category for crops whose item was in the gallery
    unknown: int  # predictions in this category for other crops
    false_accept: float  # share of unknown crops above the threshold
    false_reject: float  # share of correct predictions below the threshold
    rule: str  # how the threshold was chosen

    def row(self) -> dict[str, object]:
        """Return the fit as the manifest stores it."""
        return {
            "known": self.known,
            "unknown": self.unknown,
            "false_accept": round(self.false_accept, 4),
            "false_reject": round(self.false_reject, 4),
            "rule": self.rule,
        }


def leave_items_out(
    crops: Sequence[ScoredCrop],
    items: Mapping[str, Sequence[str]],
    *,
    rounds: int = ROUNDS,
    share: float = SHARE_LEFT_OUT,
    seed: int = 0,
) -> Predictions:
    """Predict every crop in each round, with a share of all items left out of the gallery.

    Args:
        crops: held-out crops.
        items: items of the gallery by category, in the order of `ScoredCrop.scores`.
        rounds: number of random draws.
        share: share of the items that are left out.
        seed: seed of the random draws.
    """
    rng = np.random.default_rng(seed)
    catalogue = sorted({item for names in items.values() for item in names})
    rows: list[tuple[str, float, bool, bool]] = []
    for _ in range(rounds if catalogue else 0):
        left_out = set(rng.choice(catalogue, max(1, round(share * len(catalogue))), replace=False).tolist())
        rows += [predict(crop, items, left_out) for crop in crops]
    category, score, correct, known = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Predictions(
        np.asarray([crop.item for crop in crops] * (rounds if catalogue else 0), np.str_),
        np.asarray(category, np.str_),
        np.asarray(score, np.float64),
        np.asarray(correct, np.bool_),
        np.asarray(known, np.bool_),
        1 / rounds,
    )


def predict(crop: ScoredCrop, items: Mapping[str, Sequence[str]], left_out: set[str]) -> tuple[str, float, bool, bool]:
    """Return what a device would predict: category, cosine, whether it is correct, whether the item was known."""
    hits = {}
    for category in crop.categories:
        scores = crop.scores.get(category.name)
        if scores is None:
            continue
        order = [i for i in np.argsort(-scores, kind="stable") if items[category.name][i] not in left_out]
        if order:
            names = items[category.name]
            hits[category.name] = [Hit(names[i], names[i], float(scores[i])) for i in order[:2]]
    decision = decide(crop.categories, hits, dict.fromkeys(hits, _ACCEPT_ALL))
    known = crop.item not in left_out and any(crop.item in names for names in items.values())
    if decision.match is None or decision.category is None:
        return "", -1.0, False, known
    return decision.category.name, decision.match.score, decision.match.item_id == crop.item, known


def fit_thresholds(
    predictions: Predictions, categories: Sequence[str], false_accept: float | None = None
) -> dict[str, ThresholdFit]:
    """Fit every category; use the manifest's defaults if there are too few predictions for all.

    Args:
        predictions: result of `leave_items_out`.
        categories: categories to fit.
        false_accept: share of the unknown crops that may be accepted, over all categories; None: the threshold is the
            accuracy over all predictions.
    """
    reached = predictions.select(predictions.category != "")
    if min(int(reached.correct.sum()), int((~reached.known).sum())) < MIN_PREDICTIONS:
        rule = f"default, fewer than {MIN_PREDICTIONS} predictions"
        return {
            name: _evaluate_fit(OpenSet(), predictions.select(predictions.category == name), rule)
            for name in categories
        }
    pooled = _fit_logistic(reached)
    curves = {}
    for name in categories:
        own = predictions.select(predictions.category == name)
        curves[name] = _fit_logistic(own, pooled) if len(own.score) else pooled
    logits = np.full(len(predictions.score), -np.inf)
    for name, (slope, midpoint) in curves.items():
        rows = predictions.category == name
        logits[rows] = slope * (predictions.score[rows] - midpoint)
    shares = sorted({*OPERATING_POINTS, *([] if false_accept is None else [false_accept])})
    rate = float(np.clip(reached.correct.mean(), 0.5, 0.95))
    least = math.log(rate / (1 - rate))
    unknown = predictions.select(~predictions.known)
    points = {share: max(least, _logit_accepting(unknown, logits[~predictions.known], share)) for share in shares}
    fits = {}
    for name, (slope, midpoint) in curves.items():
        thresholds = {f"{share:g}": round(_cosine(points[share], slope, midpoint), 4) for share in shares}
        open_set = OpenSet(
            threshold=round(_cosine(least, slope, midpoint), 4)
            if false_accept is None
            else thresholds[f"{false_accept:g}"],
            slope=round(slope, 3),
            midpoint=round(midpoint, 4),
            false_accept=false_accept,
            operating_points=thresholds,
        )
        why = (
            f"probability at least the overall accuracy, {rate:.2f}"
            if false_accept is None
            else f"accepts {false_accept:.3g} of unknown objects"
        )
        fits[name] = _evaluate_fit(open_set, predictions.select(predictions.category == name), why)
    return fits


def _logit_accepting(unknown: Predictions, logits: NDArray[np.float64], share: float) -> float:
    """Return the logit above which this share of unknown objects lies.

    The share is read from a smooth curve through the logits, whose width depends on the number of items (Silverman
    1986). Rules fitted on few items are still too optimistic: at a requested 5 %, groceries that were not fitted on
    were accepted at 8.8 % (9.3 % without smoothing) with 30 items fitted, and at 6.8 % (8.1 %) with 48.
    """
    reached = logits[np.isfinite(logits)]
    if not len(reached):
        return -math.inf
    upper, top = np.quantile(reached, [0.75, 0.975])  # values far below do not describe the tail
    width = 1.06 * float(top - upper) / 1.286 * math.pow(len(np.unique(unknown.item)), -0.2)
    width = max(1e-3, width * math.sqrt(3) / math.pi)  # width of a logistic kernel
    low, high = float(reached.min()) - 40 * width, float(reached.max()) + 40 * width
    for _ in range(60):
        middle = (low + high) / 2
        accepted = float((1 / (1 + np.exp(-np.clip((reached - middle) / width, -50, 50)))).sum()) / len(logits)
        low, high = (middle, high) if accepted > share else (low, middle)
    return high


def _cosine(logit: float, slope: float, midpoint: float) -> float:
    return float(np.clip(midpoint + logit / slope, -1.0, 1.0))


def _evaluate_fit(open_set: OpenSet, own: Predictions, rule: str) -> ThresholdFit:
    accepted = own.score >= open_set.threshold
    return ThresholdFit(
        open_set,
        int(own.known.sum()),
        int((~own.known).sum()),
        float(accepted[~own.known].mean()) if (~own.known).any() else 0.0,
        float((~accepted[own.correct]).mean()) if own.correct.any() else 0.0,
        rule,
    )


def _fit_logistic(predictions: Predictions, prior: tuple[float, float] | None = None) -> tuple[float, float]:
    """Fit slope and midpoint of the accuracy by score, with Newton's method on smoothed targets (Platt 1999).

    Args:
        predictions: predictions that reached a gallery.
        prior: slope and midpoint of a Gaussian prior; None: no prior.
    """
    score, correct, weight = predictions.score, predictions.correct, predictions.weight
    hits, misses = weight * correct.sum(), weight * (~correct).sum()
    target = np.where(correct, 1 - 1 / (hits + 2), 1 / (misses + 2))
    centre, spread = (float(score.mean()), float(score.std()) or 1.0) if prior is None else (prior[1], 1 / prior[0])
    z = (score - centre) / spread
    mean = np.array([1.0, 0.0])
    precision = np.array([1e-3, 1e-6]) if prior is None else 1 / np.array(_PRIOR) ** 2
    at = mean.copy()
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(at[0] * z + at[1], -30, 30)))
        error, v = weight * (p - target), weight * p * (1 - p)
        gradient = np.array([(error * z).sum(), error.sum()]) + precision * (at - mean)
        hessian = np.array([[(v * z * z).sum(), (v * z).sum()], [(v * z).sum(), v.sum()]]) + np.diag(precision + 1e-9)
        step = np.linalg.solve(hessian, gradient)
        at = at - step
        if float(np.abs(step).max()) < 1e-9:
            break
    slope = float(np.clip(at[0] / spread, _MIN_SLOPE, _MAX_SLOPE))
    midpoint = centre - at[1] * spread / at[0] if at[0] > 0 else centre
    return slope, float(np.clip(midpoint, -1.0, 1.0))
