"""Frames in, events out: detect, track, classify, embed, search, decide."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from edge import image
from edge.budget import LookBudget, claim_of
from edge.config import CameraConfig, RecognitionConfig
from edge.evidence import Evidence, LookPolicy, look_weight, sight_quality
from edge.look import Due, look
from edge.recall import Recall
from edge.scene import Moment, Record, Scene, scene_s
from edge.seek import Seeker, unclaimed
from edge.serving import Serving
from edge.timing import Timings
from edge.track import Step, Track
from edge.types import Decision, Detection, Event, EventType, Frame

_RECALLED_AT_ONCE = 4  # objects, between two frames
_SHARPNESS_PX = 64  # side of the picture in which sharpness is measured; 60 us


class Counts(Protocol):
    """Where drops and sheds are counted."""

    def add(self, name: str, amount: int = 1, /, **labels: str) -> None:
        """Count something that happened."""
        ...


@dataclass(frozen=True, slots=True)
class Sighting:
    """A track and what is known of it, for whoever draws the frame."""

    track: Track
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class Glance:
    """What the detector says of one frame, before anything is made of it."""

    detections: list[Detection] | None  # None: it need not be asked
    timings: Timings


@dataclass(frozen=True, slots=True)
class Result:
    """What one frame brought."""

    events: list[Event]
    sightings: list[Sighting]
    timings: Timings
    looks: int  # tracks that were classified and embedded


class Pipeline:
    """Recognises the objects of several cameras. The detector may be run on frames of several at once."""

    def __init__(
        self,
        serving: Serving,
        cameras: Mapping[str, CameraConfig],
        recognition: RecognitionConfig,
        counts: Counts,
        clock_ns: Callable[[], int],
    ) -> None:
        self.serving = serving
        self._policy = LookPolicy(
            recognition.min_looks, recognition.max_looks, recognition.look_interval_s, recognition.recheck_s
        )
        self._min_object_px = recognition.min_object_px
        self._counts = counts
        self._clock_ns = clock_ns
        self._budget = None if recognition.looks_per_s is None else LookBudget(recognition.looks_per_s)
        self._seeker = None if recognition.seek is None else Seeker(recognition.seek)
        self._recall = Recall(recognition.recall_tracks, recognition.recall_age_s)
        self._scenes = {name: Scene(camera, recognition.track_gap_s) for name, camera in cameras.items()}

    @property
    def together(self) -> int:
        """Frames, each of another camera, that the detector is best given at once."""
        detector = self.serving.stages.detector
        return 1 if detector is None else detector.together

    def detect(self, frames: Sequence[Frame]) -> list[Glance]:
        """Run the detector, where it has to be, on frames of different cameras.

        Raises:
            EngineError: the detector failed, and says nothing of any of them.
        """
        detector = self.serving.stages.detector
        timings = [Timings() for _ in frames]
        found: list[list[Detection] | None] = [[] for _ in frames]
        asked = []
        for i, frame in enumerate(frames):
            scene = self._scenes[frame.camera]
            if detector is None or not scene.boxed:
                continue
            if self._is_gated(scene, frame, timings[i]):
                found[i] = None
            else:
                asked.append(i)
        if detector is not None and asked:
            shared = Timings()
            for i, detections in zip(asked, detector.detect([frames[i].image_rgb for i in asked], shared), strict=True):
                found[i] = detections
            for i in asked:
                timings[i].add_share(shared, len(asked))
        for i, frame in enumerate(frames):
            seen = found[i]
            if seen is not None and self._scenes[frame.camera].boxed:
                found[i] = seen + self._seek(frame, seen, timings[i])
        return [Glance(detections, timing) for detections, timing in zip(found, timings, strict=True)]

    def process(self, frame: Frame, glance: Glance | None = None) -> Result:
        """Recognise what is new in one frame.

        Args:
            frame: of one of the cameras.
            glance: what `detect` said of it; by default the detector is run now.

        Raises:
            EngineError: a model failed; the tracks have moved on, and their events come with a later frame.
        """
        if glance is None:
            (glance,) = self.detect([frame])
        timings = glance.timings
        scene = self._scenes[frame.camera]
        with timings.stage("track"):
            step = scene.advance(frame, glance.detections)
        for crossing in scene.crossed:
            self._counts.add("line_crossings", camera=frame.camera, line=crossing.line, direction=crossing.direction)
        now_s = scene_s(frame)
        due = self._due(scene, frame, step, now_s)
        if self._budget is not None and due:
            due = self._afford(self._budget, due, frame, now_s)
        if due:
            outlined = look(self.serving, frame.image_rgb, due, now_s, timings)
            if outlined.asked:
                self._counts.add("outlines", outlined.found, camera=frame.camera)
                self._counts.add("outlines_missed", outlined.asked - outlined.found, camera=frame.camera)
        with timings.stage("decide"):
            events = self._farewells(scene)
            for track in step.seen:
                if event := self._announce(scene.records[track.track_id], track, timings):
                    events.append(event)
            sightings = [Sighting(track, _known(scene.records[track.track_id])) for track in step.seen]
        return Result(events, sightings, timings, len(due))

    def serve(self, serving: Serving) -> None:
        """Answer by another bundle and gallery from the next frame on; what is in view is looked at again.

        What has left is searched again by `recall`.
        """
        same_models = serving.bundle_id == self.serving.bundle_id
        self.serving = serving
        self._recall.expect()
        for scene in self._scenes.values():
            for record in scene.records.values():
                if record.evidence is not None and same_models:
                    record.evidence.look_again()
                elif record.evidence is not None:
                    record.evidence.forget_looks()  # of another embedding space, perhaps

    def recall(self) -> list[Event]:
        """Search a few of the objects that have left in the gallery that serves now; to be called again and again."""
        memories = self._recall.search(self.serving, self._clock_ns() / 1e9, _RECALLED_AT_ONCE)
        return [replace(self._event("update", m.record, m.track_id, m.told, {}), historical=True) for m in memories]

    def take_over(self, other: Pipeline, changed: Collection[str]) -> None:
        """Go on where another pipeline stopped: the tracks of its cameras live on, but for those that changed.

        The scenes of those are new; their tracks are numbered on, for a number names an object as long as we run.
        """
        self._recall.take_over(other._recall)
        for camera, scene in other._scenes.items():
            mine = self._scenes.get(camera)
            if mine is not None and camera in changed:
                mine.number_on(scene)
                continue
            if mine is not None:
                scene.take_gap(mine)
            self._scenes[camera] = scene  # also of a camera that is gone: it may come back

    def view_lost(self, camera: str) -> list[Event]:
        """End every track of a camera whose picture can no longer be trusted."""
        scene = self._scenes[camera]
        scene.finish()
        return self._farewells(scene)

    def _is_gated(self, scene: Scene, frame: Frame, timings: Timings) -> bool:
        """Whether nothing moves, so that the detector need not be asked."""
        if not scene.gated:
            return False
        with timings.stage("motion"):
            wanted = scene.wants_detector(frame, self._policy)
        if not wanted:
            self._counts.add("frames_gated", camera=frame.camera)
        return not wanted

    def _seek(self, frame: Frame, detections: list[Detection], timings: Timings) -> list[Detection]:
        """Taught things in a frame that the detector has no box for."""
        finder, sought, seeker = self.serving.finder, self.serving.sought, self._seeker
        if seeker is None or finder is None or not sought or not seeker.is_due(frame.camera, scene_s(frame)):
            return []
        with timings.stage("seek"):
            found = seeker.seek(finder, sought, frame.camera, frame.image_rgb, scene_s(frame))
            proposed = unclaimed(found, detections)
        self._counts.add("frames_sought", camera=frame.camera)
        if proposed:
            self._counts.add("boxes_sought", len(proposed), camera=frame.camera)
        return proposed

    def _due(self, scene: Scene, frame: Frame, step: Step, now_s: float) -> list[Due]:
        """The tracks of this frame that are worth a look."""
        height, width = frame.image_rgb.shape[:2]
        due = []
        for track in step.seen:
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

    def _announce(self, record: Record, track: Track, timings: Timings) -> Event | None:
        """The event that this frame's decision on a track is worth, if any."""
        evidence = record.evidence
        if evidence is None or evidence.decision is None or not record.stay.watched:
            return None
        if self._policy.may_announce(evidence) and not _same_answer(evidence.announced, evidence.decision):
            kind: EventType = "new" if evidence.announced is None else "update"
            evidence.announced = evidence.decision
        elif evidence.announced is not None and record.told_zones != record.stay.stayed:
            kind = "update"
        else:
            return None
        return self._event(kind, record, track.track_id, evidence.announced, timings.stages_ms)

    def _farewells(self, scene: Scene) -> list[Event]:
        """The events of every track that has left since the last time."""
        left, scene.leaving = scene.leaving, []
        return [event for track in left for event in self._end(scene, track)]

    def _end(self, scene: Scene, track: Track) -> list[Event]:
        """The events of a track that has left: its end, after its news if it left before it was announced.

        A box of a few frames that was taken for nothing known is a flicker of the detector, and not told. What a kiosk
        was shown is answered, however short.
        """
        record = scene.records.pop(track.track_id)
        evidence, camera = record.evidence, record.moment.camera
        if evidence is None or evidence.decision is None:
            reason = "not_looked_at" if record.stay.watched else "outside_zones"
            self._counts.add("tracks_unannounced", camera=camera, reason=reason)
            return []
        told = evidence.announced is not None or evidence.decision.match is not None
        if not told and scene.boxed and not self._policy.may_announce(evidence):
            self._counts.add("tracks_unannounced", camera=camera, reason="too_brief")
            return []
        events = []
        if not _same_answer(evidence.announced, evidence.decision):
            kind: EventType = "new" if evidence.announced is None else "update"
            evidence.announced = evidence.decision
            events.append(self._event(kind, record, track.track_id, evidence.announced, {}))
        known = evidence.announced or evidence.decision
        events.append(self._event("end", record, track.track_id, known, {}))
        self._recall.remember(track.track_id, record, evidence, known, self._clock_ns() / 1e9)
        return events

    def _event(
        self, kind: EventType, record: Record, track_id: int, decision: Decision, stages_ms: dict[str, float]
    ) -> Event:
        moment: Moment = record.moment
        record.told_zones = record.stay.stayed
        latency_ms = {stage: round(ms, 3) for stage, ms in stages_ms.items()}
        if stages_ms:  # a track's end is told long after its last frame: no latency to speak of
            latency_ms["capture_to_decision"] = round((self._clock_ns() - moment.captured_ns) / 1e6, 3)
        return Event(
            event_id=secrets.token_hex(12),
            type=kind,
            camera=moment.camera,
            track_id=track_id,
            captured_at=moment.captured_at,
            captured_ns=moment.captured_ns,
            time_source=moment.time_source,
            pts_s=moment.pts_s,
            box_rel=moment.box_rel,
            decision=decision,
            bundle=self.serving.bundle_id,
            gallery=self.serving.gallery_id,
            latency_ms=latency_ms,
            zones=record.stay.stayed,
            crossings=record.stay.crossings,
        )


def _known(record: Record) -> Decision | None:
    return record.evidence.announced if record.evidence else None


def _same_answer(told: Decision | None, new: Decision) -> bool:
    """Whether a subscriber who was told the one need not hear the other.

    Doubt does not take an identity back: an object that is half covered or leaves looks like nothing known, and is what
    it was. Only another identity replaces one.
    """
    if told is None:
        return False
    if new.match is None:
        return told.match is not None or told.reason == new.reason
    return told.match is not None and told.match.item_id == new.match.item_id
