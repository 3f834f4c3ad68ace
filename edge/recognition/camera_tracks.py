"""The tracks of one camera, and for each its newest observation, its zones and its fused features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edge.config.schema import CameraConfig
from edge.recognition.motion_gate import MotionGate
from edge.recognition.scene_clock import SceneClock
from edge.recognition.track_features import TrackFeatures
from edge.recognition.tracker import BoxTracker, Track, TrackUpdate, WholeFrameTracker
from edge.recognition.zones import Zones, ZoneState
from edge.types import Box, Crossing, Detection, Frame, TimeSource

CONFIRM_HITS = 2  # detections that confirm a track
_LATE_S = 0.5  # by which a frame may be older than the newest one: positions of a recording can be out of order


@dataclass(frozen=True, slots=True)
class Observation:
    """When and where a track was seen; a frame without its pixels, which would keep an image alive per track."""

    camera: str
    captured_at: float
    captured_ns: int
    time_source: TimeSource
    pts_s: float | None
    box_rel: Box
    frame_px: tuple[int, int]  # width and height


@dataclass(slots=True)
class TrackState:
    """Everything known about one track."""

    observation: Observation  # newest
    started_at: float  # Unix seconds of its first detection
    dwell_s: float = 0.0  # between its first and its newest detection
    zone_state: ZoneState = field(default_factory=ZoneState)
    features: TrackFeatures | None = None  # None until the track is confirmed and due
    published_zones: tuple[str, ...] = ()  # in the newest event


class CameraTracks:
    """The tracks of one camera."""

    def __init__(self, camera: CameraConfig, track_gap_s: float) -> None:
        self.uses_detector = camera.framing == "detect"  # else the whole frame is the object
        self.states: dict[int, TrackState] = {}  # by track id
        self.ended: list[Track] = []  # their end events are not made yet
        self.crossings: list[Crossing] = []  # in the newest frame
        self._gate = None if camera.motion is None else MotionGate(camera.motion)
        self.has_motion_gate = self._gate is not None
        self._tracker = BoxTracker(track_gap_s) if self.uses_detector else WholeFrameTracker()
        self._zones = Zones(camera.zones, camera.lines)
        self._clock = SceneClock()
        self._now_s = float("-inf")
        self._size: tuple[int, int] | None = None  # height and width of the newest frame

    def needs_detector(self, frame: Frame, is_settled: Callable[[TrackFeatures], bool]) -> bool:
        """Return whether the detector must run: something moved, or a track is unsettled or not at rest.

        Args:
            frame: the next.
            is_settled: whether a track only needs rechecks; an unsettled one needs the detector.
        """
        if self._gate is None or not isinstance(self._tracker, BoxTracker):
            return True
        moved = (
            self._gate.is_detector_due(frame.image_rgb, self.time_s(frame)) or frame.image_rgb.shape[:2] != self._size
        )
        settled = all(self._is_settled(track, is_settled) for track in self._tracker.tracks)
        return moved or not settled or not self._tracker.is_at_rest

    def advance(self, frame: Frame, detections: list[Detection] | None) -> TrackUpdate:
        """Move the tracks to the next frame; without detections, the tracks stay where they were."""
        now_s = self.time_s(frame)
        if now_s < self._now_s - _LATE_S:  # a recording started again
            self.ended += self._tracker.end_all()
            self._now_s = now_s
        now_s = self._now_s = max(now_s, self._now_s)
        self._rescale_to(frame)
        if detections is None and isinstance(self._tracker, BoxTracker):
            update = self._tracker.hold(now_s)
        else:
            update = self._tracker.update(frame, detections or [], now_s)
            if self._gate is not None:
                self._gate.note_detection()
        self.ended += update.ended
        self.crossings = []
        for track in update.detected:
            observation = _observe(frame, track)
            state = self.states.setdefault(track.track_id, TrackState(observation, frame.captured_at))
            state.observation, state.dwell_s = observation, track.last_seen_s - track.first_seen_s
            if self.is_confirmed(track):
                self.crossings += self._zones.update(state.zone_state, observation.box_rel, now_s)
        return update

    def end_all(self) -> None:
        """End every track: the camera's frames are lost or cannot be trusted."""
        self.ended += self._tracker.end_all()
        self._clock.restart()

    def time_s(self, frame: Frame) -> float:
        """Return the time that the newest frame shows."""
        return self._clock.time_s(frame)

    def continue_ids(self, before: CameraTracks) -> None:
        """Number new tracks from where the camera's earlier tracks stopped."""
        self._tracker.last_id = before._tracker.last_id

    def copy_gap(self, other: CameraTracks) -> None:
        """Keep an unseen track for as long as `other` does."""
        if isinstance(self._tracker, BoxTracker) and isinstance(other._tracker, BoxTracker):
            self._tracker.gap_s = other._tracker.gap_s

    def is_confirmed(self, track: Track) -> bool:
        """Return whether a track was detected often enough to be more than a false detection."""
        return not self.uses_detector or track.hits >= CONFIRM_HITS

    def _rescale_to(self, frame: Frame) -> None:
        """Scale the tracks when the camera changes its resolution."""
        height, width = frame.image_rgb.shape[:2]
        before, self._size = self._size, (height, width)
        if before not in (None, self._size) and isinstance(self._tracker, BoxTracker):
            self._tracker.rescale(width / before[1], height / before[0])

    def _is_settled(self, track: Track, is_settled: Callable[[TrackFeatures], bool]) -> bool:
        features = self.states[track.track_id].features  # a confirmed track has none if too small or outside the zones
        return self.is_confirmed(track) and (features is None or is_settled(features))


def _observe(frame: Frame, track: Track) -> Observation:
    height, width = frame.image_rgb.shape[:2]
    x0, y0, x1, y1 = track.box_px
    box_rel = (x0 / width, y0 / height, x1 / width, y1 / height)
    return Observation(
        frame.camera,
        frame.captured_at,
        frame.captured_ns,
        frame.time_source,
        frame.pts_s,
        box_rel,
        (width, height),
    )
