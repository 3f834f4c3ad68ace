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
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.imaging.pyramid import pyramid_of
from edge.inference.postprocess import iou_matrix
from edge.types import Box, Detection, Frame, Image

Numbers = NDArray[np.float64]
Indices = NDArray[np.intp]

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
            if _is_duplicate(box, tracked):
                since_s = min((s for b, s in self._doubtful if _is_duplicate(box, [b])), default=self._now_s)
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
    old = np.array([(*t.box_px, *t.velocity, t.first_seen_s, t.last_seen_s, t.hits) for t in tracks], np.float64)
    found = np.array([(*d.box_px, d.score) for d in detections], np.float64)
    boxes, high, newest = found[:, :4], found[:, 4] >= _HIGH_SCORE, old[:, 7] == before_s
    predicted = _predict(old, now_s)
    rows, columns, affinity = _affinities(predicted, boxes)
    if 2 * len(set(rows[affinity >= _FITTING].tolist())) <= np.count_nonzero(newest):
        shift = _frame_shift(predicted[newest], boxes[high])
        if shift is not None:
            rows, columns, affinity = _affinities(predicted + shift, boxes)
    urgency = affinity - _UNSEEN_COST * (now_s - old[rows, 7])
    order = np.lexsort((-urgency, old[rows, 8] == 1, ~high[columns]))
    taken: dict[int, int] = {}
    _assign(rows[order], columns[order], taken)
    used = set(taken.values())
    rest = [j for j in range(len(detections)) if j not in used]
    lost = [i for i, just in enumerate(newest.tolist()) if just and i not in taken]
    if rest and lost:  # an object that stopped, or a frame that came late, is where it was
        rows, columns, affinity = _affinities(old[lost, :4], boxes[rest])
        order = np.argsort(-affinity, kind="stable")
        order = order[affinity[order] >= 1.0]
        _assign(np.asarray(lost)[rows[order]], np.asarray(rest)[columns[order]], taken)
        used = set(taken.values())
    return (
        [_moved(tracks[i], detections[j], now_s) for i, j in taken.items()],
        [track for i, track in enumerate(tracks) if i not in taken],
        [detections[j] for j in rest if j not in used],
    )


def _assign(rows: Indices, columns: Indices, taken: dict[int, int]) -> None:
    """Add the pairs whose row and column are free to `taken`, column by row; the first ones first."""
    used = set(taken.values())
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if row not in taken and column not in used:
            taken[row] = column
            used.add(column)


def _predict(old: Numbers, now_s: float) -> Numbers:
    """Return the boxes (n, 4) where tracks are expected.

    A velocity is used for as long as it was measured: the first displacements of a still object are jitter. Before and
    after that, the track moves with the camera, whose velocity is the median of the measured ones.

    Args:
        old: (n, 9): box, velocity, times of the first and newest detection, number of detections.
        now_s: time of this frame.
    """
    velocity, unseen_s, age_s = old[:, 4:6], now_s - old[:, 7], old[:, 7] - old[:, 6]
    own_s = np.minimum(unseen_s, age_s)
    measured = velocity[age_s >= _MIN_VELOCITY_S]
    move = own_s[:, None] * velocity
    if (count := len(measured)) >= _MIN_VELOCITY_TRACKS:
        measured.sort(axis=0)
        camera = (measured[(count - 1) // 2] + measured[count // 2]) / 2
        if camera.any():
            own_s = np.where(age_s >= _MIN_VELOCITY_S, own_s, 0.0)
            move = own_s[:, None] * velocity + (unseen_s - own_s)[:, None] * camera
    return old[:, :4] + np.concatenate((move, move), axis=1)


def _affinities(a: Numbers, b: Numbers) -> tuple[Indices, Indices, Numbers]:
    """Return the pairs of boxes, (n, 4) and (m, 4), that may be one object: indices in a, in b, and the affinity.

    The affinity is 1..2 for boxes that overlap enough, 0..1 for boxes of similar size that are near.
    """
    x0, y0, x1, y1 = np.ascontiguousarray(b.T)
    touch = (a[:, :1] < x1) & (a[:, 2:3] > x0) & (a[:, 1:2] < y1) & (a[:, 3:] > y0)
    rows, columns = touch.nonzero()
    a, b = a[rows], b[columns]
    size_a, size_b = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
    common = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = common[:, 0] * common[:, 1]
    overlap = shared / (size_a[:, 0] * size_a[:, 1] + size_b[:, 0] * size_b[:, 1] - shared)
    apart = np.abs(a[:, 2:] + a[:, :2] - b[:, 2:] - b[:, :2]) / (size_a + size_b)
    alike = np.maximum(size_a, size_b) < _ALIKE * np.minimum(size_a, size_b)
    nearness = 1.0 - np.maximum(apart[:, 0], apart[:, 1]) / _MAX_DISTANCE
    affinity = np.where(overlap >= _MIN_IOU, 1.0 + overlap, nearness * (alike[:, 0] & alike[:, 1]))
    possible = affinity > 0
    return rows[possible], columns[possible], affinity[possible]


def _frame_shift(predicted: Numbers, found: Numbers) -> Numbers | None:
    """Return the shift (4,) of all boxes that explains the detections much better than the predictions do, if any.

    At few frames a second, a panning camera moves each object to about where its neighbour was. The shifts tried are
    those that bring a track onto a detection near it.

    Args:
        predicted: (n, 4), where the tracks that were detected in the frame before are expected.
        found: (m, 4), the detections of high score.
    """
    if len(predicted) < _MIN_VELOCITY_TRACKS or len(found) < _MIN_VELOCITY_TRACKS:
        return None
    predicted = predicted[:_SHIFT_TRACKS]
    apart = (found[:, :2] + found[:, 2:] - predicted[:, None, :2] - predicted[:, None, 2:]) / 2
    nearest = np.abs(apart).sum(axis=2).argsort(axis=1)[:, :_SHIFT_TRACKS]
    shifts = np.take_along_axis(apart, nearest[:, :, None], axis=1).reshape(-1, 2)
    shifts = np.tile(np.concatenate((np.zeros((1, 2)), shifts)), (1, 2))
    shifted = (predicted + shifts[:, None]).reshape(-1, 4)
    overlap = iou_matrix(shifted.astype(np.float32), found.astype(np.float32))
    overlap = np.where(overlap >= _SHIFT_IOU, overlap, 0.0).reshape(len(shifts), len(predicted), len(found))
    fit = np.minimum(overlap.max(axis=2).sum(axis=1), overlap.max(axis=1).sum(axis=1))
    best = int(fit.argmax())
    return shifts[best] if fit[best] > fit[0] + _SHIFT_GAIN else None


def _is_duplicate(box: Box, others: list[Box]) -> bool:
    """Return whether a box may be a duplicate of one of the others."""
    if not others:
        return False
    one, rest = np.array([box]), np.array(others)
    overlap = iou_matrix(one, rest)[0]
    area, areas = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (one, rest))
    inside = overlap * (area + areas) / (1.0 + overlap) / np.minimum(area, areas)
    return bool(((overlap > _DUPLICATE_IOU) | ((overlap > _INSIDE_IOU) & (inside > _INSIDE))).any())


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
