"""Track objects: match the detections of a frame to the objects of earlier frames.

Rules:
1. Tracks are matched to detections of high score first, the rest to those of low score (ByteTrack, Zhang et al. 2022).
2. An unseen track moves on at its own velocity, and ends after `gap_s` without a detection.
3. Ids count from 1; a tracker never uses one twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.imaging import image
from edge.inference.postprocess import iou_matrix
from edge.types import Box, Detection, FloatArray, Image

_HIGH_SCORE = 0.5  # detection score from which a new track may start
_MIN_IOU = 0.2
_MAX_DISTANCE = 0.6  # of centres, in box sizes, at which two boxes without enough overlap may be one object
_MIN_VELOCITY_S = 0.25  # a track this old has a measured velocity
_MIN_VELOCITY_TRACKS = 2  # with a measured velocity, to estimate the motion of the camera
_MOVING_SIZES_PER_S = 0.5  # own widths or heights per second, above which a track is moving
_VELOCITY_GAIN = 0.5  # weight of the newest displacement


@dataclass(frozen=True, slots=True)
class Track:
    """One object after a frame."""

    track_id: int
    box_px: Box
    label: str  # of the detector
    hits: int  # detections so far
    first_seen_s: float  # when it was first detected
    last_seen_s: float  # when it was last detected
    velocity: tuple[float, float] = (0.0, 0.0)  # of the centre, pixels per second


@dataclass(frozen=True, slots=True)
class TrackUpdate:
    """The changes of one frame."""

    detected: list[Track]  # in this frame, by id
    ended: list[Track]


class BoxTracker:
    """Tracks the boxes of one camera."""

    def __init__(self, gap_s: float) -> None:
        self.gap_s = gap_s
        self._tracks: list[Track] = []
        self._now_s = float("-inf")
        self.last_id = 0

    def update(self, image_rgb: Image, detections: list[Detection], now_s: float) -> TrackUpdate:  # noqa: ARG002
        """Match the detections of the next frame.

        Args:
            image_rgb: unused here; WholeFrameTracker needs it.
            detections: of this frame.
            now_s: monotonic time of the frame.
        """
        self._now_s = now_s
        high = [d for d in detections if d.score >= _HIGH_SCORE]
        low = [d for d in detections if d.score < _HIGH_SCORE]
        camera_velocity = _camera_velocity(self._tracks)
        first, left, begun = _match(self._tracks, high, now_s, camera_velocity)
        second, left, _ = _match(left, low, now_s, camera_velocity)
        matched = first + second
        for detection in begun:
            self.last_id += 1
            matched.append(Track(self.last_id, detection.box_px, detection.label, 1, now_s, now_s))
        ended = [track for track in left if now_s - track.last_seen_s > self.gap_s]
        self._tracks = matched + [track for track in left if now_s - track.last_seen_s <= self.gap_s]
        return TrackUpdate(sorted(matched, key=lambda track: track.track_id), ended)

    def hold(self, now_s: float) -> TrackUpdate:
        """Keep every track where it is: nothing moved since all were detected (`is_at_rest`)."""
        self._tracks = [replace(track, last_seen_s=now_s, velocity=(0.0, 0.0)) for track in self._tracks]
        self._now_s = now_s
        return TrackUpdate(sorted(self._tracks, key=lambda track: track.track_id), [])

    def end_all(self) -> list[Track]:
        """End every track; return them."""
        ended, self._tracks = self._tracks, []
        return ended

    def rescale(self, x: float, y: float) -> None:
        """Scale every track: from now on, frames are `x` times as wide and `y` times as high."""
        self._tracks = [
            replace(
                track,
                box_px=(track.box_px[0] * x, track.box_px[1] * y, track.box_px[2] * x, track.box_px[3] * y),
                velocity=(track.velocity[0] * x, track.velocity[1] * y),
            )
            for track in self._tracks
        ]

    @property
    def tracks(self) -> list[Track]:
        """The tracks that have not ended."""
        return list(self._tracks)

    @property
    def is_at_rest(self) -> bool:
        """Whether every track was detected in the newest frame, and none is moving."""
        return all(track.last_seen_s == self._now_s and not _is_moving(track) for track in self._tracks)


def _is_moving(track: Track) -> bool:
    """Return whether a track moves by much of its own size in a second; the box of a still one jitters."""
    x0, y0, x1, y1 = track.box_px
    speed = max(abs(track.velocity[0]) / max(x1 - x0, 1.0), abs(track.velocity[1]) / max(y1 - y0, 1.0))
    return speed > _MOVING_SIZES_PER_S


def _match(
    tracks: list[Track], detections: list[Detection], now_s: float, camera_velocity: tuple[float, float]
) -> tuple[list[Track], list[Track], list[Detection]]:
    """Match greedily, best first; return the moved tracks, the tracks left and the detections left."""
    if not tracks or not detections:
        return [], list(tracks), list(detections)
    predicted = np.asarray([_predict(track, now_s, camera_velocity) for track in tracks], np.float32)
    found = np.asarray([d.box_px for d in detections], np.float32)
    affinity = _affinity(predicted, found)
    free_tracks, free_detections = set(range(len(tracks))), set(range(len(detections)))
    moved = []
    for flat in np.argsort(-affinity, axis=None, kind="stable"):
        row, column = divmod(int(flat), len(detections))
        if affinity[row, column] <= 0:
            break
        if row in free_tracks and column in free_detections:
            free_tracks.remove(row)
            free_detections.remove(column)
            moved.append(_move(tracks[row], detections[column], now_s))
    return moved, [tracks[i] for i in sorted(free_tracks)], [detections[i] for i in sorted(free_detections)]


def _affinity(predicted: FloatArray, found: FloatArray) -> FloatArray:
    """Return (tracks, detections): 1..2 for enough overlap, 0..1 for boxes of similar size that are near, else 0."""
    overlap = iou_matrix(predicted, found)
    size_a, size_b = predicted[:, 2:] - predicted[:, :2], found[:, 2:] - found[:, :2]
    centre_a, centre_b = (predicted[:, :2] + predicted[:, 2:]) / 2, (found[:, :2] + found[:, 2:]) / 2
    size = np.maximum((size_a[:, None] + size_b[None, :]) / 2, 1e-6)
    distance = np.abs((centre_a[:, None] - centre_b[None, :]) / size).max(axis=2)
    ratio = (size_a[:, None] / np.maximum(size_b[None, :], 1e-6)).clip(1e-6, 1e6)
    alike = (np.abs(np.log(ratio)) < np.log(1.6)).all(axis=2)
    near = np.where(alike & (distance < _MAX_DISTANCE), (_MAX_DISTANCE - distance) / _MAX_DISTANCE, 0.0)
    return np.asarray(np.where(overlap >= _MIN_IOU, 1.0 + overlap, near), np.float32)


def _camera_velocity(tracks: list[Track]) -> tuple[float, float]:
    """Return the velocity of the whole frame, pixels per second: the median of the measured ones; zero without."""
    measured = [track.velocity for track in tracks if track.last_seen_s - track.first_seen_s >= _MIN_VELOCITY_S]
    if len(measured) < _MIN_VELOCITY_TRACKS:
        return (0.0, 0.0)
    x, y = np.median(np.asarray(measured), axis=0)
    return (float(x), float(y))


def _predict(track: Track, now_s: float, camera_velocity: tuple[float, float]) -> Box:
    # a velocity is used for as long as it was measured: the first displacements of a still object are jitter; before
    # and after that, the track moves with the camera
    unseen_s = now_s - track.last_seen_s
    own_s = min(unseen_s, track.last_seen_s - track.first_seen_s)
    if track.last_seen_s - track.first_seen_s < _MIN_VELOCITY_S and camera_velocity != (0.0, 0.0):
        own_s = 0.0
    dx, dy = (own_s * v + (unseen_s - own_s) * s for v, s in zip(track.velocity, camera_velocity, strict=True))
    x0, y0, x1, y1 = track.box_px
    return (x0 + dx, y0 + dy, x1 + dx, y1 + dy)


def _move(track: Track, detection: Detection, now_s: float) -> Track:
    elapsed_s = max(now_s - track.last_seen_s, 1e-3)
    new, old = detection.box_px, track.box_px
    measured = tuple((new[i] + new[i + 2] - old[i] - old[i + 2]) / 2 / elapsed_s for i in (0, 1))
    gain = 1.0 if track.hits == 1 else _VELOCITY_GAIN
    velocity = tuple(v + gain * (m - v) for v, m in zip(track.velocity, measured, strict=True))
    return Track(
        track.track_id,
        new,
        detection.label,
        track.hits + 1,
        track.first_seen_s,
        now_s,
        (velocity[0], velocity[1]),
    )


class WholeFrameTracker:
    """Kiosk framing: the frame is one object until it changes; the next object starts once the frame holds still."""

    _SIZE = 32  # pixels of the compared image
    _MIN_CHANGE = 12.0  # mean absolute grey-level difference to the current object
    _MIN_MOTION = 4.0  # the same, to the previous frame

    def __init__(self) -> None:
        self._object: NDArray[np.float32] | None = None
        self._previous: NDArray[np.float32] | None = None
        self._track: Track | None = None
        self.last_id = 0

    def update(self, image_rgb: Image, detections: list[Detection], now_s: float) -> TrackUpdate:  # noqa: ARG002
        """Compare the next frame with the current object.

        Args:
            image_rgb: the frame.
            detections: unused; the frame is the object.
            now_s: monotonic time of the frame.
        """
        small = image.resize(image_rgb, self._SIZE, self._SIZE, "area").astype(np.float32).mean(axis=2)
        moving = self._previous is None or float(np.abs(small - self._previous).mean()) > self._MIN_MOTION
        self._previous = small
        changed = self._object is None or float(np.abs(small - self._object).mean()) > self._MIN_CHANGE
        ended = []
        if changed and self._track is not None:
            ended, self._track = [self._track], None
        if moving:
            return TrackUpdate([], ended)
        height, width = image_rgb.shape[:2]
        box = (0.0, 0.0, float(width), float(height))
        if self._track is None:
            self.last_id += 1
            self._object = small
            self._track = Track(self.last_id, box, "object", 1, now_s, now_s)
        else:
            before = self._track
            self._track = Track(before.track_id, box, "object", before.hits + 1, before.first_seen_s, now_s)
        return TrackUpdate([self._track], ended)

    def end_all(self) -> list[Track]:
        """End the current object; return its track."""
        ended = [self._track] if self._track is not None else []
        self._track = self._object = self._previous = None
        return ended
