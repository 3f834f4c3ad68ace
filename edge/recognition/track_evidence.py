"""What has been seen of one track so far, and whether another look would help."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edge.imaging.silhouette import Silhouette
from edge.inference.postprocess import unit_rows
from edge.recognition.tracker import Track
from edge.types import Box, Category, Decision, FloatArray

_EDGE_PX = 2.0  # a box this near the border is cut off,
_EDGE_SHARE = 0.04  # or this near in its own widths or heights, by which detectors err
_OUTGROWN = 1.25  # an object this many times as wide or high shows what the looks before did not see
_CUT_WEIGHT = 0.2  # of a look at a cut-off object, relative to a whole one
_CUT_PATIENCE_S = 1.5  # an object that stays cut off is looked at after this long all the same
_LEAST_QUALITY = 0.05  # weight of the poorest sight
_POOR_QUALITY = 0.5  # a sight this poor waits for a better one,
_POOR_PATIENCE_S = 1.0  # but no longer than this
_CLEAR_PROBABILITY = 0.95
_CLEAR_MARGIN = 0.1


@dataclass(slots=True)
class TrackFeatures:
    """The fused looks of one track."""

    looks: int = 0
    first_look_s: float = float("-inf")
    last_look_s: float = float("-inf")
    width_px: float = 0.0  # of the widest box that was looked at
    height_px: float = 0.0  # of the highest
    sharpest: float = 0.0  # sight of it so far, looked at or not
    largest_px2: float = 0.0  # sight of it so far
    log_probability: FloatArray | None = None  # (labels,), weighted sum over looks
    weight: float = 0.0
    vectors: dict[str, FloatArray] = field(default_factory=dict)  # category -> weighted sum of unit vectors
    spaces: dict[str, str] = field(default_factory=dict)  # category -> embedding space of its vector
    outline: Silhouette | None = None  # of the look that counted most
    outline_weight: float = 0.0  # of that look
    categories: tuple[Category, ...] = ()  # that the newest look found likely, best first
    searched_in: str = ""  # gallery generation, by the newest look
    decision: Decision | None = None  # newest
    announced: Decision | None = None  # what subscribers know

    def add_probabilities(self, probabilities: FloatArray, weight: float) -> FloatArray:
        """Fold in one look's category probabilities; return the fused ones: their weighted geometric mean."""
        log = np.asarray(np.log(np.maximum(probabilities, 1e-6)) * weight, np.float32)
        total = log if self.log_probability is None else self.log_probability + log
        self.log_probability = total
        self.weight += weight
        fused = np.exp(total / self.weight)
        return np.asarray(fused / fused.sum(), np.float32)

    def add_vector(self, category: str, vector: FloatArray, weight: float) -> FloatArray:
        """Fold in one look's embedding of a category; return the fused unit vector."""
        self.vectors[category] = self.vectors.get(category, np.zeros_like(vector)) + weight * vector
        return self.fused(category)

    def add_outline(self, outline: Silhouette | None, weight: float) -> None:
        """Take in one look's outline: the newest of those that count most is kept, for they do not add up."""
        if outline is not None and weight >= self.outline_weight:
            self.outline, self.outline_weight = outline, weight

    def fused(self, category: str) -> FloatArray:
        """The unit vector of all looks that were embedded as a category."""
        return unit_rows(self.vectors[category])

    def note_look(self, box_px: Box, now_s: float) -> None:
        """Count a look."""
        self.first_look_s = self.first_look_s if self.looks else now_s
        self.last_look_s = now_s
        self.looks += 1
        self.width_px = max(self.width_px, box_px[2] - box_px[0])
        self.height_px = max(self.height_px, box_px[3] - box_px[1])

    def is_outgrown(self, box_px: Box) -> bool:
        """Whether the object now shows so much larger that the looks may have seen a part of it only."""
        width_px, height_px = box_px[2] - box_px[0], box_px[3] - box_px[1]
        return self.looks > 0 and (width_px > _OUTGROWN * self.width_px or height_px > _OUTGROWN * self.height_px)

    def look_again(self) -> None:
        """Ask for looks as if there had been none; what was seen stays and is added to."""
        self.looks, self.first_look_s, self.last_look_s = 0, float("-inf"), float("-inf")

    def forget_looks(self) -> None:
        """Begin anew; what was decided and told stays until the next look."""
        self.look_again()
        self.width_px = self.height_px = self.sharpest = self.largest_px2 = 0.0
        self.log_probability, self.weight, self.vectors, self.spaces = None, 0.0, {}, {}
        self.outline, self.outline_weight = None, 0.0

    @property
    def is_clear(self) -> bool:
        """Whether the newest decision is a match that another look would hardly change."""
        match = self.decision.match if self.decision else None
        return match is not None and match.probability >= _CLEAR_PROBABILITY and match.margin >= _CLEAR_MARGIN


def is_cut_off(box_px: Box, width: int, height: int) -> bool:
    """Whether a box reaches the border of its frame, so that part of the object may be outside."""
    x0, y0, x1, y1 = box_px
    near_x, near_y = max(_EDGE_PX, _EDGE_SHARE * (x1 - x0)), max(_EDGE_PX, _EDGE_SHARE * (y1 - y0))
    return x0 < near_x or y0 < near_y or x1 > width - near_x or y1 > height - near_y


def look_weight(track: Track, width: int, height: int) -> float:
    """How much one look at a track counts."""
    fills_frame = (track.box_px[2] - track.box_px[0]) >= width and (track.box_px[3] - track.box_px[1]) >= height
    return _CUT_WEIGHT if is_cut_off(track.box_px, width, height) and not fills_frame else 1.0


def sight_quality(evidence: TrackFeatures, box_px: Box, sharpness: float) -> float:
    """How good this sight of an object is, 0..1, measured by the best so far, which it may become.

    Args:
        evidence: of the object; remembers the best sight.
        box_px: where it is.
        sharpness: variance of the Laplacian of its crop, at a size that is the same for all sights.
    """
    area_px2 = (box_px[2] - box_px[0]) * (box_px[3] - box_px[1])
    evidence.sharpest = max(evidence.sharpest, sharpness)
    evidence.largest_px2 = max(evidence.largest_px2, area_px2)
    sharp = (sharpness / evidence.sharpest) ** 0.5 if evidence.sharpest > 0 else 1.0  # a variance: of squared contrast
    large = (area_px2 / evidence.largest_px2) ** 0.5 if evidence.largest_px2 > 0 else 1.0
    return max(_LEAST_QUALITY, sharp * large)


@dataclass(frozen=True, slots=True)
class EmbedPolicy:
    """When a track is looked at."""

    min_looks: int
    max_looks: int
    look_interval_s: float
    recheck_s: float

    def wants_look(self, evidence: TrackFeatures, track: Track, weight: float, now_s: float) -> bool:
        """Decide whether to spend an embedding on a track in this frame."""
        since_s = now_s - evidence.last_look_s
        if weight < 1.0 and track.seen_s - track.began_s < _CUT_PATIENCE_S:
            return False
        if not evidence.looks:
            return True
        if evidence.looks < self.min_looks and not evidence.is_clear:
            return since_s >= self.look_interval_s  # neighbouring frames show the same
        if not self.is_settled(evidence):
            # What looks have not told, the next one right after them will not tell either.
            longer_s = self.look_interval_s * 2.0 ** (evidence.looks - self.min_looks + 1)
            return since_s >= min(self.recheck_s, longer_s)
        # soon at first, for a first impression may be wrong, then ever more rarely
        looked_for_s = evidence.last_look_s - evidence.first_look_s
        return since_s >= min(self.recheck_s, max(2 * self.look_interval_s, 3 * looked_for_s))

    def is_settled(self, evidence: TrackFeatures) -> bool:
        """Whether nothing but re-checks is left to do for a track."""
        return evidence.is_clear or evidence.looks >= self.max_looks

    @staticmethod
    def awaits_better(evidence: TrackFeatures, track: Track, quality: float, now_s: float) -> bool:
        """Whether a sight is so poor, by what was seen of the object before, that the next is worth waiting for."""
        waited_s = now_s - (evidence.last_look_s if evidence.looks else track.began_s)
        return quality < _POOR_QUALITY and waited_s < _POOR_PATIENCE_S

    def may_announce(self, evidence: TrackFeatures) -> bool:
        """Whether subscribers can be told: the answer is clear, or enough looks were spent on it."""
        return evidence.is_clear or evidence.looks >= self.min_looks
