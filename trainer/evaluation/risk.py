"""Selective risk: how many of the named objects are named wrongly, when only the surest answers are given.

The risk-coverage curve orders all pictures by the certainty of their answer. At a coverage of a half, the surer half is
named, and the risk is the share of wrong names in it; a picture of an unknown item is wrong wherever it is named. The
area under it, AURC, and its excess over the best possible order of the same answers, E-AURC, follow Geifman, Uziel and
El-Yaniv 2019 (arXiv 1805.08206). Pure numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.open_set import QueryResult

RISKS = (0.01, 0.02, 0.05, 0.1)
_POINTS = 40  # of a curve in a report


@dataclass(frozen=True, slots=True)
class RiskCurve:
    """The risk at each coverage: k / n of the pictures are named, the k surest."""

    risks: NDArray[np.float64]  # (n,) at coverages 1/n, 2/n, …, 1; pictures of one certainty share their errors
    ends: NDArray[np.bool_]  # (n,) whether a threshold can lie behind the picture: the next one is less certain

    @property
    def area(self) -> float:
        """AURC: the mean risk over all coverages; 0 without a picture."""
        return float(self.risks.mean()) if len(self.risks) else 0.0

    @property
    def excess(self) -> float:
        """E-AURC: by how much it exceeds the area of the order that puts every wrong answer last."""
        count = len(self.risks)
        wrong = round(float(self.risks[-1]) * count) if count else 0
        best = np.r_[np.zeros(count - wrong), np.ones(wrong)].cumsum() / np.arange(1, count + 1)
        return self.area - (float(best.mean()) if count else 0.0)

    def coverage_at(self, risk: float) -> float:
        """Return the largest share of pictures that can be named at this risk."""
        kept = np.flatnonzero((self.risks <= risk) & self.ends)
        return float(kept[-1] + 1) / len(self.risks) if len(kept) else 0.0

    def points(self) -> list[dict[str, float]]:
        """Return coverages and risks, evenly spaced, for a report."""
        if not len(self.risks):
            return []
        chosen = np.unique(np.linspace(0, len(self.risks) - 1, _POINTS).round().astype(int))
        return [{"coverage": (k + 1) / len(self.risks), "risk": float(self.risks[k])} for k in chosen]


def risk_curve(results: Sequence[QueryResult]) -> RiskCurve:
    """Return the curve of answers; one without a nearest item comes last, and is wrong."""
    return curve_of(*scores_and_errors(results))


def scores_and_errors(results: Sequence[QueryResult]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the score of each answer, (n,), and 1 for each wrong one, else 0."""
    scores = np.array([one.score for one in results], np.float64)
    return scores, np.array([not is_right(one) for one in results], np.float64)


def curve_of(scores: NDArray[np.float64], wrong: NDArray[np.float64]) -> RiskCurve:
    """Return the curve of answers with these `scores_and_errors`."""
    order = np.argsort(-scores, kind="stable")
    scores, wrong = scores[order], wrong[order]
    ends = np.r_[scores[1:] != scores[:-1], True] if len(scores) else np.zeros(0, np.bool_)
    group = np.r_[0, np.cumsum(ends[:-1])] if len(scores) else np.zeros(0, np.int64)
    shared = np.bincount(group, wrong) / np.bincount(group) if len(scores) else np.zeros(0)
    return RiskCurve(shared[group].cumsum() / np.arange(1, len(scores) + 1), ends)


def is_right(result: QueryResult) -> bool:
    """Return whether the nearest item is the true one, and known."""
    return result.known and result.nearest == result.true_item


def named_wrongly(results: Sequence[QueryResult]) -> NDArray[np.float64]:
    """Return 1 for each named object that is named wrongly, 0 for each other named one."""
    return np.array([float(one.outcome == "wrong") for one in results if one.predicted_item is not None], np.float64)
