"""When a nearest item counts as the item: a probability and a threshold per category, fitted on items left out.

Rules this module keeps:
1. Unknown objects are made from the catalogue: again and again a fifth of its items is taken out of the gallery, and
   the held-out crops of those are asked as crops that nothing knows. The others are asked as known. Held-out crops of
   items that the gallery never had are unknown in every round: they are worth most, for the embedder was not trained on
   them (benchmarks/results/openset.json says how much harder they are).
2. A crop is asked as on a device: every category that is likely enough is searched, and edge.recognition.decision chooses among them.
   So a category's rule is fitted on all that reaches its gallery, crops of other categories too.
3. A category with few answers leans on all others: its logistic is fitted with theirs as the prior (shrinkage).
4. One probability is the threshold of all categories, for that accepts the most known objects at a given share of
   unknown ones. It is kept as a cosine for each category, and is never below the share of right answers among all: a
   score that speaks against the item rather than for it does not name it. That share it is where none is asked for.
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

SHARE_LEFT_OUT = 0.2  # of the items of the catalogue
ROUNDS = 20  # of leaving out; each crop is then asked as unknown four times
MIN_ANSWERS = 20  # of each sort
OPERATING_POINTS = (0.01, 0.05, 0.1)  # shares of the unknown objects accepted that every bundle has thresholds for
_EACH = OpenSet(threshold=-1.0)  # every nearest item counts
_MIN_SLOPE, _MAX_SLOPE = 5.0, 200.0
_PRIOR = (0.1, 0.6)  # standard deviations of a category's steepness, relative, and of its offset in logits


@dataclass(frozen=True, slots=True)
class ScoredCrop:
    """What the packed models say of one held-out crop."""

    item: str  # that it shows
    categories: list[Category]  # worth a search, best first
    scores: Mapping[str, FloatArray]  # by category, the best cosine with each of its items, (items,)


@dataclass(frozen=True, slots=True)
class Predictions:
    """What was answered to crops, while some items were left out; one row for each time a crop was asked."""

    item: NDArray[np.str_]  # that was shown
    category: NDArray[np.str_]  # of the nearest item; "" where nothing was searched
    score: NDArray[np.float64]  # cosine with it
    right: NDArray[np.bool_]
    known: NDArray[np.bool_]  # whether the gallery had the item
    weight: float = 1.0  # of a row: a crop that is asked twenty times says no more than once

    def of(self, rows: NDArray[np.bool_]) -> Predictions:
        """Some of the rows."""
        return Predictions(
            self.item[rows], self.category[rows], self.score[rows], self.right[rows], self.known[rows], self.weight
        )


@dataclass(frozen=True, slots=True)
class ThresholdFit:
    """An open-set rule and how it does on the crops it was fitted on."""

    open_set: OpenSet
    known: int  # answers that reached the category, of crops whose item was in the gallery
    unknown: int  # of the others
    false_accept: float  # share of the latter that count as an item
    false_reject: float  # share of the right answers that do not
    rule: str  # how it was fitted

    def row(self) -> dict[str, object]:
        """The fit as the manifest holds it."""
        return {
            "known": self.known,
            "unknown": self.unknown,
            "false_accept": round(self.false_accept, 4),
            "false_reject": round(self.false_reject, 4),
            "rule": self.rule,
        }


def leave_items_out(
    asked: Sequence[ScoredCrop],
    items: Mapping[str, Sequence[str]],
    *,
    rounds: int = ROUNDS,
    share: float = SHARE_LEFT_OUT,
    seed: int = 0,
) -> Predictions:
    """Answer every crop in each round, with a share of all items out of the gallery.

    Args:
        asked: held-out crops.
        items: of the gallery by category, in the order of `ScoredCrop.scores`.
        rounds: draws of the items that are left out.
        share: of the items.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    catalogue = sorted({item for names in items.values() for item in names})
    rows: list[tuple[str, float, bool, bool]] = []
    for _ in range(rounds if catalogue else 0):
        left = set(rng.choice(catalogue, max(1, round(share * len(catalogue))), replace=False).tolist())
        rows += [answer(crop, items, left) for crop in asked]
    category, score, right, known = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Predictions(
        np.asarray([crop.item for crop in asked] * (rounds if catalogue else 0), np.str_),
        np.asarray(category, np.str_),
        np.asarray(score, np.float64),
        np.asarray(right, np.bool_),
        np.asarray(known, np.bool_),
        1 / rounds,
    )


def answer(crop: ScoredCrop, items: Mapping[str, Sequence[str]], left: set[str]) -> tuple[str, float, bool, bool]:
    """Category and cosine of the nearest item as a device would choose it, whether it is right, whether it could be."""
    hits = {}
    for category in crop.categories:
        scores = crop.scores.get(category.name)
        if scores is None:
            continue
        order = [i for i in np.argsort(-scores, kind="stable") if items[category.name][i] not in left]
        if order:
            names = items[category.name]
            hits[category.name] = [Hit(names[i], names[i], float(scores[i])) for i in order[:2]]
    decision = decide(crop.categories, hits, dict.fromkeys(hits, _EACH))
    known = crop.item not in left and any(crop.item in names for names in items.values())
    if decision.match is None or decision.category is None:
        return "", -1.0, False, known
    return decision.category.name, decision.match.score, decision.match.item_id == crop.item, known


def fit(answers: Predictions, categories: Sequence[str], false_accept: float | None = None) -> dict[str, ThresholdFit]:
    """ThresholdFit every category; the manifest's defaults where there are too few answers to fit any.

    Args:
        answers: of `leave_items_out`.
        categories: to fit.
        false_accept: share of the unknown crops that may be accepted, over all categories; None: whatever scores
            better than answers do at large.
    """
    reached = answers.of(answers.category != "")
    if min(int(reached.right.sum()), int((~reached.known).sum())) < MIN_ANSWERS:
        rule = f"default, fewer than {MIN_ANSWERS} answers"
        return {name: _evaluate_fit(OpenSet(), answers.of(answers.category == name), rule) for name in categories}
    pooled = _fit_logistic(reached)
    curves = {}
    for name in categories:
        own = answers.of(answers.category == name)
        curves[name] = _fit_logistic(own, pooled) if len(own.score) else pooled
    logits = np.full(len(answers.score), -np.inf)
    for name, (slope, midpoint) in curves.items():
        rows = answers.category == name
        logits[rows] = slope * (answers.score[rows] - midpoint)
    shares = sorted({*OPERATING_POINTS, *([] if false_accept is None else [false_accept])})
    rate = float(np.clip(reached.right.mean(), 0.5, 0.95))
    least = math.log(rate / (1 - rate))
    unknown = answers.of(~answers.known)
    points = {share: max(least, _logit_accepting(unknown, logits[~answers.known], share)) for share in shares}
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
            f"as sure as answers at large, {rate:.2f}"
            if false_accept is None
            else f"accepts {false_accept:.3g} of the unknown"
        )
        fits[name] = _evaluate_fit(open_set, answers.of(answers.category == name), why)
    return fits


def _logit_accepting(unknown: Predictions, logits: NDArray[np.float64], share: float) -> float:
    """The logit above which this share of unknown objects lies.

    The share is read from a smooth curve through the logits, as wide as the number of items asks for (Silverman 1986).
    Rules of few items still promise too much: where 5 % were asked for, other groceries than those fitted on were
    accepted at 8.8 % (9.3 % without smoothing) when 30 items had been fitted on, and at 6.8 % (8.1 %) with 48.
    """
    reached = logits[np.isfinite(logits)]
    if not len(reached):
        return -math.inf
    upper, top = np.quantile(reached, [0.75, 0.975])  # what lies far below says nothing of the tail
    width = 1.06 * float(top - upper) / 1.286 * math.pow(len(np.unique(unknown.item)), -0.2)
    width = max(1e-3, width * math.sqrt(3) / math.pi)  # of a logistic kernel
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
        float((~accepted[own.right]).mean()) if own.right.any() else 0.0,
        rule,
    )


def _fit_logistic(answers: Predictions, prior: tuple[float, float] | None = None) -> tuple[float, float]:
    """Slope and midpoint of the share of right answers, by Newton's method on smoothed targets (Platt 1999).

    Args:
        answers: that reached a gallery.
        prior: slope and midpoint that it leans on, as a Gaussian prior; None: on nothing.
    """
    score, right, weight = answers.score, answers.right, answers.weight
    hits, misses = weight * right.sum(), weight * (~right).sum()
    target = np.where(right, 1 - 1 / (hits + 2), 1 / (misses + 2))
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
