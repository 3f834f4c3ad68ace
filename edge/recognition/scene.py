"""What one camera shows: its tracks, and of each where it was last seen, where it has been and what it looks like."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge.config.schema import CameraConfig
from edge.recognition.motion_gate import MotionGate
from edge.recognition.track_evidence import EmbedPolicy, TrackFeatures
from edge.recognition.tracker import BoxTracker, Step, Track, WholeFrameTracker
from edge.recognition.zones import Zones, ZoneState
from edge.types import Box, Crossing, Detection, Frame, TimeSource

CONFIRM_HITS = 2  # detections before a track is believed


@dataclass(frozen=True, slots=True)
class Observation:
    """When and where a track was seen; a frame without its pixels, which would keep a picture alive per track."""

    camera: str
    captured_at: float
    captured_ns: int
    time_source: TimeSource
    pts_s: float | None
    box_rel: Box


@dataclass(slots=True)
class TrackState:
    """What is known of one track."""

    moment: Observation  # newest
    stay: ZoneState = field(default_factory=ZoneState)
    evidence: TrackFeatures | None = None  # None until it is believed
    told_zones: tuple[str, ...] = ()  # that subscribers know of


class Scene:
    """The tracks of one camera."""

    def __init__(self, camera: CameraConfig, track_gap_s: float) -> None:
        self.boxed = camera.framing == "detect"  # objects have boxes of their own
        self.records: dict[int, TrackState] = {}
        self.leaving: list[Track] = []  # ended, their events not yet made
        self.crossed: list[Crossing] = []  # in the newest frame
        self._gate = None if camera.motion is None else MotionGate(camera.motion)
        self.gated = self._gate is not None
        self._tracker = BoxTracker(track_gap_s) if self.boxed else WholeFrameTracker()
        self._zones = Zones(camera.zones, camera.lines)
        self._now_s = float("-inf")
        self._size: tuple[int, int] | None = None  # height and width of the newest frame

    def wants_detector(self, frame: Frame, policy: EmbedPolicy) -> bool:
        """Whether the next frame may show more than the tracks that are there, where they are."""
        if self._gate is None or not isinstance(self._tracker, BoxTracker):
            return True
        moved = self._gate.wants_detector(frame.image_rgb, scene_s(frame)) or frame.image_rgb.shape[:2] != self._size
        settled = all(self._is_settled(track, policy) for track in self._tracker.tracks)
        return moved or not settled or not self._tracker.is_resting

    def advance(self, frame: Frame, detections: list[Detection] | None) -> Step:
        """Move the tracks on to the next frame; without detections it shows what the last one showed."""
        now_s = scene_s(frame)
        if now_s < self._now_s:  # a recording began anew
            self.leaving += self._tracker.finish()
        self._now_s = now_s
        self._fit(frame)
        if detections is None and isinstance(self._tracker, BoxTracker):
            step = self._tracker.hold(now_s)
        else:
            step = self._tracker.step(frame.image_rgb, detections or [], now_s)
            if self._gate is not None:
                self._gate.note_detection()
        self.leaving += step.ended
        self.crossed = []
        for track in step.seen:
            moment = _moment_of(frame, track)
            record = self.records.setdefault(track.track_id, TrackState(moment))
            record.moment = moment
            if self.is_believed(track):
                self.crossed += self._zones.follow(record.stay, moment.box_rel, now_s)
        return step

    def finish(self) -> None:
        """End every track: the view is lost."""
        self.leaving += self._tracker.finish()

    def number_on(self, before: Scene) -> None:
        """Number tracks on from where the camera's scene of before stopped."""
        self._tracker.last_id = before._tracker.last_id

    def take_gap(self, other: Scene) -> None:
        """Let tracks be away as long as in another scene."""
        if isinstance(self._tracker, BoxTracker) and isinstance(other._tracker, BoxTracker):
            self._tracker.gap_s = other._tracker.gap_s

    def is_believed(self, track: Track) -> bool:
        """Whether a track was detected often enough to be more than a flicker."""
        return not self.boxed or track.hits >= CONFIRM_HITS

    def _fit(self, frame: Frame) -> None:
        """Take the tracks along when the camera changes its resolution."""
        height, width = frame.image_rgb.shape[:2]
        before, self._size = self._size, (height, width)
        if before not in (None, self._size) and isinstance(self._tracker, BoxTracker):
            self._tracker.rescale(width / before[1], height / before[0])

    def _is_settled(self, track: Track, policy: EmbedPolicy) -> bool:
        evidence = self.records[track.track_id].evidence  # none of what is believed: too small, or outside the zones
        return self.is_believed(track) and (evidence is None or policy.is_settled(evidence))


def scene_s(frame: Frame) -> float:
    """The time in front of the camera: a recording's own, however fast it is read; else when the frame was taken."""
    if frame.time_source == "file" and frame.pts_s is not None:
        return frame.pts_s
    return frame.captured_ns / 1e9


def _moment_of(frame: Frame, track: Track) -> Observation:
    height, width = frame.image_rgb.shape[:2]
    x0, y0, x1, y1 = track.box_px
    box_rel = (x0 / width, y0 / height, x1 / width, y1 / height)
    return Observation(frame.camera, frame.captured_at, frame.captured_ns, frame.time_source, frame.pts_s, box_rel)
