"""Open-set measures: outcomes of queries, some of which show items that the gallery lacks. Pure numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.types import Match

OUTCOMES = ("identified", "wrong", "unknown", "missed")
FALSE_ACCEPT_RATES = (0.01, 0.05, 0.1)


def certainty_of(match: Match, *, calibrated: bool = True) -> float:
    """Return the probability of a match; its similarity where there is no calibrated probability."""
    return match.score if match.probability is None or not calibrated else match.probability


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The result of one query picture."""

    true_item: str
    known: bool  # whether the gallery holds it
    predicted_item: str | None  # None: rejected as unknown
    nearest: str | None  # the most similar item; None: nothing was searched
    score: float  # of the nearest item, larger is more certain; -inf where there is none
    probability: float | None = None  # calibrated, of the nearest item; None: not calibrated

    @property
    def outcome(self) -> str:
        """`identified`, `wrong` or `unknown`; a `wrong` result for an unknown item is a false accept."""
        if self.predicted_item is None:
            return "unknown"
        return "identified" if self.known and self.predicted_item == self.true_item else "wrong"


def outcomes(results: Sequence[QueryResult], *, known: bool, missed: int = 0) -> dict[str, float]:
    """Return the share of each outcome among the pictures of known, or of unknown, items.

    Args:
        results: results of all query pictures.
        known: whether to count the known or the unknown items.
        missed: objects that were in a scene but were not detected.
    """
    chosen = [result.outcome for result in results if result.known == known]
    total = len(chosen) + missed
    shares = {name: chosen.count(name) / total if total else 0.0 for name in OUTCOMES[:3]}
    return shares | {"missed": missed / total if total else 0.0}


def area_under_curve(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Return the AUROC: the share of pairs in which the positive scores higher, ties half; 0.5 if either is empty."""
    if not len(positive) or not len(negative):
        return 0.5
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    equal = np.searchsorted(ordered, positive, side="right") - below
    return float((below + equal / 2).sum() / (len(positive) * len(negative)))


def separation(results: Sequence[QueryResult]) -> float:
    """Return the AUROC of the scores of known against unknown items."""
    scores = [np.array([v.score for v in results if v.known == known], np.float64) for known in (True, False)]
    return area_under_curve(*scores)


def identified_at(results: Sequence[QueryResult], false_accept_rate: float) -> NDArray[np.float64]:
    """Return 1 for each picture of a known item that is identified at this false accept rate, else 0.

    The mean is the detection and identification rate, DIR, at that false accept rate (Phillips et al. 2011).
    """
    unknown = np.sort([v.score for v in results if not v.known])[::-1]
    least = unknown[min(int(false_accept_rate * len(unknown)), len(unknown) - 1)] if len(unknown) else -np.inf
    right = [v.nearest == v.true_item and v.score > least for v in results if v.known]
    return np.asarray(right, np.float64)


def reliability(results: Sequence[QueryResult], bins: int = 10) -> list[dict[str, float]]:
    """Return for each bin of the calibrated probability: pictures, mean probability, share that was right."""
    rated = [(v.probability, v.known and v.nearest == v.true_item) for v in results if v.probability is not None]
    sure = np.array([p for p, _ in rated], np.float64)
    right = np.array([r for _, r in rated], np.float64)
    slot = np.minimum((sure * bins).astype(int), bins - 1)
    return [
        {"count": float(chosen.sum()), "probability": float(sure[chosen].mean()), "right": float(right[chosen].mean())}
        for number in range(bins)
        if (chosen := slot == number).any()
    ]


def calibration_error_of(bins: Sequence[dict[str, float]]) -> float:
    """Return the expected calibration error: the gaps of the bins, weighted by their pictures."""
    total = sum(one["count"] for one in bins)
    gaps = sum(one["count"] * abs(one["probability"] - one["right"]) for one in bins)
    return gaps / total if total else 0.0
