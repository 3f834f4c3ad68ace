"""The level above which at most a stated share of the named objects is named wrongly, with a confidence bound.

Rules this module keeps:
1. The risk is a share of what is *named*: wrong items, and unknown objects that are named at all. A picture counts
   once, however many rounds left items out; in each round a fifth of the items is unknown.
2. A level is promised only if the exact upper limit of its risk (Clopper and Pearson 1934) is not above the stated one.
   The search is that of Geifman and El-Yaniv 2017 (SGR, arXiv 1705.08500): it halves the candidates, and shares the
   missing confidence among all limits that it may compute. Pictures that say too little give no level.
3. The limit takes pictures for independent, and curves for given; pictures of one item in one place say less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RISKS = (0.01, 0.02, 0.05, 0.1)  # every bundle has a threshold for those of them that its pictures can show


@dataclass(frozen=True, slots=True)
class RiskLevel:
    """What the pictures say about the objects that are named at a level."""

    level: float  # lowest level that is named
    named: float  # pictures, each once for all its rounds
    wrong: float  # of them
    limit: float  # the risk is at most this, with the confidence of the search

    def __str__(self) -> str:
        """Say it in words."""
        told = f"{self.wrong:.1f} of {self.named:.0f} named pictures wrong"
        return f"{told}, so at most {100 * self.limit:.1f} in 100 with {100 * CONFIDENCE:.0f} % confidence"


def upper_limit(wrong: int, named: int, missing: float) -> float:
    """Return the upper Clopper-Pearson limit of a share.

    Args:
        wrong: occurrences.
        named: trials.
        missing: probability that the limit is too low, such as 0.05.
    """
    if wrong >= named:
        return 1.0
    k = np.arange(wrong + 1)
    logs = np.r_[0.0, np.cumsum(np.log(np.arange(1, named + 1)))]
    choose = logs[named] - logs[k] - logs[named - k]
    low, high = wrong / named, 1.0
    for _ in range(60):
        share = (low + high) / 2
        tail = float(np.exp(choose + k * math.log(share) + (named - k) * math.log1p(-share)).sum())
        low, high = (share, high) if tail > missing else (low, share)
    return high


def fewest_pictures(risk: float, missing: float = 1 - CONFIDENCE) -> int:
    """Return how many named pictures, none of them wrong, show a risk; `missing` as in `upper_limit`."""
    return math.ceil(math.log(missing) / math.log1p(-risk))


class RiskSearch:
    """The named pictures of all rounds, the surest first."""

    def __init__(self, levels: NDArray[np.float64], wrong: NDArray[np.bool_], weight: float) -> None:
        """Order the answers.

        Args:
            levels: of each picture and round; -inf where nothing is named at any level.
            wrong: whether the name would be wrong.
            weight: of each row, so that the rounds of a picture count as one.
        """
        rows = np.flatnonzero(np.isfinite(levels))
        rows = rows[np.argsort(-levels[rows], kind="stable")]
        ordered = levels[rows]
        ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True]) if len(rows) else np.zeros(0, np.int64)
        self._levels = ordered[ends]
        self._named = weight * (ends + 1.0)
        self._wrong = weight * np.cumsum(wrong[rows])[ends] if len(rows) else np.zeros(0)
        self._missing = (1 - CONFIDENCE) / max(1, math.floor(math.log2(max(1, len(ends)))) + 1)

    def lowest(self, risk: float) -> RiskLevel | None:
        """Return the lowest level found whose risk is at most the stated one; None if no limit shows it."""
        found, low, high = None, 0, len(self._levels) - 1
        while low <= high:
            middle = (low + high) // 2
            one = self.at(middle)
            if one.limit <= risk:
                found, low = one, middle + 1
            else:
                # with few pictures a limit is high for their number alone: the way to more pictures stays open
                enough = one.named >= self.fewest(risk)
                low, high = (low, middle - 1) if enough else (middle + 1, high)
        return found

    def fewest(self, risk: float) -> int:
        """Return how many named pictures, none of them wrong, show a risk in this search."""
        return fewest_pictures(risk, self._missing)

    def best(self) -> RiskLevel | None:
        """Return the level of the lowest limit of a few; None if nothing is named."""
        if not len(self._levels):
            return None
        places = np.unique(np.linspace(0, len(self._levels) - 1, 50).astype(int)).tolist()
        return min((self.at(place) for place in places), key=lambda one: one.limit)

    def at(self, place: int) -> RiskLevel:
        """Return what is known of the `place`-th level."""
        named, wrong = float(self._named[place]), float(self._wrong[place])
        # a part of a picture is rounded to the side that raises the limit
        limit = upper_limit(math.ceil(wrong - 1e-9), max(1, math.floor(named + 1e-9)), self._missing)
        return RiskLevel(float(self._levels[place]), named, wrong, limit)
