"""Track objects: match the detections of a frame to the objects of earlier frames.

Rules:
1. Tracks are matched greedily: to detections of high score before those of low score (ByteTrack, Zhang et al. 2022),
   confirmed tracks first, then by overlap and by how recently the track was seen.
2. An unseen track moves on at its own velocity, and ends after `gap_s` without a detection.
3. If another shift of the whole frame explains the boxes much better than the velocities do, the camera moved so.
4. A box that covers much of a tracked object is its duplicate; it starts a track only if both stay.
5. Ids count from 1; a tracker never uses one twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.imaging.pyramid import pyramid_of
from edge.inference.postprocess import iou, iou_matrix
from edge.types import Box, Detection, Frame, Image

Pair = tuple[int, int, float]  # track, detection, affinity

_HIGH_SCORE = 0.5  # detection score from which a new track may start
_MIN_IOU = 0.15
_MAX_DISTANCE = 0.6  # of centres, in box sizes, at which two boxes without enough overlap may be one object
_ALIKE = 1.6  # ratio of widths and of heights up to which they may
_UNSEEN_COST = 0.5  # overlap that a track gives up for each second without a detection
_MIN_VELOCITY_S = 0.25  # a track this old has a measured velocity
_MIN_VELOCITY_TRACKS = 2  # with a measured velocity, to estimate the motion of the camera
_MOVING_SIZES_PER_S = 0.5  # own widths or heights per second, above which a track is moving
_VELOCITY_S = 0.15  # time in which a measured velocity loses its weight to newer ones
_LEAST_STEP_S = 1 / 60  # late frames arrive at once; a velocity is measured as if this had passed between them
_FITTING = 1.5  # affinity of a track that is where it was expected; if most are, the frame did not shift
_SHIFT_GAIN = 1.2  # overlaps, summed over tracks, that a shift of the frame must add
_SHIFT_IOU = 0.3  # overlaps that count for it
_SHIFT_TRACKS = 6  # that are asked, and as many detections near each of them
_DUPLICATE_IOU = 0.45  # overlap with a tracked object from which a box may be its duplicate,
_INSIDE_IOU, _INSIDE = 0.3, 0.8  # or this overlap if so much of the smaller box is inside the other
_DUPLICATE_S = 0.5  # it is another object if it stays this long


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
        self._doubtful: list[tuple[Box, float]] = []  # perhaps duplicates in the newest frame; since when
        self._now_s = float("-inf")
        self.last_id = 0

    def update(self, picture: Image | Frame, detections: list[Detection], now_s: float) -> TrackUpdate:  # noqa: ARG002
        """Match the detections of the next frame.

        Args:
            picture: unused here; WholeFrameTracker needs it.
            detections: of this frame, best first.
            now_s: monotonic time of the frame; one before the newest frame's counts as equal to it.
        """
        before_s, self._now_s = self._now_s, max(self._now_s, now_s)
        matched, missed, free = _match(self._tracks, detections, before_s, self._now_s)
        matched += self._begin([d for d in free if d.score >= _HIGH_SCORE], [track.box_px for track in matched])
        ended = [track for track in missed if self._now_s - track.last_seen_s > self.gap_s]
        self._tracks = matched + [track for track in missed if self._now_s - track.last_seen_s <= self.gap_s]
        return TrackUpdate(sorted(matched, key=lambda track: track.track_id), ended)

    def _begin(self, detections: list[Detection], tracked: list[Box]) -> list[Track]:
        """Start tracks with the detections that are no duplicates of tracked objects or of one another."""
        begun: list[Track] = []
        doubtful: list[tuple[Box, float]] = []
        for detection in detections:
            box = detection.box_px
            if any(_covers(box, other) for other in tracked):
                since_s = min((s for other, s in self._doubtful if _covers(box, other)), default=self._now_s)
                doubtful.append((box, since_s))
                if self._now_s - since_s < _DUPLICATE_S:
                    continue
            self.last_id += 1
            tracked.append(box)
            begun.append(Track(self.last_id, box, detection.label, 1, self._now_s, self._now_s))
        self._doubtful = doubtful
        return begun

    def hold(self, now_s: float) -> TrackUpdate:
        """Keep every track where it is: nothing moved since all were detected (`is_at_rest`)."""
        self._tracks = [replace(track, last_seen_s=now_s, velocity=(0.0, 0.0)) for track in self._tracks]
        self._now_s = now_s
        return TrackUpdate(sorted(self._tracks, key=lambda track: track.track_id), [])

    def end_all(self) -> list[Track]:
        """End every track; return them."""
        ended, self._tracks = self._tracks, []
        self._doubtful, self._now_s = [], float("-inf")
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
        self._doubtful = []

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
    tracks: list[Track], detections: list[Detection], before_s: float, now_s: float
) -> tuple[list[Track], list[Track], list[Detection]]:
    """Return the moved tracks, the tracks left and the detections left; `before_s` is the time of the frame before."""
    if not tracks or not detections:
        return [], list(tracks), list(detections)
    predicted, boxes = _predict(tracks, now_s), [detection.box_px for detection in detections]
    newest = [i for i, track in enumerate(tracks) if track.last_seen_s == before_s]
    pairs = _affinities(predicted, boxes)
    if 2 * len({row for row, _, affinity in pairs if affinity >= _FITTING}) <= len(newest):
        high = [detection.box_px for detection in detections if detection.score >= _HIGH_SCORE]
        if (shift := _frame_shift([predicted[i] for i in newest], high)) is not None:
            pairs = _affinities([_shifted(box, *shift) for box in predicted], boxes)

    def rank(pair: Pair) -> tuple[bool, bool, float]:
        row, column, affinity = pair
        track = tracks[row]
        unseen_cost = _UNSEEN_COST * (now_s - track.last_seen_s)
        return detections[column].score < _HIGH_SCORE, track.hits == 1, unseen_cost - affinity

    taken = _assign(sorted(pairs, key=rank), {})
    used = set(taken.values())
    rest = [j for j in range(len(detections)) if j not in used]
    lost = [i for i in newest if i not in taken]
    if rest and lost:  # an object that stopped, or a frame that came late, is where it was
        pairs = _affinities([tracks[i].box_px for i in lost], [boxes[j] for j in rest])
        found = [(lost[row], rest[column], affinity) for row, column, affinity in pairs if affinity >= 1.0]
        used = set(_assign(sorted(found, key=lambda pair: -pair[2]), taken).values())
    return (
        [_moved(tracks[i], detections[j], now_s) for i, j in taken.items()],
        [track for i, track in enumerate(tracks) if i not in taken],
        [detections[j] for j in rest if j not in used],
    )


def _assign(pairs: list[Pair], taken: dict[int, int]) -> dict[int, int]:
    """Add the pairs whose row and column are free to `taken`, column by row, the first ones first; return it."""
    used = set(taken.values())
    for row, column, _ in pairs:
        if row not in taken and column not in used:
            taken[row] = column
            used.add(column)
    return taken


def _predict(tracks: list[Track], now_s: float) -> list[Box]:
    """Return the boxes where tracks are expected.

    A velocity is used for as long as it was measured: the first displacements of a still object are jitter. Before and
    after that, the track moves with the camera, whose velocity is the median of the measured ones.
    """
    ages_s = [track.last_seen_s - track.first_seen_s for track in tracks]
    measured = [track.velocity for track, age_s in zip(tracks, ages_s, strict=True) if age_s >= _MIN_VELOCITY_S]
    camera_x, camera_y = 0.0, 0.0
    if len(measured) >= _MIN_VELOCITY_TRACKS:
        camera_x, camera_y = (_median(axis) for axis in zip(*measured, strict=True))
    expected = []
    for track, age_s in zip(tracks, ages_s, strict=True):
        unseen_s = now_s - track.last_seen_s
        own_s = min(unseen_s, age_s)
        if (camera_x or camera_y) and age_s < _MIN_VELOCITY_S:
            own_s = 0.0
        (x, y), others_s = track.velocity, unseen_s - own_s
        expected.append(_shifted(track.box_px, own_s * x + others_s * camera_x, own_s * y + others_s * camera_y))
    return expected


def _median(values: Sequence[float]) -> float:
    """Return the median; `statistics.median` takes several times as long for a handful."""
    ascending = sorted(values)
    return (ascending[(len(values) - 1) // 2] + ascending[len(values) // 2]) / 2


def _shifted(box: Box, x: float, y: float) -> Box:
    x0, y0, x1, y1 = box
    return x0 + x, y0 + y, x1 + x, y1 + y


def _affinities(some: list[Box], others: list[Box]) -> list[Pair]:
    """Return the pairs of boxes that may be one object: index of one of `some`, of one of the others, and the affinity.

    The affinity is 1..2 for boxes that overlap enough, 0..1 for boxes of similar size that are near.
    """
    a, (x0, y0, x1, y1) = np.array(some), np.array(others).T
    touching = (a[:, :1] < x1) & (a[:, 2:3] > x0) & (a[:, 1:2] < y1) & (a[:, 3:] > y0)
    pairs = []
    # for each of the pairs that touch, and these are few, plain numbers are quicker than arrays
    for row, column in np.argwhere(touching).tolist():
        affinity = _affinity(some[row], others[column])
        if affinity > 0:
            pairs.append((row, column, affinity))
    return pairs


def _affinity(a: Box, b: Box) -> float:
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a, b
    width_a, height_a, width_b, height_b = ax1 - ax0, ay1 - ay0, bx1 - bx0, by1 - by0
    overlap = iou(a, b)
    if overlap >= _MIN_IOU:
        return 1.0 + overlap
    if max(width_a, width_b) >= _ALIKE * min(width_a, width_b):
        return 0.0
    if max(height_a, height_b) >= _ALIKE * min(height_a, height_b):
        return 0.0
    apart_x = abs(ax1 + ax0 - bx1 - bx0) / (width_a + width_b)
    apart_y = abs(ay1 + ay0 - by1 - by0) / (height_a + height_b)
    return 1.0 - max(apart_x, apart_y) / _MAX_DISTANCE


def _frame_shift(some: list[Box], others: list[Box]) -> tuple[float, float] | None:
    """Return the shift, x and y, of all boxes that explains the detections much better than the predictions do, if any.

    At few frames a second, a panning camera moves each object to about where its neighbour was. The shifts tried are
    those that bring a track onto a detection near it.

    Args:
        some: where the tracks that were detected in the frame before are expected.
        others: the detections of high score.
    """
    if len(some) < _MIN_VELOCITY_TRACKS or len(others) < _MIN_VELOCITY_TRACKS:
        return None
    predicted, found = np.array(some[:_SHIFT_TRACKS]), np.array(others)
    apart = (found[:, :2] + found[:, 2:] - predicted[:, None, :2] - predicted[:, None, 2:]) / 2
    nearest = np.abs(apart).sum(axis=2).argsort(axis=1)[:, :_SHIFT_TRACKS]
    shifts = np.take_along_axis(apart, nearest[:, :, None], axis=1).reshape(-1, 2)
    shifts = np.tile(np.concatenate((np.zeros((1, 2)), shifts)), (1, 2))
    shifted = (predicted + shifts[:, None]).reshape(-1, 4)
    overlap = iou_matrix(shifted.astype(np.float32), found.astype(np.float32))
    overlap = np.where(overlap >= _SHIFT_IOU, overlap, 0.0).reshape(len(shifts), len(predicted), len(found))
    fit = np.minimum(overlap.max(axis=2).sum(axis=1), overlap.max(axis=1).sum(axis=1))
    best = int(fit.argmax())
    return (float(shifts[best, 0]), float(shifts[best, 1])) if fit[best] > fit[0] + _SHIFT_GAIN else None


def _covers(a: Box, b: Box) -> bool:
    """Return whether one of two boxes may be a duplicate of the other."""
    overlap = iou(a, b)
    if overlap <= _INSIDE_IOU:
        return False
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b)]
    shared = sum(areas) * overlap / (1.0 + overlap)
    return overlap > _DUPLICATE_IOU or shared > _INSIDE * min(areas)


def _moved(track: Track, detection: Detection, now_s: float) -> Track:
    """Return the track after a detection; its velocity forgets the earlier displacements exponentially."""
    step_s = max(now_s - track.last_seen_s, _LEAST_STEP_S)
    gain = 1.0 if track.hits == 1 else 1.0 - math.exp(-step_s / _VELOCITY_S)
    (old_x0, old_y0, old_x1, old_y1), (x0, y0, x1, y1), (vx, vy) = track.box_px, detection.box_px, track.velocity
    vx += gain * ((x0 + x1 - old_x0 - old_x1) / 2 / step_s - vx)
    vy += gain * ((y0 + y1 - old_y0 - old_y1) / 2 / step_s - vy)
    return Track(track.track_id, detection.box_px, detection.label, track.hits + 1, track.first_seen_s, now_s, (vx, vy))


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

    def update(self, picture: Image | Frame, detections: list[Detection], now_s: float) -> TrackUpdate:  # noqa: ARG002
        """Compare the next frame with the current object.

        Args:
            picture: the frame.
            detections: unused; the frame is the object.
            now_s: monotonic time of the frame.
        """
        pyramid = pyramid_of(picture)
        small = pyramid.resized(self._SIZE, self._SIZE).astype(np.float32).mean(axis=2)
        moving = self._previous is None or float(np.abs(small - self._previous).mean()) > self._MIN_MOTION
        self._previous = small
        changed = self._object is None or float(np.abs(small - self._object).mean()) > self._MIN_CHANGE
        ended = []
        if changed and self._track is not None:
            ended, self._track = [self._track], None
        if moving:
            return TrackUpdate([], ended)
        box = (0.0, 0.0, float(pyramid.width), float(pyramid.height))
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
