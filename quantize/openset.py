"""When a nearest item counts as the item: a threshold and a probability per category, fitted on held-out crops.

Genuine scores: the best cosine of a crop whose nearest item is right. Impostor scores: the best cosine of a crop once
its own item is taken out of the gallery, which is what an unknown object of the category looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.manifest import OpenSet
from edge.types import FloatArray
from quantize.index import Sample

ACCEPT = 0.99  # of the right matches
OVERLAP = 0.05  # impostors accepted at that threshold beyond which both errors are made equal instead
MIN_SCORES = 20  # of each sort
Scores = tuple[NDArray[np.float64], NDArray[np.float64]]  # genuine, impostor
_MIN_SLOPE, _MAX_SLOPE = 5.0, 200.0


@dataclass(frozen=True, slots=True)
class Fit:
    """An open-set rule and how it does on the crops it was fitted on."""

    open_set: OpenSet
    genuine: int  # scores it was fitted on
    impostors: int
    false_accept: float  # impostors that count as an item
    false_reject: float  # right matches that do not
    rule: str  # how the threshold was chosen

    def row(self) -> dict[str, object]:
        """The fit as the manifest holds it."""
        return {
            "genuine": self.genuine,
            "impostors": self.impostors,
            "false_accept": round(self.false_accept, 4),
            "false_reject": round(self.false_reject, 4),
            "rule": self.rule,
        }


def scores_of(
    queries: FloatArray, query_samples: Sequence[Sample], gallery: FloatArray, gallery_samples: Sequence[Sample]
) -> Scores:
    """Genuine and impostor scores of crops of one category against its gallery."""
    genuine, impostor = [], []
    items = np.asarray([s.item for s in gallery_samples])
    for vector, sample in zip(queries, query_samples, strict=True):
        cosine = gallery @ vector
        if items[int(cosine.argmax())] == sample.item:
            genuine.append(float(cosine.max()))
        others = cosine[items != sample.item]
        if len(others):
            impostor.append(float(others.max()))
    return np.asarray(genuine, np.float64), np.asarray(impostor, np.float64)


def fit(genuine: NDArray[np.float64], impostor: NDArray[np.float64]) -> Fit:
    """Fit threshold and probability; the manifest's defaults when there are too few scores."""
    if len(genuine) < MIN_SCORES or len(impostor) < MIN_SCORES:
        default = OpenSet()
        return _report(default, genuine, impostor, f"default, fewer than {MIN_SCORES} scores")
    accepting = float(np.quantile(genuine, 1 - ACCEPT))
    far = float((impostor >= accepting).mean())
    if far > OVERLAP:
        threshold, rule = _equal_error(genuine, impostor), "equal error"
    else:
        # The middle of the gap below the accepted scores: a duller camera has as much room as a lookalike.
        lookalike = float(np.quantile(impostor, 1 - OVERLAP / 5))
        threshold, rule = min(accepting, (accepting + lookalike) / 2), f"accepts {ACCEPT:.0%}"
    slope, midpoint = _logistic(genuine, impostor)
    chosen = OpenSet(threshold=round(threshold, 4), slope=round(slope, 3), midpoint=round(midpoint, 4))
    return _report(chosen, genuine, impostor, rule)


def fit_each(scores: dict[str, Scores], categories: Sequence[str]) -> dict[str, Fit]:
    """Fit each category of one embedder; one with too few scores of its own takes those of all."""
    pooled = tuple(np.concatenate([np.zeros(0), *(pair[sort] for pair in scores.values())]) for sort in (0, 1))
    fits = {}
    for category in categories:
        genuine, impostor = scores.get(category, (np.zeros(0), np.zeros(0)))
        if min(len(genuine), len(impostor)) >= MIN_SCORES:
            fits[category] = fit(genuine, impostor)
        else:
            shared = fit(pooled[0], pooled[1])
            fits[category] = replace(shared, rule=f"{shared.rule}, of all categories")
    return fits


def _report(open_set: OpenSet, genuine: NDArray[np.float64], impostor: NDArray[np.float64], rule: str) -> Fit:
    return Fit(
        open_set,
        len(genuine),
        len(impostor),
        float((impostor >= open_set.threshold).mean()) if len(impostor) else 0.0,
        float((genuine < open_set.threshold).mean()) if len(genuine) else 0.0,
        rule,
    )


def _equal_error(genuine: NDArray[np.float64], impostor: NDArray[np.float64]) -> float:
    """The score at which as large a share of impostors is accepted as of genuine ones is rejected."""
    candidates = np.sort(np.concatenate([genuine, impostor]))
    accept = 1 - np.searchsorted(np.sort(impostor), candidates, side="left") / len(impostor)
    reject = np.searchsorted(np.sort(genuine), candidates, side="left") / len(genuine)
    return float(candidates[int(np.abs(accept - reject).argmin())])


def _logistic(genuine: NDArray[np.float64], impostor: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and midpoint by Newton's method on smoothed targets (Platt 1999), both sorts weighted alike."""
    x = np.concatenate([genuine, impostor])
    target = np.concatenate(
        [np.full(len(genuine), 1 - 1 / (len(genuine) + 2)), np.full(len(impostor), 1 / (len(impostor) + 2))]
    )
    weight = np.concatenate([np.full(len(genuine), 0.5 / len(genuine)), np.full(len(impostor), 0.5 / len(impostor))])
    centre, spread = float(x.mean()), float(x.std()) or 1.0
    z = (x - centre) / spread
    a, b = 1.0, 0.0
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(a * z + b, -30, 30)))
        gradient = np.array([(weight * (p - target) * z).sum() + 1e-3 * a, (weight * (p - target)).sum()])
        v = weight * p * (1 - p)
        hessian = np.array([[(v * z * z).sum() + 1e-3, (v * z).sum()], [(v * z).sum(), v.sum() + 1e-9]])
        step = np.linalg.solve(hessian, gradient)
        a, b = a - step[0], b - step[1]
        if float(np.abs(step).max()) < 1e-9:
            break
    slope = float(np.clip(a / spread, _MIN_SLOPE, _MAX_SLOPE))
    midpoint = centre - b * spread / a if a > 0 else centre
    return slope, float(np.clip(midpoint, -1.0, 1.0))
