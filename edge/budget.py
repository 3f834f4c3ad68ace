"""How many looks may be spent, and on which tracks: what is not recognised first, then close calls, then re-checks.

Rules:
1. Looks accrue at a stated rate over all cameras, and at most one second's worth is saved up.
2. A share of what can be saved is kept for those in greater need: the looks that one camera's re-checks take now would
   be missing for the new object of another camera a moment later.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from edge.evidence import Evidence


class Need(IntEnum):
    """How much a track needs a look, most first."""

    UNRECOGNISED = 0
    CLOSE = 1  # recognised, but not clearly
    RECHECK = 2


_KEPT_FOR_OTHERS = {Need.UNRECOGNISED: 0.0, Need.CLOSE: 0.25, Need.RECHECK: 0.5}


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """A wish for a look; the smaller, the more urgent."""

    need: Need
    rank: float  # among those of like need


def claim_of(evidence: Evidence, now_s: float, *, settled: bool) -> Claim:
    """How urgently a track needs a look.

    Args:
        evidence: what is known of it.
        now_s: time of the frame.
        settled: nothing but a re-check is left to do.
    """
    if evidence.decision is not None and settled:
        return Claim(Need.RECHECK, evidence.last_look_s - now_s)  # longest ago first
    match = evidence.decision.match if evidence.decision else None
    if match is None:
        return Claim(Need.UNRECOGNISED, evidence.looks)
    return Claim(Need.CLOSE, match.margin)


class LookBudget:
    """The looks that may be spent."""

    def __init__(self, looks_per_s: float) -> None:
        self._looks_per_s = looks_per_s
        self._most = max(1.0, looks_per_s)
        self._saved = self._most
        self._saved_at_s: float | None = None

    def grant(self, claims: list[Claim], now_s: float) -> list[bool]:
        """Spend looks on the most urgent claims.

        Args:
            claims: of the tracks of one frame.
            now_s: monotonic time; of the device, for it is its work that is limited.

        Returns:
            for each claim, whether it is granted.
        """
        if self._saved_at_s is not None:
            self._saved = min(self._most, self._saved + self._looks_per_s * max(0.0, now_s - self._saved_at_s))
        self._saved_at_s = now_s
        granted = [False] * len(claims)
        for i in sorted(range(len(claims)), key=lambda i: claims[i]):
            kept = _KEPT_FOR_OTHERS[claims[i].need] * (self._most - 1.0)
            if self._saved - kept >= 1.0 - 1e-9:
                self._saved -= 1.0
                granted[i] = True
        return granted
