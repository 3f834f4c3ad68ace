"""Which tracks of a frame are looked at: those worth a look and, of these, those that the budget affords."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edge import image
from edge.budget import LookBudget, claim_of
from edge.config import RecognitionConfig
from edge.evidence import Evidence, LookPolicy, look_weight, sight_quality
from edge.look import Due
from edge.scene import Scene, scene_s
from edge.track import Track
from edge.types import Counts, Frame

_SHARPNESS_PX = 64  # side of the picture in which sharpness is measured; 60 us


class Attention:
    """Chooses, over all cameras, what is looked at."""

    def __init__(
        self, recognition: RecognitionConfig, policy: LookPolicy, counts: Counts, clock_ns: Callable[[], int]
    ) -> None:
        self._policy, self._counts, self._clock_ns = policy, counts, clock_ns
        self._min_object_px = recognition.min_object_px
        self._budget = None if recognition.looks_per_s is None else LookBudget(recognition.looks_per_s)

    def due(self, scene: Scene, frame: Frame, seen: list[Track]) -> list[Due]:
        """The looks that are taken at what is seen in a frame; a look that is shed is counted."""
        now_s = scene_s(frame)
        worth = self._worth(scene, frame, seen, now_s)
        return self._afford(self._budget, worth, frame, now_s) if self._budget is not None and worth else worth

    def _worth(self, scene: Scene, frame: Frame, seen: list[Track], now_s: float) -> list[Due]:
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
            evidence = record.evidence = record.evidence or Evidence()
            weight = look_weight(track, width, height)
            if weight == 1.0 and evidence.is_outgrown(track.box_px):
                evidence.forget_looks()
            if self._policy.wants_look(evidence, track, weight, now_s):
                due.append(Due(track, evidence, weight))
        return due

    def _afford(self, budget: LookBudget, due: list[Due], frame: Frame, now_s: float) -> list[Due]:
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
        claims = [claim_of(one.evidence, now_s, settled=self._policy.is_settled(one.evidence)) for one in worth]
        granted = budget.grant(claims, self._clock_ns() / 1e9)
        if shed := granted.count(False):
            self._counts.add("looks_shed", shed, camera=frame.camera, reason="budget")
        return [one for one, yes in zip(worth, granted, strict=True) if yes]
