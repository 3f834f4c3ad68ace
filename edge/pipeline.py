"""Frames in, events out: detect, track, classify, embed, search, decide."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal, Protocol

from edge.decide import TOP, categories_to_search, decide
from edge.evidence import Evidence, LookPolicy, look_weight
from edge.manifest import OpenSet
from edge.stages import Stages
from edge.timing import Timings
from edge.track import BoxTracker, Step, Track, WholeFrameTracker
from edge.types import Box, Category, Decision, Detection, Event, EventType, FloatArray, Frame, Hit, Image, TimeSource

_CONFIRM_HITS = 2  # detections before a track is believed


class Search(Protocol):
    """The gallery of one category."""

    def search(self, queries: FloatArray, k: int) -> list[list[Hit]]:
        """The k nearest items of each (n, dim) unit row, best first."""
        ...


class Counts(Protocol):
    """Where drops and sheds are counted."""

    def add(self, name: str, amount: int = 1, /, **labels: str) -> None:
        """Count something that happened."""
        ...


@dataclass(frozen=True, slots=True)
class Serving:
    """One bundle and one gallery generation, loaded together."""

    bundle_id: str
    gallery_id: str
    stages: Stages
    indexes: dict[str, Search]  # by category
    open_sets: dict[str, OpenSet]  # by category

    @property
    def category_threshold(self) -> float:
        """Probability below which a category is unknown."""
        return self.stages.classifier.model.threshold if self.stages.classifier else 0.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A track and what is known of it, for whoever draws the frame."""

    track: Track
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class Result:
    """What one frame brought."""

    events: list[Event]
    sightings: list[Sighting]
    timings: Timings
    looks: int  # tracks that were classified and embedded


@dataclass(frozen=True, slots=True)
class _Moment:
    """When and where a track was seen; a frame without its pixels, which would keep a picture alive per track."""

    camera: str
    captured_at: float
    captured_ns: int
    time_source: TimeSource
    pts_s: float | None
    box_rel: Box


def _moment_of(frame: Frame, track: Track) -> _Moment:
    height, width = frame.image_rgb.shape[:2]
    x0, y0, x1, y1 = track.box_px
    box_rel = (x0 / width, y0 / height, x1 / width, y1 / height)
    return _Moment(frame.camera, frame.captured_at, frame.captured_ns, frame.time_source, frame.pts_s, box_rel)


def _scene_s(frame: Frame) -> float:
    """The time in front of the camera: a recording's own, however fast it is read; else when the frame was taken."""
    if frame.time_source == "file" and frame.pts_s is not None:
        return frame.pts_s
    return frame.captured_ns / 1e9


@dataclass(slots=True)
class _View:
    """The state of one camera."""

    tracker: BoxTracker | WholeFrameTracker
    now_s: float = float("-inf")
    evidence: dict[int, Evidence] = field(default_factory=dict)
    last: dict[int, _Moment] = field(default_factory=dict)
    leaving: list[Track] = field(default_factory=list)  # ended, their events not yet made


class Pipeline:
    """Recognises the objects of several cameras, one frame at a time."""

    def __init__(
        self,
        serving: Serving,
        policy: LookPolicy,
        framings: dict[str, Literal["detect", "whole_frame"]],
        counts: Counts,
        clock_ns: Callable[[], int],
        *,
        min_object_px: int,
        track_gap_s: float,
    ) -> None:
        self.serving = serving
        self._policy = policy
        self._counts = counts
        self._clock_ns = clock_ns
        self._min_object_px = min_object_px
        self._views = {
            camera: _View(WholeFrameTracker() if framing == "whole_frame" else BoxTracker(track_gap_s))
            for camera, framing in framings.items()
        }

    def process(self, frame: Frame) -> Result:
        """Recognise what is new in one frame.

        Raises:
            EngineError: a model failed; the tracks have moved on, and their events come with a later frame.
        """
        timings = Timings()
        view = self._views[frame.camera]
        detections = self._detect(view, frame.image_rgb, timings)
        with timings.stage("track"):
            now_s = _scene_s(frame)
            if now_s < view.now_s:  # a recording began anew
                view.leaving += view.tracker.finish()
            view.now_s = now_s
            step = view.tracker.step(frame.image_rgb, detections, now_s)
            view.leaving += step.ended
            view.last.update((track.track_id, _moment_of(frame, track)) for track in step.seen)
        due = self._due(view, frame, step, now_s)
        if due:
            self._look(frame.image_rgb, due, now_s, timings)
        with timings.stage("decide"):
            events = self._farewells(view)
            for track in step.seen:
                if event := self._announce(view, track, timings):
                    events.append(event)
            sightings = [Sighting(t, self._known(view, t)) for t in step.seen]
        return Result(events, sightings, timings, len(due))

    def serve(self, serving: Serving) -> None:
        """Answer by another bundle and gallery from the next frame on; what is in view is looked at again."""
        self.serving = serving
        for view in self._views.values():
            for evidence in view.evidence.values():
                evidence.forget_looks()  # of another embedding space, perhaps

    def take_over(self, other: Pipeline, changed: Collection[str]) -> None:
        """Go on where another pipeline stopped: the tracks of its cameras live on, but for those that changed.

        The views of those are new; their tracks are numbered on, for a number names an object as long as we run.
        """
        for camera, view in other._views.items():
            mine = self._views.get(camera)
            if mine is not None and camera in changed:
                mine.tracker.last_id = view.tracker.last_id
                continue
            if isinstance(view.tracker, BoxTracker) and mine is not None and isinstance(mine.tracker, BoxTracker):
                view.tracker.gap_s = mine.tracker.gap_s
            self._views[camera] = view  # also of a camera that is gone: it may come back

    def view_lost(self, camera: str) -> list[Event]:
        """End every track of a camera whose picture can no longer be trusted."""
        view = self._views[camera]
        view.leaving += view.tracker.finish()
        return self._farewells(view)

    def _detect(self, view: _View, image_rgb: Image, timings: Timings) -> list[Detection]:
        detector = self.serving.stages.detector
        if isinstance(view.tracker, WholeFrameTracker) or detector is None:
            return []
        return detector.detect(image_rgb, timings)

    def _due(self, view: _View, frame: Frame, step: Step, now_s: float) -> list[tuple[Track, Evidence, float]]:
        """The tracks of this frame that are worth a look, with the weight of it."""
        height, width = frame.image_rgb.shape[:2]
        due = []
        for track in step.seen:
            x0, y0, x1, y1 = track.box_px
            if min(x1 - x0, y1 - y0) < self._min_object_px:
                self._counts.add("looks_shed", camera=frame.camera, reason="too_small")
                continue
            if isinstance(view.tracker, BoxTracker) and track.hits < _CONFIRM_HITS:
                continue
            evidence = view.evidence.setdefault(track.track_id, Evidence())
            weight = look_weight(track, width, height)
            if weight == 1.0 and evidence.is_outgrown(track.box_px):
                evidence.forget_looks()
            if self._policy.wants_look(evidence, track, weight, now_s):
                due.append((track, evidence, weight))
        return due

    def _look(self, image_rgb: Image, due: list[tuple[Track, Evidence, float]], now_s: float, timings: Timings) -> None:
        """Classify and embed the due tracks, crops of one category in one batch, and decide anew on each."""
        searched = self._categories(image_rgb, due, timings)
        hits: list[dict[str, list[Hit]]] = [{} for _ in due]
        embedders, indexes = self.serving.stages.embedders, self.serving.indexes
        for embedder in dict.fromkeys(embedders.values()):  # each once, however many categories it serves
            asked = [
                [c.name for c in categories if embedders.get(c.name) is embedder and c.name in indexes]
                for categories in searched
            ]
            rows = [i for i, found in enumerate(asked) if found]
            if not rows:
                continue
            vectors = embedder.embed(image_rgb, [due[i][0].box_px for i in rows], timings)
            with timings.stage("search"):
                for i, vector in zip(rows, vectors, strict=True):
                    for name in asked[i]:
                        fused = due[i][1].add_vector(name, vector, due[i][2])
                        hits[i][name] = indexes[name].search(fused[None], TOP)[0]
        threshold = self.serving.category_threshold
        for (track, evidence, _), categories, found in zip(due, searched, hits, strict=True):
            evidence.note_look(track.box_px, now_s)
            evidence.decision = decide(categories, found, self.serving.open_sets, threshold)

    def _categories(
        self, image_rgb: Image, due: list[tuple[Track, Evidence, float]], timings: Timings
    ) -> list[list[Category]]:
        """The categories to search for each due track."""
        classifier = self.serving.stages.classifier
        if classifier is None:  # the detector's label is the category; a single category needs no name
            only = list(self.serving.stages.embedders)
            return [
                [Category(track.label if track.label in only or len(only) != 1 else only[0], 1.0)]
                for track, _, _ in due
            ]
        rows = classifier.classify(image_rgb, [track.box_px for track, _, _ in due], timings)
        fused = [evidence.add_probabilities(row, w) for (_, evidence, w), row in zip(due, rows, strict=True)]
        threshold = self.serving.category_threshold
        return [categories_to_search(classifier.name(row), threshold) for row in fused]

    @staticmethod
    def _known(view: _View, track: Track) -> Decision | None:
        evidence = view.evidence.get(track.track_id)
        return evidence.announced if evidence else None

    def _announce(self, view: _View, track: Track, timings: Timings) -> Event | None:
        """The event that this frame's decision on a track is worth, if any."""
        evidence = view.evidence.get(track.track_id)
        if evidence is None or evidence.decision is None or not self._policy.may_announce(evidence):
            return None
        if _same_answer(evidence.announced, evidence.decision):
            return None
        kind: EventType = "new" if evidence.announced is None else "update"
        evidence.announced = evidence.decision
        return self._event(kind, view.last[track.track_id], track.track_id, evidence.decision, timings.stages_ms)

    def _farewells(self, view: _View) -> list[Event]:
        """The events of every track that has left since the last time."""
        left, view.leaving = view.leaving, []
        return [event for track in left for event in self._end(view, track)]

    def _end(self, view: _View, track: Track) -> list[Event]:
        """The events of a track that has left: its end, after its news if it left before it was announced.

        A box of a few frames that was taken for nothing known is a flicker of the detector, and not told. What a kiosk
        was shown is answered, however short.
        """
        evidence = view.evidence.pop(track.track_id, None)
        moment = view.last.pop(track.track_id)
        if evidence is None or evidence.decision is None:
            self._counts.add("tracks_unannounced", camera=moment.camera, reason="not_looked_at")
            return []
        told = evidence.announced is not None or evidence.decision.match is not None
        if not told and isinstance(view.tracker, BoxTracker) and not self._policy.may_announce(evidence):
            self._counts.add("tracks_unannounced", camera=moment.camera, reason="too_brief")
            return []
        events = []
        if not _same_answer(evidence.announced, evidence.decision):
            kind: EventType = "new" if evidence.announced is None else "update"
            evidence.announced = evidence.decision
            events.append(self._event(kind, moment, track.track_id, evidence.announced, {}))
        events.append(self._event("end", moment, track.track_id, evidence.announced or evidence.decision, {}))
        return events

    def _event(
        self, kind: EventType, moment: _Moment, track_id: int, decision: Decision, stages_ms: dict[str, float]
    ) -> Event:
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
        )


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
