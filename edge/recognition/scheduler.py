"""Which tracks of a frame are looked at: those worth a look and, of these, those that the budget affords."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum

from edge.config.schema import RecognitionConfig
from edge.imaging import image
from edge.recognition.embed_tracks import TrackToEmbed
from edge.recognition.scene import Scene, scene_s
from edge.recognition.track_evidence import EmbedPolicy, TrackFeatures, look_weight, sight_quality
from edge.recognition.tracker import Track
from edge.types import Counts, Frame

_SHARPNESS_PX = 64  # side of the picture in which sharpness is measured; 60 us


class Scheduler:
    """Chooses, over all cameras, what is looked at."""

    def __init__(
        self, recognition: RecognitionConfig, policy: EmbedPolicy, counts: Counts, clock_ns: Callable[[], int]
    ) -> None:
        self._policy, self._counts, self._clock_ns = policy, counts, clock_ns
        self._min_object_px = recognition.min_object_px
        self._budget = None if recognition.looks_per_s is None else EmbedBudget(recognition.looks_per_s)

    def due(self, scene: Scene, frame: Frame, seen: list[Track]) -> list[TrackToEmbed]:
        """The looks that are taken at what is seen in a frame; a look that is shed is counted."""
        now_s = scene_s(frame)
        worth = self._worth(scene, frame, seen, now_s)
        return self._afford(self._budget, worth, frame, now_s) if self._budget is not None and worth else worth

    def _worth(self, scene: Scene, frame: Frame, seen: list[Track], now_s: float) -> list[TrackToEmbed]:
        """The tracks that are worth a look."""
        height, width = frame.image_rgb.shape[:2]
        due = []
        for track in seen:
            x0, y0, x1, y1 = track.box_px
            if min(x1 - x0, y1 - y0) < self._min_object_px:
                self._counts.add("looks_shed", camera=frame.camera, reason="too_small")
                continue
            if not scene.is_believed(track):
                continue
            record = scene.records[track.track_id]
            if not record.stay.watched:
                self._counts.add("looks_shed", camera=frame.camera, reason="outside_zones")
                continue
            evidence = record.evidence = record.evidence or TrackFeatures()
            weight = look_weight(track, width, height)
            if weight == 1.0 and evidence.is_outgrown(track.box_px):
                evidence.forget_looks()
            if self._policy.wants_look(evidence, track, weight, now_s):
                due.append(TrackToEmbed(track, evidence, weight))
        return due

    def _afford(self, budget: EmbedBudget, due: list[TrackToEmbed], frame: Frame, now_s: float) -> list[TrackToEmbed]:
        """Of the looks that are due, those worth the most that the budget allows, weighted by what the tracks show."""
        worth = []
        for one in due:
            crop = image.crop(frame.image_rgb, one.track.box_px)
            sharpness = image.sharpness(image.resize(crop, _SHARPNESS_PX, _SHARPNESS_PX, "area"))
            quality = sight_quality(one.evidence, one.track.box_px, sharpness)
            if self._policy.awaits_better(one.evidence, one.track, quality, now_s):
                self._counts.add("looks_shed", camera=frame.camera, reason="poor_sight")
            else:
                worth.append(replace(one, weight=one.weight * quality))
        claims = [request_for(one.evidence, now_s, settled=self._policy.is_settled(one.evidence)) for one in worth]
        granted = budget.allocate(claims, self._clock_ns() / 1e9)
        if shed := granted.count(False):
            self._counts.add("looks_shed", shed, camera=frame.camera, reason="budget")
        return [one for one, yes in zip(worth, granted, strict=True) if yes]


class Priority(IntEnum):
    """How much a track needs a look, most first."""

    UNRECOGNISED = 0
    CLOSE = 1  # recognised, but not clearly
    RECHECK = 2


_KEPT_FOR_OTHERS = {Priority.UNRECOGNISED: 0.0, Priority.CLOSE: 0.25, Priority.RECHECK: 0.5}


@dataclass(frozen=True, slots=True, order=True)
class EmbedRequest:
    """A wish for a look; the smaller, the more urgent."""

    need: Priority
    rank: float  # among those of like need


def request_for(evidence: TrackFeatures, now_s: float, *, settled: bool) -> EmbedRequest:
    """How urgently a track needs a look.

    Args:
        evidence: what is known of it.
        now_s: time of the frame.
        settled: nothing but a re-check is left to do.
    """
    if evidence.decision is not None and settled:
        return EmbedRequest(Priority.RECHECK, evidence.last_look_s - now_s)  # longest ago first
    match = evidence.decision.match if evidence.decision else None
    if match is None:
        return EmbedRequest(Priority.UNRECOGNISED, evidence.looks)
    return EmbedRequest(Priority.CLOSE, match.margin)


class EmbedBudget:
    """The looks that may be spent."""

    def __init__(self, looks_per_s: float) -> None:
        self._looks_per_s = looks_per_s
        self._most = max(1.0, looks_per_s)
        self._saved = self._most
        self._saved_at_s: float | None = None

    def allocate(self, claims: list[EmbedRequest], now_s: float) -> list[bool]:
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
