"""Recognition where not everything shown is in the gallery: outcomes, and how well scores tell known from unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OUTCOMES = ("identified", "wrong", "unknown", "missed")
SHARES = (0.01, 0.05, 0.1)  # of the unknown that are falsely accepted


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was answered to one picture."""

    shown: str  # the item
    known: bool  # whether the gallery has it
    answer: str | None  # the item it was told to be; None: unknown
    nearest: str | None  # the item it is most like; None: nothing was searched
    score: float  # how sure of the nearest: larger is surer, -inf where there is none
    probability: float | None = None  # calibrated, of the nearest; None: not calibrated

    @property
    def outcome(self) -> str:
        """Identified, wrong or unknown; of a picture of an unknown item, wrong is a false accept."""
        if self.answer is None:
            return "unknown"
        return "identified" if self.known and self.answer == self.shown else "wrong"


def outcomes(verdicts: Sequence[Verdict], *, known: bool, missed: int = 0) -> dict[str, float]:
    """The share of each outcome among the pictures of known, or of unknown, items.

    Args:
        verdicts: of pictures that were looked at.
        known: of which.
        missed: objects that were shown and never looked at.
    """
    chosen = [verdict.outcome for verdict in verdicts if verdict.known == known]
    total = len(chosen) + missed
    shares = {name: chosen.count(name) / total if total else 0.0 for name in OUTCOMES[:3]}
    return shares | {"missed": missed / total if total else 0.0}


def area_under_curve(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """The share of pairs in which the positive scores higher, ties half: AUROC; a half where a sort is missing."""
    if not len(positive) or not len(negative):
        return 0.5
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    equal = np.searchsorted(ordered, positive, side="right") - below
    return float((below + equal / 2).sum() / (len(positive) * len(negative)))


def separation(verdicts: Sequence[Verdict]) -> float:
    """AUROC of the scores of known against unknown items."""
    scores = [np.array([v.score for v in verdicts if v.known == known], np.float64) for known in (True, False)]
    return area_under_curve(*scores)


def identified_at(verdicts: Sequence[Verdict], share: float) -> NDArray[np.float64]:
    """For each known item's picture, 1 when it is identified at a threshold that accepts this share of the unknown.

    The mean is the detection and identification rate, DIR, at that false accept rate (Phillips et al. 2011).
    """
    unknown = np.sort([v.score for v in verdicts if not v.known])[::-1]
    least = unknown[min(int(share * len(unknown)), len(unknown) - 1)] if len(unknown) else -np.inf
    right = [v.nearest == v.shown and v.score > least for v in verdicts if v.known]
    return np.asarray(right, np.float64)


def reliability(verdicts: Sequence[Verdict], bins: int = 10) -> list[dict[str, float]]:
    """For each bin of the calibrated probability: pictures, mean probability, share of right answers."""
    rated = [(v.probability, v.known and v.nearest == v.shown) for v in verdicts if v.probability is not None]
    sure = np.array([p for p, _ in rated], np.float64)
    right = np.array([r for _, r in rated], np.float64)
    slot = np.minimum((sure * bins).astype(int), bins - 1)
    return [
        {"count": float(chosen.sum()), "probability": float(sure[chosen].mean()), "right": float(right[chosen].mean())}
        for number in range(bins)
        if (chosen := slot == number).any()
    ]


def calibration_error_of(bins: Sequence[dict[str, float]]) -> float:
    """Expected calibration error: the gaps of the bins, weighted by their pictures."""
    total = sum(one["count"] for one in bins)
    gaps = sum(one["count"] * abs(one["probability"] - one["right"]) for one in bins)
    return gaps / total if total else 0.0
