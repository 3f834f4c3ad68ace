"""Scores the events that a subscriber received against the ground truth of a stream."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge.errors import CaptureError
from edge.inference.postprocess import iou_matrix
from edge.types import Box

Outcome = Literal["right", "wrong", "unknown", "missed"]

_MIN_IOU = 0.3
_MIN_VISIBLE = 0.6  # visible fraction from which an object counts as shown
_MIN_SHOWN_S = 0.5  # objects shown for less in total are not scored


@dataclass(frozen=True, slots=True)
class TrueObject:
    """One physical object of the stream."""

    object_id: int
    category: str
    item_id: str
    shown_s: float  # total time shown


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The ground truth of a stream."""

    fps: float
    width: int
    height: int
    objects: dict[int, TrueObject]
    frames: list[list[tuple[int, Box]]]  # (object id, box in pixels) of each frame


@dataclass(frozen=True, slots=True)
class TrackAnswer:
    """The last answer on one track, as a subscriber received it."""

    track_id: int
    pts_s: float
    box_rel: Box
    category: str | None
    item_id: str | None
    score: float


@dataclass(frozen=True, slots=True)
class Score:
    """The outcome for every object of a stream."""

    outcomes: dict[int, Outcome]  # by object id, only objects shown long enough
    object_of_track: dict[int, int]
    false_tracks: int  # tracks that lie on no object

    @property
    def share_right(self) -> float:
        """The share of scored objects that were identified correctly."""
        return Counter(self.outcomes.values())["right"] / max(1, len(self.outcomes))

    def count(self, outcome: Outcome) -> int:
        """Return the number of objects with this outcome."""
        return Counter(self.outcomes.values())[outcome]


def read_ground_truth(path: Path) -> GroundTruth:
    """Read the ground truth of a synthetic stream.

    Raises:
        CaptureError: the file is missing or invalid.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        frames = [[(int(o["object_id"]), _box(o["box_px"])) for o in frame] for frame in raw["frames"]]
        shown = Counter(
            int(o["object_id"]) for frame in raw["frames"] for o in frame if o["visible_fraction"] >= _MIN_VISIBLE
        )
        objects = {
            int(o["object_id"]): TrueObject(
                int(o["object_id"]), o["category"], o["item_id"], shown[int(o["object_id"])] / raw["fps"]
            )
            for o in raw["objects"]
        }
        return GroundTruth(float(raw["fps"]), int(raw["width"]), int(raw["height"]), objects, frames)
    except OSError as error:
        raise CaptureError(f"{path}: cannot read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise CaptureError(f"{path}: not a ground truth of schema 1: {error!r}") from error


def _box(values: list[float]) -> Box:
    x0, y0, x1, y1 = values
    return (x0, y0, x1, y1)


def last_answers(payloads: Iterable[dict[str, Any]]) -> list[TrackAnswer]:
    """Return the last answer of each track, from event payloads in the order received.

    Its box is that of the last new or update event: at the end event the object may be half outside the frame.
    """
    last: dict[int, TrackAnswer] = {}
    for event in payloads:
        match = event["match"]
        if event["type"] == "end" and event["track_id"] in last:
            continue  # repeats the last answer
        last[event["track_id"]] = TrackAnswer(
            event["track_id"],
            event["pts_s"],
            _box(event["box"]),
            event["category"]["name"] if event["category"] else None,
            match["item"] if match else None,
            match["score"] if match else 0.0,
        )
    return list(last.values())


def score(truth: GroundTruth, answers: list[TrackAnswer]) -> Score:
    """Match tracks with true objects and judge the last answer on each object."""
    object_of_track: dict[int, int] = {}
    answer_of_object: dict[int, TrackAnswer] = {}
    false_tracks = 0
    for answer in sorted(answers, key=lambda a: a.pts_s):
        object_id = _object_under(truth, answer)
        if object_id is None:
            false_tracks += 1
            continue
        object_of_track[answer.track_id] = object_id
        answer_of_object[object_id] = answer
    outcomes: dict[int, Outcome] = {
        object_id: _judge(true, answer_of_object.get(object_id))
        for object_id, true in truth.objects.items()
        if true.shown_s >= _MIN_SHOWN_S
    }
    return Score(outcomes, object_of_track, false_tracks)


def _judge(true: TrueObject, answer: TrackAnswer | None) -> Outcome:
    if answer is None:
        return "missed"
    if answer.item_id is None:
        return "unknown"
    return "right" if answer.item_id == true.item_id else "wrong"


def _object_under(truth: GroundTruth, answer: TrackAnswer) -> int | None:
    index = min(len(truth.frames) - 1, max(0, round(answer.pts_s * truth.fps)))
    objects = truth.frames[index]
    if not objects:
        return None
    x0, y0, x1, y1 = answer.box_rel
    box = np.asarray([[x0 * truth.width, y0 * truth.height, x1 * truth.width, y1 * truth.height]], np.float32)
    overlap = iou_matrix(box, np.asarray([b for _, b in objects], np.float32))[0]
    best = int(overlap.argmax())
    return objects[best][0] if overlap[best] >= _MIN_IOU else None
