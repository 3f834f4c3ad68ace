"""Fits the open-set rule of each category: a logistic curve and a threshold, on items left out of the gallery.

Rules this module keeps:
1. A category's rule is fitted on every picture that reaches its gallery, whatever its category, because devices search
   it so. Categories that a device searches together share one rule, so that the nearest item of all of them wins.
2. A category with few predictions uses the curve of all categories as its prior (shrinkage).
3. One probability is the threshold of all categories, because that accepts the most known objects at a given share of
   accepted unknown ones. It is stored as a cosine for each category. It is never below the accuracy over all
   predictions: a score that makes the item less likely than that does not name it. Without a requested share, the
   threshold is that accuracy.
4. No threshold is above every right answer. Where the vectors are too weak for the probability of rule 3, the best
   right answer of all categories is the limit, and the fit says how little is named. A limit for each category lets
   through too much: with untuned vectors of groceries, 18 instead of 11 % of unknown objects.
5. A requested risk replaces the share: the level is that of `quantize.open_set.risk`, at which the curve is at least
   one half.
6. A curve that fewer than MIN_PREDICTIONS right answers support is not calibrated, see `gallery_rule`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.errors import QuantizeError
from edge.manifest.embedder import OpenSet
from edge.recognition.decision import MIN_PROBABILITY, counts_category, probability_of
from quantize.open_set.leave_items_out import Predictions
from quantize.open_set.risk import CONFIDENCE, RISKS, RiskSearch

MIN_PREDICTIONS = 20  # pictures answered rightly, and pictures of unknown items
OPERATING_POINTS = (0.01, 0.05, 0.1)  # shares of accepted unknown objects; every bundle has a threshold for each
_BELOW_BEST = 0.001  # cosine by which the best right answer is above every threshold
_MIN_SLOPE, _MAX_SLOPE = 5.0, 200.0
_FARTHEST_MIDPOINT = 3.0  # a curve of weak vectors may stay below one half up to a cosine of 1
_PRIOR = (0.1, 0.6)  # standard deviations of a category's steepness, relative, and of its offset in logits


@dataclass(frozen=True, slots=True)
class ThresholdFit:
    """An open-set rule and its error rates on the pictures it was fitted on."""

    open_set: OpenSet
    known: int  # predictions in this category for pictures whose item was in the gallery
    unknown: int  # predictions in this category for other pictures
    false_accept: float  # share of unknown pictures above the threshold
    false_reject: float  # share of correct predictions below the threshold
    rule: str  # how the threshold was chosen
    named: float | None  # share of this category's pictures of known items that are named rightly; None: no picture

    def row(self) -> dict[str, object]:
        """Return the fit as the manifest stores it."""
        return {
            "known": self.known,
            "unknown": self.unknown,
            "false_accept": round(self.false_accept, 4),
            "false_reject": round(self.false_reject, 4),
            "named": None if self.named is None else round(self.named, 4),
            "rule": self.rule,
        }


def is_enough(predictions: Predictions) -> bool:
    """Return whether a curve can be calibrated on these predictions."""
    reached = predictions.category != ""
    right, unknown = (predictions.pictures(rows & reached) for rows in (predictions.correct, ~predictions.known))
    return min(right, unknown) >= MIN_PREDICTIONS


def fit_thresholds(
    predictions: Predictions,
    categories: Sequence[str],
    false_accept: float | None = None,
    together: Sequence[Collection[str]] = (),
    risk: float | None = None,
) -> dict[str, ThresholdFit]:
    """Fit every category.

    Args:
        predictions: result of `leave_items_out`. The rules say whether they are enough for a calibrated curve.
        categories: categories to fit.
        false_accept: share of the unknown pictures that may be accepted, over all categories; None: the threshold is
            the accuracy over all predictions.
        together: groups of categories that a device searches together.
        risk: share of the named pictures that may be named wrongly; instead of `false_accept`.

    Raises:
        QuantizeError: the pictures cannot show the risk.
    """
    searched = {name: {name}.union(*(group for group in together if name in group)) for name in categories}
    reached = predictions.select(predictions.category != "")
    pooled = _fit_logistic(reached)
    curves = {}
    for name in categories:
        own = _in(predictions, searched[name])
        curves[name] = _fit_logistic(own, pooled) if len(own.score) else pooled
    logits = np.full(len(predictions.score), -np.inf)
    for name, (slope, midpoint) in curves.items():
        rows = predictions.category == name
        logits[rows] = slope * (predictions.score[rows] - midpoint)
    levels = _levels(predictions, logits, false_accept, risk)
    highest = float(reached.score[reached.correct].max(initial=-1.0)) - _BELOW_BEST
    fits = {}
    for name, (slope, midpoint) in curves.items():
        wanted = _cosine(levels.wanted, slope, midpoint)
        points = {share: round(min(_cosine(at, slope, midpoint), highest), 4) for share, at in levels.shares.items()}
        # rounded up: a threshold just below a level would name more
        surest = {share: math.ceil(1e4 * _cosine(at, slope, midpoint)) / 1e4 for share, at in levels.risks.items()}
        open_set = OpenSet(
            threshold=round(min(wanted, highest), 4) if risk is None else surest[risk],
            slope=round(slope, 3),
            midpoint=round(midpoint, 4),
            false_accept=false_accept,
            risk=risk,
            calibrated=is_enough(predictions),
            operating_points={f"{share:g}": cosine for share, cosine in points.items()},
            risk_points={f"{share:g}": cosine for share, cosine in surest.items()},
        )
        limited = f"the best right answer; none reaches a {levels.why}"
        fits[name] = evaluate_fit(
            open_set, predictions, name, levels.why if risk is not None or wanted <= highest else limited
        )
    return fits


@dataclass(frozen=True, slots=True)
class _Levels:
    """Levels of the curves, in logits."""

    wanted: float  # of the thresholds
    why: str
    shares: dict[float, float]  # by share of accepted unknown objects
    risks: dict[float, float]  # by share of wrong names; without those that the pictures cannot show


def _levels(
    predictions: Predictions, logits: NDArray[np.float64], false_accept: float | None, risk: float | None
) -> _Levels:
    """Choose the levels for every operating point, and the one that was asked for.

    Raises:
        QuantizeError: the pictures cannot show the risk.
    """
    reached = predictions.category != ""
    rate = float(np.clip(predictions.correct[reached].mean(), 0.5, 0.95))
    least = math.log(rate / (1 - rate))
    unknown, items = logits[~predictions.known], len(np.unique(predictions.item[~predictions.known]))
    shares = sorted({*OPERATING_POINTS, *([] if false_accept is None else [false_accept])})
    points = {share: max(least, level_accepting(unknown, share, items)) for share in shares}
    search = _risk_search(predictions, logits)
    found = {one: search.lowest(one) for one in sorted({*RISKS, *([] if risk is None else [risk])})}
    risks = {one: at.level for one, at in found.items() if at is not None}
    if risk is not None:
        chosen = found[risk]
        if chosen is None:
            raise QuantizeError(_cannot_show(risk, search))
        return _Levels(chosen.level, f"share of wrong names of at most {risk:.3g}: {chosen}", points, risks)
    if false_accept is not None:
        why = f"share of accepted unknown objects of at most {false_accept:.3g}"
        return _Levels(points[false_accept], why, points, risks)
    return _Levels(least, f"probability of at least the overall accuracy, {rate:.2f}", points, risks)


def _risk_search(predictions: Predictions, logits: NDArray[np.float64]) -> RiskSearch:
    """Order the answers that a device names at some threshold, see `edge.recognition.decision`.

    Answers that are likelier wrong than right are left out: at a threshold among them, a device names whatever is near
    enough, however unlikely its category is (`counts_category`).
    """
    likely = predictions.probability / (1 + np.exp(-np.clip(logits, -50, 50))) >= MIN_PROBABILITY
    return RiskSearch(np.where(likely & (logits >= 0), logits, -np.inf), ~predictions.correct, predictions.weight)


def _cannot_show(risk: float, search: RiskSearch) -> str:
    best = search.best()
    shown = "no answer reaches a name" if best is None else f"the best that they show: {best}"
    return (
        f"--risk {risk:g}: the held-out pictures cannot show that at most {100 * risk:g} in 100 names are wrong; "
        f"{shown}. State a higher risk, or hold out more pictures: at {100 * CONFIDENCE:.0f} % confidence it takes "
        f"{search.fewest(risk)} named pictures without a wrong one, or more with a few"
    )


def _in(predictions: Predictions, categories: Collection[str]) -> Predictions:
    return predictions.select(np.isin(predictions.category, list(categories)))


def level_accepting(levels: NDArray[np.float64], share: float, items: int) -> float:
    """Return the score or logit above which this share of unknown objects lies.

    The share is read from a smooth curve through the levels, whose width depends on the number of items (Silverman
    1986). Rules fitted on few items are still too optimistic: at a requested 5 %, groceries that were not fitted on
    were accepted at 8.8 % (9.3 % without smoothing) with 30 items fitted, and at 6.8 % (8.1 %) with 48.

    Args:
        levels: of unknown objects; -inf for one that reached nothing.
        share: of them that may lie above.
        items: number of different items among them.
    """
    reached = levels[np.isfinite(levels)]
    if not len(reached):
        return -math.inf
    upper, top = np.quantile(reached, [0.75, 0.975])  # values far below do not describe the tail
    width = 1.06 * float(top - upper) / 1.286 * math.pow(items, -0.2)
    width = max(1e-3, width * math.sqrt(3) / math.pi)  # width of a logistic kernel
    low, high = float(reached.min()) - 40 * width, float(reached.max()) + 40 * width
    for _ in range(60):
        middle = (low + high) / 2
        accepted = float((1 / (1 + np.exp(-np.clip((reached - middle) / width, -50, 50)))).sum()) / len(levels)
        low, high = (middle, high) if accepted > share else (low, middle)
    return high


def _cosine(logit: float, slope: float, midpoint: float) -> float:
    return float(np.clip(midpoint + logit / slope, -1.0, 1.0))


def is_accepted(open_set: OpenSet, own: Predictions) -> NDArray[np.bool_]:
    """Return whether a device names the answers in a category, as `edge.recognition.decision` decides it."""
    accepted = own.score >= open_set.threshold
    if open_set.calibrated and counts_category(open_set):
        likely = [probability_of(score, open_set) for score in own.score.tolist()]
        accepted &= own.probability * np.array(likely) >= MIN_PROBABILITY
    return accepted


def evaluate_fit(open_set: OpenSet, predictions: Predictions, category: str, rule: str) -> ThresholdFit:
    """Apply a rule to the predictions in a category, and to the known pictures of it."""
    own = predictions.select(predictions.category == category)
    accepted = is_accepted(open_set, own)
    ours = predictions.known & (predictions.true_category == category)
    named = accepted & own.correct & (own.true_category == category)
    return ThresholdFit(
        open_set,
        int(own.known.sum()),
        int((~own.known).sum()),
        float(accepted[~own.known].mean()) if (~own.known).any() else 0.0,
        float((~accepted[own.correct]).mean()) if own.correct.any() else 0.0,
        rule,
        float(named.sum() / ours.sum()) if ours.any() else None,
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
    return slope, float(np.clip(midpoint, -1.0, _FARTHEST_MIDPOINT))
