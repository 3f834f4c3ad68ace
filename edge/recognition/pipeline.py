"""Frames in, events out: detect, track, classify, embed, search, decide."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from edge.config.schema import CameraConfig, RecognitionConfig
from edge.finder.taught_search import TaughtSearch, new_proposals
from edge.recognition.embed_tracks import look
from edge.recognition.events import EventBuilder, historical_event
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.reidentify import Reidentifier
from edge.recognition.scene import Scene, scene_s
from edge.recognition.scheduler import Scheduler
from edge.recognition.track_evidence import EmbedPolicy
from edge.recognition.tracker import Track
from edge.telemetry.timing import Timings
from edge.types import Counts, Decision, Detection, Event, Frame

_RECALLED_AT_ONCE = 4  # objects, between two frames


@dataclass(frozen=True, slots=True)
class TrackedObject:
    """A track and what is known of it, for whoever draws the frame."""

    track: Track
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class FrameDetections:
    """What the detector says of one frame, before anything is made of it."""

    detections: list[Detection] | None  # None: it need not be asked
    timings: Timings


@dataclass(frozen=True, slots=True)
class Result:
    """What one frame brought."""

    events: list[Event]
    objects: list[TrackedObject]
    timings: Timings
    looks: int  # tracks that were classified and embedded


class Pipeline:
    """Recognises the objects of several cameras. The detector may be run on frames of several at once."""

    def __init__(
        self,
        models: LoadedModels,
        cameras: Mapping[str, CameraConfig],
        recognition: RecognitionConfig,
        counts: Counts,
        clock_ns: Callable[[], int],
    ) -> None:
        self.models = models
        self._policy = EmbedPolicy(
            recognition.min_looks, recognition.max_looks, recognition.look_interval_s, recognition.recheck_s
        )
        self._attention = Scheduler(recognition, self._policy, counts, clock_ns)
        self._news = EventBuilder(self._policy, counts, clock_ns)
        self._counts = counts
        self._clock_ns = clock_ns
        self._taught_search = None if recognition.seek is None else TaughtSearch(recognition.seek)
        self._recall = Reidentifier(recognition.recall_tracks, recognition.recall_age_s)
        self._scenes = {name: Scene(camera, recognition.track_gap_s) for name, camera in cameras.items()}

    @property
    def together(self) -> int:
        """Frames, each of another camera, that the detector is best given at once."""
        detector = self.models.stages.detector
        return 1 if detector is None else detector.together

    def detect(self, frames: Sequence[Frame]) -> list[FrameDetections]:
        """Run the detector, where it has to be, on frames of different cameras.

        Raises:
            EngineError: the detector failed, and says nothing of any of them.
        """
        detector = self.models.stages.detector
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
        return [FrameDetections(detections, timing) for detections, timing in zip(found, timings, strict=True)]

    def process(self, frame: Frame, glance: FrameDetections | None = None) -> Result:
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
        due = self._attention.due(scene, frame, step.seen)
        if due:
            outlined = look(self.models, frame.image_rgb, due, scene_s(frame), timings)
            if outlined.asked:
                self._counts.add("outlines", outlined.found, camera=frame.camera)
                self._counts.add("outlines_missed", outlined.asked - outlined.found, camera=frame.camera)
        with timings.stage("decide"):
            events, objects = self._farewells(scene), []
            for track in step.seen:
                record = scene.records[track.track_id]
                if event := self._news.update(track.track_id, record, self.models, timings.stages_ms):
                    events.append(event)
                objects.append(TrackedObject(track, record.evidence.announced if record.evidence else None))
        return Result(events, objects, timings, len(due))

    def serve(self, models: LoadedModels) -> None:
        """Answer by another bundle and gallery from the next frame on; what is in view is looked at again.

        What has left is searched again by `recall`.
        """
        same_models = models.bundle_id == self.models.bundle_id
        self.models = models
        self._recall.expect()
        for scene in self._scenes.values():
            for record in scene.records.values():
                if record.evidence is not None and same_models:
                    record.evidence.look_again()
                elif record.evidence is not None:
                    record.evidence.forget_looks()  # of another embedding space, perhaps

    def recall(self) -> list[Event]:
        """Search a few of the objects that have left in the gallery that serves now; to be called again and again."""
        memories = self._recall.search(self.models, self._clock_ns() / 1e9, _RECALLED_AT_ONCE)
        return [historical_event(memory, self.models) for memory in memories]

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

    def end_tracks(self, camera: str) -> list[Event]:
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
        finder, taught_queries, taught_search = self.models.finder, self.models.taught_queries, self._taught_search
        if taught_search is None or finder is None or not taught_queries or not taught_search.is_due(frame.camera, scene_s(frame)):
            return []
        with timings.stage("seek"):
            found = taught_search.search(finder, taught_queries, frame.camera, frame.image_rgb, scene_s(frame))
            proposed = new_proposals(found, detections)
        self._counts.add("frames_sought", camera=frame.camera)
        if proposed:
            self._counts.add("boxes_sought", len(proposed), camera=frame.camera)
        return proposed

    def _farewells(self, scene: Scene) -> list[Event]:
        """The events of every track that has left since the last time."""
        left, scene.leaving = scene.leaving, []
        told: list[Event] = []
        for track in left:
            record = scene.records.pop(track.track_id)
            events = self._news.end(track.track_id, record, self.models, boxed=scene.boxed)
            if events and record.evidence is not None:
                now_s = self._clock_ns() / 1e9
                self._recall.remember(track.track_id, record, record.evidence, events[-1].decision, now_s)
            told += events
        return told
