"""Choose the tracks to embed in a frame: those that are due by the policy, within the budget of the device.

Rules:
1. A track is embedded a few times soon after it appears, then ever more rarely, down to a recheck every `recheck_s`.
2. A cut-off, blurred or small crop waits for a better one, but not for long, and counts less.
3. With `looks_per_s`, unrecognised tracks go first; the other priorities leave a share of the budget for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum

from edge.config.schema import RecognitionConfig
from edge.imaging import image
from edge.imaging.pyramid import pyramid_of
from edge.recognition.camera_tracks import CameraTracks
from edge.recognition.track_features import TrackFeatures, TrackToEmbed
from edge.recognition.tracker import Track
from edge.types import Box, Counts, Frame

_SHARPNESS_PX = 64  # side of the crop in which sharpness is measured; 60 us
_EDGE_PX = 2.0  # a box this near the border is cut off,
_EDGE_SHARE = 0.04  # or this near in its own widths or heights, by which detectors err
_CUT_OFF_WEIGHT = 0.2  # of the crop of a cut-off object, relative to a whole one
_CUT_OFF_WAIT_S = 1.5  # after this long, an object that stays cut off is embedded all the same
_MIN_QUALITY = 0.05  # weight of the poorest crop
_POOR_QUALITY = 0.5  # a crop this poor waits for a better one,
_POOR_WAIT_S = 1.0  # but no longer than this


class Scheduler:
    """Chooses the tracks to embed, over all cameras."""

    def __init__(
        self, recognition: RecognitionConfig, policy: EmbedPolicy, counts: Counts, clock_ns: Callable[[], int]
    ) -> None:
        self._policy, self._counts, self._clock_ns = policy, counts, clock_ns
        self._min_object_px = recognition.min_object_px
        self._budget = None if recognition.looks_per_s is None else EmbedBudget(recognition.looks_per_s)

    def select(self, camera: CameraTracks, frame: Frame, detected: list[Track]) -> list[TrackToEmbed]:
        """Return the tracks to embed in a frame; tracks that are due but left out are counted.

        Args:
            camera: the tracks of the frame's camera.
            frame: the newest.
            detected: the tracks that it shows.
        """
        now_s = camera.time_s(frame)
        due = self._due(camera, frame, detected, now_s)
        return self._within_budget(self._budget, due, frame, now_s) if self._budget is not None and due else due

    def _due(self, camera: CameraTracks, frame: Frame, detected: list[Track], now_s: float) -> list[TrackToEmbed]:
        """Return the tracks that the policy wants embedded."""
        height, width = frame.image_rgb.shape[:2]
        due = []
        for track in detected:
            x0, y0, x1, y1 = track.box_px
            if min(x1 - x0, y1 - y0) < self._min_object_px:
                self._counts.add("looks_shed", camera=frame.camera, reason="too_small")
                continue
            if not camera.is_confirmed(track):
                continue
            state = camera.states[track.track_id]
            if not state.zone_state.is_monitored:
                self._counts.add("looks_shed", camera=frame.camera, reason="outside_zones")
                continue
            features = state.features = state.features or TrackFeatures()
            weight = crop_weight(track, width, height)
            if weight == 1.0 and features.is_outgrown(track.box_px):
                features.clear()
            if self._policy.is_due(features, track, weight, now_s):
                due.append(TrackToEmbed(track, features, weight))
        return due

    def _within_budget(
        self, budget: EmbedBudget, due: list[TrackToEmbed], frame: Frame, now_s: float
    ) -> list[TrackToEmbed]:
        """Return the most urgent tracks that the budget allows, each weighted by the quality of its crop.

        Only the crops of tracks that the budget allows are measured: pixels cost more than the rest of the choice.
        """
        budget.refill(self._clock_ns() / 1e9)
        requests = [request_for(one.features, now_s, settled=self._policy.is_settled(one.features)) for one in due]
        pyramid = pyramid_of(frame)
        granted = []
        poor = 0
        for i in sorted(range(len(due)), key=lambda i: (requests[i].priority, requests[i].rank)):
            one = due[i]
            if not budget.allows(requests[i].priority):
                break  # nor the less urgent ones
            sharpness = image.sharpness(pyramid.crop(one.track.box_px).resized(_SHARPNESS_PX, _SHARPNESS_PX))
            quality = crop_quality(one.features, one.track.box_px, sharpness)
            if self._policy.awaits_better(one.features, one.track, quality, now_s):
                poor += 1
            else:
                budget.spend()
                granted.append(replace(one, weight=one.weight * quality))
        for reason, shed in ("poor_sight", poor), ("budget", len(due) - poor - len(granted)):
            if shed:
                self._counts.add("looks_shed", shed, camera=frame.camera, reason=reason)
        return granted


@dataclass(frozen=True, slots=True)
class EmbedPolicy:
    """When a track is due for embedding."""

    min_looks: int
    max_looks: int
    look_interval_s: float
    recheck_s: float

    def is_due(self, features: TrackFeatures, track: Track, weight: float, now_s: float) -> bool:
        """Return whether to embed a track in this frame."""
        since_s = now_s - features.last_embedded_s
        if weight < 1.0 and track.last_seen_s - track.first_seen_s < _CUT_OFF_WAIT_S:
            return False
        if not features.embed_count:
            return True
        if features.embed_count < self.min_looks and not features.is_confident:
            return since_s >= self.look_interval_s  # neighbouring frames show the same
        if not self.is_settled(features):
            # the crop right after undecided ones would not decide either
            longer_s = self.look_interval_s * 2.0 ** (features.embed_count - self.min_looks + 1)
            return since_s >= min(self.recheck_s, longer_s)
        # soon at first, because a first decision may be wrong; then ever more rarely
        span_s = features.last_embedded_s - features.first_embedded_s
        return since_s >= min(self.recheck_s, max(2 * self.look_interval_s, 3 * span_s))

    def is_settled(self, features: TrackFeatures) -> bool:
        """Return whether a track only needs rechecks."""
        return features.is_confident or features.embed_count >= self.max_looks

    @staticmethod
    def awaits_better(features: TrackFeatures, track: Track, quality: float, now_s: float) -> bool:
        """Return whether to wait for a better crop, because this one is poor compared with earlier ones."""
        waited_s = now_s - (features.last_embedded_s if features.embed_count else track.first_seen_s)
        return quality < _POOR_QUALITY and waited_s < _POOR_WAIT_S

    def may_publish(self, features: TrackFeatures) -> bool:
        """Return whether a decision can be published: it is confident, or follows enough embeddings."""
        return features.is_confident or features.embed_count >= self.min_looks


def is_cut_off(box_px: Box, width: int, height: int) -> bool:
    """Return whether a box reaches the border of its frame, so that part of the object may be outside."""
    x0, y0, x1, y1 = box_px
    near_x, near_y = max(_EDGE_PX, _EDGE_SHARE * (x1 - x0)), max(_EDGE_PX, _EDGE_SHARE * (y1 - y0))
    return x0 < near_x or y0 < near_y or x1 > width - near_x or y1 > height - near_y


def crop_weight(track: Track, width: int, height: int) -> float:
    """Return how much a track's crop counts in its fused features, by whether it is cut off."""
    fills_frame = (track.box_px[2] - track.box_px[0]) >= width and (track.box_px[3] - track.box_px[1]) >= height
    return _CUT_OFF_WEIGHT if is_cut_off(track.box_px, width, height) and not fills_frame else 1.0


def crop_quality(features: TrackFeatures, box_px: Box, sharpness: float) -> float:
    """Return the quality of a crop, 0..1, relative to the best crop of its track so far.

    Args:
        features: of the track; the best sharpness and area in it are updated.
        box_px: where the crop is.
        sharpness: variance of the Laplacian of the crop, at a size that is the same for all crops.
    """
    area_px2 = (box_px[2] - box_px[0]) * (box_px[3] - box_px[1])
    features.best_sharpness = best_sharpness = max(features.best_sharpness, sharpness)
    features.best_area_px2 = best_area_px2 = max(features.best_area_px2, area_px2)
    sharp = (sharpness / best_sharpness) ** 0.5 if best_sharpness > 0 else 1.0  # a variance: of squared contrast
    large = (area_px2 / best_area_px2) ** 0.5 if best_area_px2 > 0 else 1.0
    return max(_MIN_QUALITY, sharp * large)


class Priority(IntEnum):
    """How much a track needs an embedding, most first."""

    UNRECOGNISED = 0
    CLOSE = 1  # recognised, but with a small margin
    RECHECK = 2


# share of the budget that is left for more urgent priorities
_RESERVED = {Priority.UNRECOGNISED: 0.0, Priority.CLOSE: 0.25, Priority.RECHECK: 0.5}


@dataclass(frozen=True, slots=True, order=True)
class EmbedRequest:
    """A request to embed a track; the smaller, the more urgent."""

    priority: Priority
    rank: float  # within the priority


def request_for(features: TrackFeatures, now_s: float, *, settled: bool) -> EmbedRequest:
    """Return how urgently a track needs an embedding.

    Args:
        features: of the track.
        now_s: time of the frame.
        settled: the track only needs rechecks.
    """
    if features.decision is not None and settled:
        return EmbedRequest(Priority.RECHECK, features.last_embedded_s - now_s)  # longest ago first
    match = features.decision.match if features.decision else None
    if match is None:
        return EmbedRequest(Priority.UNRECOGNISED, features.embed_count)
    return EmbedRequest(Priority.CLOSE, match.margin)


class EmbedBudget:
    """The embeddings that the device may compute: a token bucket that holds one second's worth."""

    def __init__(self, looks_per_s: float) -> None:
        self._looks_per_s = looks_per_s
        self._capacity = max(1.0, looks_per_s)
        self._tokens = self._capacity
        self._filled_at_s: float | None = None

    def refill(self, now_s: float) -> None:
        """Add what the time since the last call allows.

        Args:
            now_s: monotonic time of the device, whose work is limited.
        """
        if self._filled_at_s is not None:
            refill = self._looks_per_s * max(0.0, now_s - self._filled_at_s)
            self._tokens = min(self._capacity, self._tokens + refill)
        self._filled_at_s = now_s

    def allows(self, priority: Priority) -> bool:
        """Return whether a request can be granted; if not, no request of the same or a less urgent priority can."""
        return self._tokens - _RESERVED[priority] * (self._capacity - 1.0) >= 1.0 - 1e-9

    def spend(self) -> None:
        """Count one embedding."""
        self._tokens -= 1.0
