"""Whether the gallery still fits what the cameras see: its age, and how the surety of answers drifts.

A stale gallery is confidently wrong before anybody notices. So the top answers' probabilities of the latest objects are
compared with those of the first objects that were seen with this gallery, which are kept on the disk.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from datetime import datetime
from pathlib import Path

from edge.durable import write_durably
from edge.manifest import OpenSet
from edge.recognition.decision import probability_of
from edge.recognition.loaded_models import LoadedModels
from edge.types import Decision

log = logging.getLogger(__name__)

WINDOW = 200  # objects that are compared
_BINS = 10


class GalleryDrift:
    """The first and the latest answers by one pair of bundle and gallery; only the frame loop calls `note`."""

    def __init__(self, path: Path) -> None:
        """Begin empty.

        Args:
            path: where the first answers are kept over restarts.
        """
        self._path = path
        self._pair = ""
        self._first: list[int] = []  # bins
        self._latest: deque[int] = deque(maxlen=WINDOW)

    def note(self, decision: Decision, models: LoadedModels) -> None:
        """Take in what one object was told to be at last; what was never compared with anything says nothing."""
        if decision.category is None or not decision.top:
            return
        pair = f"{models.bundle_id} {models.gallery_id}"
        if pair != self._pair:
            self._pair, self._first, self._latest = pair, self._kept(pair), deque(maxlen=WINDOW)
        rule = models.open_sets.get(decision.category.name, OpenSet())
        place = min(int(probability_of(decision.top[0].score, rule) * _BINS), _BINS - 1)
        if len(self._first) < WINDOW:
            self._first.append(place)
            if len(self._first) == WINDOW:
                self._keep()
        else:
            self._latest.append(place)

    @property
    def drift(self) -> float | None:
        """The largest gap between the two cumulative distributions (Kolmogorov-Smirnov), 0..1; None: too few yet."""
        latest = list(self._latest)
        if len(latest) < WINDOW:
            return None
        return max(abs(_below(self._first, edge) - _below(latest, edge)) for edge in range(1, _BINS))

    def _kept(self, pair: str) -> list[int]:
        try:
            kept = json.loads(self._path.read_text(encoding="ascii"))
            first = [int(place) for place in kept["first"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []  # none yet, or damaged: it begins anew
        return first if kept.get("pair") == pair and len(first) == WINDOW else []

    def _keep(self) -> None:
        try:
            write_durably(self._path, json.dumps({"pair": self._pair, "first": self._first}).encode("ascii"))
        except OSError as error:
            log.warning("%s: the first answers are not kept over a restart: %s", self._path, error.strerror)


def age_s(created_at: str | None, now: float) -> float | None:
    """Seconds since a gallery was made; None where nobody knows.

    Args:
        created_at: ISO 8601.
        now: Unix seconds.
    """
    if created_at is None:
        return None
    try:
        made = datetime.fromisoformat(created_at.replace("Z", "+00:00"))
    except ValueError:
        return None
    return max(0.0, now - made.timestamp()) if made.tzinfo else None


def staleness(
    gallery_age_s: float | None, drift: float | None, most_days: float | None, most_drift: float | None
) -> tuple[str, ...]:
    """Why a gallery is to be renewed, for people; nothing while it is fine.

    Args:
        gallery_age_s: of the gallery.
        drift: of the answers, 0..1.
        most_days: age that is fine; None: any.
        most_drift: that is fine; None: any.
    """
    found = []
    if gallery_age_s is not None and most_days is not None and gallery_age_s > most_days * 86400:
        found.append(f"it is {gallery_age_s / 86400:.0f} days old, expected at most {most_days:g}")
    if drift is not None and most_drift is not None and drift > most_drift:
        found.append(f"the surety of answers has drifted by {drift:.2f}, expected at most {most_drift:g}")
    return tuple(found)


def _below(places: list[int], edge: int) -> float:
    return sum(place < edge for place in places) / len(places)
