"""Boxes to tracks: which detection of this frame is which object of the last.

Rules:
1. Tracks are matched to sure detections first, then the rest to unsure ones (ByteTrack, Zhang et al. 2022).
2. A track moves on at its own velocity while it is unseen, and ends after a stated time without a detection.
3. Ids count from 1 and are never used twice by one tracker.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.imaging import image
from edge.inference.postprocess import iou_matrix
from edge.types import Box, Detection, FloatArray, Image

_SURE = 0.5  # detection score from which a new track may begin
_MIN_IOU = 0.2
_NEAR = 0.6  # centre distance, in box sizes, at which two boxes without enough overlap are still one object
_MEASURED_S = 0.25  # a track this old has a velocity of its own
_SCENE_TRACKS = 2  # so many of them show how the camera moves
_ON_ITS_WAY = 0.5  # own sizes per second
_VELOCITY_GAIN = 0.5  # weight of the newest displacement


@dataclass(frozen=True, slots=True)
class Track:
    """One object as it stands after a frame."""

    track_id: int
    box_px: Box
    label: str  # the detector's
    hits: int  # detections so far
    began_s: float
    seen_s: float  # when it was last detected
    velocity: tuple[float, float] = (0.0, 0.0)  # of the centre, pixels per second


@dataclass(frozen=True, slots=True)
class Step:
    """What one frame did to the tracks."""

    seen: list[Track]  # detected in this frame
    ended: list[Track]


class BoxTracker:
    """Follows the boxes of one camera."""

    def __init__(self, gap_s: float) -> None:
        self.gap_s = gap_s
        self._tracks: list[Track] = []
        self._now_s = float("-inf")
        self.last_id = 0

    def step(self, image_rgb: Image, detections: list[Detection], now_s: float) -> Step:  # noqa: ARG002
        """Match the detections of the next frame.

        Args:
            image_rgb: unused here; WholeFrameTracker looks at it.
            detections: of this frame.
            now_s: monotonic time of the frame.
        """
        self._now_s = now_s
        sure = [d for d in detections if d.score >= _SURE]
        unsure = [d for d in detections if d.score < _SURE]
        scene = _scene_velocity(self._tracks)
        first, left, begun = _match(self._tracks, sure, now_s, scene)
        second, left, _ = _match(left, unsure, now_s, scene)
        seen = first + second
        for detection in begun:
            self.last_id += 1
            seen.append(Track(self.last_id, detection.box_px, detection.label, 1, now_s, now_s))
        ended = [track for track in left if now_s - track.seen_s > self.gap_s]
        self._tracks = seen + [track for track in left if now_s - track.seen_s <= self.gap_s]
        return Step(sorted(seen, key=lambda track: track.track_id), ended)

    def hold(self, now_s: float) -> Step:
        """Keep every track where it is, in a frame in which nothing moved since all were seen (`is_resting`)."""
        self._tracks = [replace(track, seen_s=now_s, velocity=(0.0, 0.0)) for track in self._tracks]
        self._now_s = now_s
        return Step(sorted(self._tracks, key=lambda track: track.track_id), [])

    def finish(self) -> list[Track]:
        """End every track: the view is lost."""
        ended, self._tracks = self._tracks, []
        return ended

    def rescale(self, x: float, y: float) -> None:
        """Follow a picture that is as many times as wide and high from now on."""
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
        """Those that have not ended."""
        return list(self._tracks)

    @property
    def is_resting(self) -> bool:
        """Whether the last frame showed every track, and none was on its way."""
        return all(track.seen_s == self._now_s and not _is_on_its_way(track) for track in self._tracks)


def _is_on_its_way(track: Track) -> bool:
    """Whether a track moves by much of its own size in a second; a still one trembles with its detections."""
    x0, y0, x1, y1 = track.box_px
    return max(abs(track.velocity[0]) / max(x1 - x0, 1.0), abs(track.velocity[1]) / max(y1 - y0, 1.0)) > _ON_ITS_WAY


def _match(
    tracks: list[Track], detections: list[Detection], now_s: float, scene: tuple[float, float]
) -> tuple[list[Track], list[Track], list[Detection]]:
    """Pair greedily, best first: moved tracks, tracks left, detections left."""
    if not tracks or not detections:
        return [], list(tracks), list(detections)
    predicted = np.asarray([_predict(track, now_s, scene) for track in tracks], np.float32)
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
    """1..2 for boxes that overlap enough, 0..1 for boxes of like size that are near, else 0: (tracks, detections)."""
    overlap = iou_matrix(predicted, found)
    size_a, size_b = predicted[:, 2:] - predicted[:, :2], found[:, 2:] - found[:, :2]
    centre_a, centre_b = (predicted[:, :2] + predicted[:, 2:]) / 2, (found[:, :2] + found[:, 2:]) / 2
    size = np.maximum((size_a[:, None] + size_b[None, :]) / 2, 1e-6)
    distance = np.abs((centre_a[:, None] - centre_b[None, :]) / size).max(axis=2)
    ratio = (size_a[:, None] / np.maximum(size_b[None, :], 1e-6)).clip(1e-6, 1e6)
    alike = (np.abs(np.log(ratio)) < np.log(1.6)).all(axis=2)
    near = np.where(alike & (distance < _NEAR), (_NEAR - distance) / _NEAR, 0.0)
    return np.asarray(np.where(overlap >= _MIN_IOU, 1.0 + overlap, near), np.float32)


def _scene_velocity(tracks: list[Track]) -> tuple[float, float]:
    """How the picture moves as a whole, pixels per second: the median of what is well measured; zero without it."""
    measured = [track.velocity for track in tracks if track.seen_s - track.began_s >= _MEASURED_S]
    if len(measured) < _SCENE_TRACKS:
        return (0.0, 0.0)
    x, y = np.median(np.asarray(measured), axis=0)
    return (float(x), float(y))


def _predict(track: Track, now_s: float, scene: tuple[float, float]) -> Box:
    # believed for as long as it was measured: the first displacements of a still object are jitter; then and before,
    # it moves as the scene does
    unseen_s = now_s - track.seen_s
    own_s = min(unseen_s, track.seen_s - track.began_s)
    if track.seen_s - track.began_s < _MEASURED_S and scene != (0.0, 0.0):
        own_s = 0.0
    dx, dy = (own_s * v + (unseen_s - own_s) * s for v, s in zip(track.velocity, scene, strict=True))
    x0, y0, x1, y1 = track.box_px
    return (x0 + dx, y0 + dy, x1 + dx, y1 + dy)


def _move(track: Track, detection: Detection, now_s: float) -> Track:
    elapsed_s = max(now_s - track.seen_s, 1e-3)
    new, old = detection.box_px, track.box_px
    measured = tuple((new[i] + new[i + 2] - old[i] - old[i + 2]) / 2 / elapsed_s for i in (0, 1))
    gain = 1.0 if track.hits == 1 else _VELOCITY_GAIN
    velocity = tuple(v + gain * (m - v) for v, m in zip(track.velocity, measured, strict=True))
    return Track(
        track.track_id,
        new,
        detection.label,
        track.hits + 1,
        track.began_s,
        now_s,
        (velocity[0], velocity[1]),
    )


class WholeFrameTracker:
    """Kiosk framing: the picture is one object until the picture changes; a new one counts once it holds still."""

    _SIZE = 32  # pixels of the comparison picture
    _CHANGED = 12.0  # mean absolute grey-level difference to what is being shown
    _MOVING = 4.0  # the same, to the frame before

    def __init__(self) -> None:
        self._shown: NDArray[np.float32] | None = None
        self._before: NDArray[np.float32] | None = None
        self._track: Track | None = None
        self.last_id = 0

    def step(self, image_rgb: Image, detections: list[Detection], now_s: float) -> Step:  # noqa: ARG002
        """Compare the next frame with what is being shown.

        Args:
            image_rgb: the frame.
            detections: unused; the frame is the object.
            now_s: monotonic time of the frame.
        """
        small = image.resize(image_rgb, self._SIZE, self._SIZE, "area").astype(np.float32).mean(axis=2)
        moving = self._before is None or float(np.abs(small - self._before).mean()) > self._MOVING
        self._before = small
        changed = self._shown is None or float(np.abs(small - self._shown).mean()) > self._CHANGED
        ended = []
        if changed and self._track is not None:
            ended, self._track = [self._track], None
        if moving:
            return Step([], ended)
        height, width = image_rgb.shape[:2]
        box = (0.0, 0.0, float(width), float(height))
        if self._track is None:
            self.last_id += 1
            self._shown = small
            self._track = Track(self.last_id, box, "object", 1, now_s, now_s)
        else:
            self._track = Track(self._track.track_id, box, "object", self._track.hits + 1, self._track.began_s, now_s)
        return Step([self._track], ended)

    def finish(self) -> list[Track]:
        """End what is being shown: the view is lost."""
        ended = [self._track] if self._track is not None else []
        self._track = self._shown = self._before = None
        return ended
