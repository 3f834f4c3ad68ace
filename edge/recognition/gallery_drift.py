"""Measure whether the gallery still fits the cameras' pictures: its age, and the drift of confidence.

A stale gallery gives confident wrong answers, unnoticed at first. So the probability of the nearest item is compared
between the latest objects and the first objects that were seen with this gallery. The first are kept on the disk.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from datetime import datetime
from pathlib import Path

from edge.durable import write_durably
from edge.manifest.embedder import OpenSet
from edge.recognition.decision import probability_of
from edge.recognition.loaded_models import LoadedModels
from edge.types import Decision

log = logging.getLogger(__name__)

WINDOW = 200  # objects that are compared
_BINS = 10


class GalleryDrift:
    """Compares the first and the latest decisions by one bundle and gallery; only the frame loop calls `add`."""

    def __init__(self, path: Path) -> None:
        """Start without decisions.

        Args:
            path: file that keeps the first decisions over restarts.
        """
        self._path = path
        self._pair = ""  # bundle and gallery
        self._first: list[int] = []  # histogram bins
        self._latest: deque[int] = deque(maxlen=WINDOW)

    def add(self, decision: Decision, models: LoadedModels) -> None:
        """Add the last decision on one object; one without a nearest item is ignored."""
        if decision.category is None or not decision.top:
            return
        pair = f"{models.bundle_id} {models.gallery_id}"
        if pair != self._pair:
            self._pair, self._first, self._latest = pair, self._load(pair), deque(maxlen=WINDOW)
        rule = models.open_sets.get(decision.category.name, OpenSet())
        place = min(int(probability_of(decision.top[0].score, rule) * _BINS), _BINS - 1)
        if len(self._first) < WINDOW:
            self._first.append(place)
            if len(self._first) == WINDOW:
                self._save()
        else:
            self._latest.append(place)

    @property
    def drift(self) -> float | None:
        """The largest gap between the two cumulative distributions (Kolmogorov-Smirnov), 0..1; None: too few yet."""
        latest = list(self._latest)
        if len(latest) < WINDOW:
            return None
        return max(abs(_below(self._first, edge) - _below(latest, edge)) for edge in range(1, _BINS))

    def _load(self, pair: str) -> list[int]:
        try:
            kept = json.loads(self._path.read_text(encoding="ascii"))
            first = [int(place) for place in kept["first"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []  # none yet, or damaged: start again
        return first if kept.get("pair") == pair and len(first) == WINDOW else []

    def _save(self) -> None:
        try:
            write_durably(self._path, json.dumps({"pair": self._pair, "first": self._first}).encode("ascii"))
        except OSError as error:
            log.warning("%s: cannot keep the first decisions over a restart: %s", self._path, error.strerror)


def age_s(created_at: str | None, now: float) -> float | None:
    """Return the seconds since a gallery was created; None if unknown.

    Args:
        created_at: ISO 8601.
        now: Unix seconds.
    """
    if created_at is None:
        return None
    try:
        created = datetime.fromisoformat(created_at.replace("Z", "+00:00"))
    except ValueError:
        return None
    return max(0.0, now - created.timestamp()) if created.tzinfo else None


def staleness(
    gallery_age_s: float | None, drift: float | None, max_days: float | None, max_drift: float | None
) -> tuple[str, ...]:
    """Return why a gallery needs an update, for people; nothing while it is fresh.

    Args:
        gallery_age_s: of the gallery.
        drift: of the confidence, 0..1.
        max_days: age up to which it is fresh; None: any.
        max_drift: drift up to which it is fresh; None: any.
    """
    reasons = []
    if gallery_age_s is not None and max_days is not None and gallery_age_s > max_days * 86400:
        reasons.append(f"it is {gallery_age_s / 86400:.0f} days old, more than {max_days:g}")
    if drift is not None and max_drift is not None and drift > max_drift:
        reasons.append(f"the confidence of decisions has drifted by {drift:.2f}, more than {max_drift:g}")
    return tuple(reasons)


def _below(places: list[int], edge: int) -> float:
    return sum(place < edge for place in places) / len(places)
