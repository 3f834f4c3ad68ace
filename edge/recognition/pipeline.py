"""Frames in, events out: detect, track, choose the tracks to embed, embed, decide, build events."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from edge.config.schema import CameraConfig, RecognitionConfig
from edge.finder.taught_search import TaughtSearch, new_proposals
from edge.imaging.pyramid import pyramid_of
from edge.recognition.camera_tracks import CameraTracks
from edge.recognition.events import EventBuilder, historical_event
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.reidentify import Reidentifier
from edge.recognition.scheduler import EmbedPolicy, Scheduler
from edge.recognition.track_features import TrackToEmbed, embed_tracks
from edge.recognition.tracker import Track
from edge.telemetry.timing import Timings
from edge.types import Counts, Decision, Detection, Event, Frame

_REIDENTIFIED_AT_ONCE = 4  # objects, between two frames


@dataclass(frozen=True, slots=True)
class TrackedObject:
    """A track and its published decision, for drawing on the frame."""

    track: Track
    decision: Decision | None  # None: nothing is published yet


@dataclass(frozen=True, slots=True)
class FrameDetections:
    """The detector's output for one frame."""

    detections: list[Detection] | None  # None: nothing moved, so the detector did not run
    timings: Timings


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one frame."""

    events: list[Event]
    objects: list[TrackedObject]
    timings: Timings
    embedded: int  # tracks that were classified and embedded
    looks: Mapping[int, float] = field(default_factory=dict)  # the weight of the crop to embed, by track


class Pipeline:
    """Recognises the objects of several cameras. Frames of several cameras can share one run of the detector."""

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
        self._scheduler = Scheduler(recognition, self._policy, counts, clock_ns)
        self._event_builder = EventBuilder(self._policy, counts, clock_ns)
        self._counts = counts
        self._clock_ns = clock_ns
        self._taught_search = None if recognition.seek is None else TaughtSearch(recognition.seek)
        self._reidentifier = Reidentifier(recognition.recall_tracks, recognition.recall_age_s)
        self._cameras = {name: CameraTracks(camera, recognition.track_gap_s) for name, camera in cameras.items()}
        self._every_frame = frozenset(name for name, camera in cameras.items() if camera.pacing == "every_frame")

    @property
    def detector_batch_size(self) -> int:
        """How many frames, each of another camera, `detect` handles best at once."""
        detector = self.models.stages.detector
        return 1 if detector is None else detector.batch_size

    def detect(self, frames: Sequence[Frame]) -> list[FrameDetections]:
        """Run the detector on frames of different cameras, except on those without motion.

        Raises:
            EngineError: the detector failed, for all of them.
        """
        detector = self.models.stages.detector
        timings = [Timings() for _ in frames]
        found: list[list[Detection] | None] = [[] for _ in frames]
        batch = []
        for i, frame in enumerate(frames):
            camera = self._cameras[frame.camera]
            if detector is None or not camera.uses_detector:
                continue
            if self._is_gated(camera, frame, timings[i]):
                found[i] = None
            else:
                batch.append(i)
        if detector is not None and batch:
            shared = Timings()
            with shared.rest("postprocess"):
                by_frame = detector.detect([pyramid_of(frames[i]) for i in batch], shared)
            for i, detections in zip(batch, by_frame, strict=True):
                found[i] = detections
            for i in batch:
                timings[i].add_share(shared, len(batch))
        for i, frame in enumerate(frames):
            detected = found[i]
            if detected is not None and self._cameras[frame.camera].uses_detector:
                found[i] = detected + self._search_taught(frame, detected, timings[i])
        return [FrameDetections(detections, timing) for detections, timing in zip(found, timings, strict=True)]

    def process(self, frame: Frame, detected: FrameDetections | None = None) -> Result:
        """Recognise the objects of one frame.

        Args:
            frame: of one of the cameras.
            detected: what `detect` returned for it; None: run the detector now.

        Raises:
            EngineError: a model failed; the tracks have moved on, and their events come with a later frame.
        """
        if detected is None:
            (detected,) = self.detect([frame])
        timings = detected.timings
        camera = self._cameras[frame.camera]
        with timings.stage("track"):
            update = camera.advance(frame, detected.detections)
        for crossing in camera.crossings:
            self._counts.add("line_crossings", camera=frame.camera, line=crossing.line, direction=crossing.direction)
        with timings.stage("schedule"):
            to_embed = self._scheduler.select(camera, frame, update.detected)
        embedded = self._embed(frame, to_embed, camera.time_s(frame), timings) if to_embed else 0
        with timings.stage("decide"):
            events, objects = self._end_events(camera), []
            for track in update.detected:
                state = camera.states[track.track_id]
                if event := self._event_builder.update(track.track_id, state, self.models, timings.stages_ms):
                    events.append(event)
                objects.append(TrackedObject(track, state.features.published if state.features else None))
        looks = {one.track.track_id: one.weight for one in to_embed}
        return Result(events, objects, timings, embedded, looks)

    def _embed(self, frame: Frame, to_embed: list[TrackToEmbed], now_s: float, timings: Timings) -> int:
        """Embed tracks of a frame; return how many were. Only a camera that drops no frame waits for models to load."""
        wait = frame.camera in self._every_frame
        with timings.rest("fuse"):
            counts = embed_tracks(self.models, pyramid_of(frame), to_embed, now_s, timings, wait=wait)
        if counts.silhouettes_wanted:
            missed = counts.silhouettes_wanted - counts.silhouettes_found
            self._counts.add("outlines", counts.silhouettes_found, camera=frame.camera)
            self._counts.add("outlines_missed", missed, camera=frame.camera)
        if counts.waiting:
            self._counts.add("looks_shed", counts.waiting, camera=frame.camera, reason="loading")
        return counts.embedded

    def swap_models(self, models: LoadedModels) -> None:
        """Use another bundle and gallery from the next frame on; tracks in view become due for embedding.

        Call `reidentify` from then on, to search objects that have left.
        """
        same_bundle = models.bundle_id == self.models.bundle_id
        self.models = models
        self._reidentifier.queue_all()
        for camera in self._cameras.values():
            for state in camera.states.values():
                if state.features is not None and same_bundle:
                    state.features.restart_count()
                elif state.features is not None:
                    state.features.clear()  # perhaps of another embedding space

    def reidentify(self) -> list[Event]:
        """Search a few of the objects that have left in the active gallery; call this between frames."""
        found = self._reidentifier.search(self.models, self._clock_ns() / 1e9, _REIDENTIFIED_AT_ONCE)
        return [historical_event(departed, self.models) for departed in found]

    def take_over(self, other: Pipeline, changed: Collection[str]) -> None:
        """Continue the tracks of another pipeline, except for cameras whose configuration changed.

        Those start without tracks, but continue the numbering: an id names one object for as long as the device runs.
        """
        self._reidentifier.take_over(other._reidentifier)
        for name, camera in other._cameras.items():
            mine = self._cameras.get(name)
            if mine is not None and name in changed:
                mine.continue_ids(camera)
                continue
            if mine is not None:
                camera.copy_gap(mine)
            self._cameras[name] = camera  # also of a removed camera: it may come back

    def end_tracks(self, camera: str) -> list[Event]:
        """End every track of a camera whose frames are lost or cannot be trusted; return their end events."""
        tracks = self._cameras[camera]
        tracks.end_all()
        return self._end_events(tracks)

    def _is_gated(self, camera: CameraTracks, frame: Frame, timings: Timings) -> bool:
        """Return whether nothing moves, so that the detector need not run."""
        if not camera.has_motion_gate:
            return False
        with timings.stage("motion"):
            needed = camera.needs_detector(frame, self._policy.is_settled)
        if not needed:
            self._counts.add("frames_gated", camera=frame.camera)
        return not needed

    def _search_taught(self, frame: Frame, detections: list[Detection], timings: Timings) -> list[Detection]:
        """Return boxes of taught items that the detector missed."""
        finder, queries, search = self.models.finder, self.models.taught_queries, self._taught_search
        if search is None or finder is None or not queries:
            return []
        now_s = self._cameras[frame.camera].time_s(frame)
        if not search.is_due(frame.camera, now_s):
            return []
        with timings.stage("seek"):
            proposals = search.search(finder, queries, frame.camera, frame.image_rgb, now_s)
            found = new_proposals(proposals, detections)
        self._counts.add("frames_sought", camera=frame.camera)
        if found:
            self._counts.add("boxes_sought", len(found), camera=frame.camera)
        return found

    def _end_events(self, camera: CameraTracks) -> list[Event]:
        """Return the last events of every track that has ended since the last call."""
        ended, camera.ended = camera.ended, []
        events: list[Event] = []
        for track in ended:
            state = camera.states.pop(track.track_id)
            of_track = self._event_builder.end(track.track_id, state, self.models, detected=camera.uses_detector)
            if of_track and state.features is not None:
                now_s = self._clock_ns() / 1e9
                self._reidentifier.add(track.track_id, state, state.features, of_track[-1].decision, now_s)
            events += of_track
        return events
