"""What a subscriber received against what a stream truly showed."""

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

Verdict = Literal["right", "wrong", "unknown", "missed"]

_MIN_IOU = 0.3
_SHOWN_FRACTION = 0.6  # of the object visible
_SHOWN_S = 0.5  # for at least this long in all: shorter glimpses are not scored


@dataclass(frozen=True, slots=True)
class TrueObject:
    """One physical object of the stream."""

    object_id: int
    category: str
    item_id: str
    shown_s: float  # how long it was well visible


@dataclass(frozen=True, slots=True)
class Truth:
    """The ground truth of a stream."""

    fps: float
    width: int
    height: int
    objects: dict[int, TrueObject]
    frames: list[list[tuple[int, Box]]]  # (object id, box in pixels) of each frame


@dataclass(frozen=True, slots=True)
class Answer:
    """The last word on one track: what a subscriber believes of it."""

    track_id: int
    pts_s: float
    box_rel: Box
    category: str | None
    item_id: str | None
    score: float


@dataclass(frozen=True, slots=True)
class Score:
    """The verdict on every object of a stream."""

    verdicts: dict[int, Verdict]  # by object id, well shown objects only
    object_of_track: dict[int, int]
    false_tracks: int  # tracks that lie on no object

    @property
    def share_right(self) -> float:
        """Objects identified rightly, of all that were well shown."""
        return Counter(self.verdicts.values())["right"] / max(1, len(self.verdicts))

    def count(self, verdict: Verdict) -> int:
        """Objects with this verdict."""
        return Counter(self.verdicts.values())[verdict]


def read_truth(path: Path) -> Truth:
    """Read the ground truth beside a synthetic stream.

    Raises:
        CaptureError: missing or not of the expected form.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        frames = [[(int(o["object_id"]), _box(o["box_px"])) for o in frame] for frame in raw["frames"]]
        shown = Counter(
            int(o["object_id"]) for frame in raw["frames"] for o in frame if o["visible_fraction"] >= _SHOWN_FRACTION
        )
        objects = {
            int(o["object_id"]): TrueObject(
                int(o["object_id"]), o["category"], o["item_id"], shown[int(o["object_id"])] / raw["fps"]
            )
            for o in raw["objects"]
        }
        return Truth(float(raw["fps"]), int(raw["width"]), int(raw["height"]), objects, frames)
    except OSError as error:
        raise CaptureError(f"{path}: cannot read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise CaptureError(f"{path}: found no ground truth of schema 1: {error!r}") from error


def _box(values: list[float]) -> Box:
    x0, y0, x1, y1 = values
    return (x0, y0, x1, y1)


def answers_of(payloads: Iterable[dict[str, Any]]) -> list[Answer]:
    """The last answer of each track, from event payloads in the order received.

    Its place is where the object was when the answer was new: at its end it may be half outside the picture.
    """
    last: dict[int, Answer] = {}
    for event in payloads:
        match = event["match"]
        if event["type"] == "end" and event["track_id"] in last:
            continue  # repeats what was told last
        last[event["track_id"]] = Answer(
            event["track_id"],
            event["pts_s"],
            _box(event["box"]),
            event["category"]["name"] if event["category"] else None,
            match["item"] if match else None,
            match["score"] if match else 0.0,
        )
    return list(last.values())


def score(truth: Truth, answers: list[Answer]) -> Score:
    """Lay tracks on true objects and judge the last answer on each object."""
    object_of_track: dict[int, int] = {}
    answer_of_object: dict[int, Answer] = {}
    false_tracks = 0
    for answer in sorted(answers, key=lambda a: a.pts_s):
        object_id = _object_under(truth, answer)
        if object_id is None:
            false_tracks += 1
            continue
        object_of_track[answer.track_id] = object_id
        answer_of_object[object_id] = answer
    verdicts: dict[int, Verdict] = {
        object_id: _judge(true, answer_of_object.get(object_id))
        for object_id, true in truth.objects.items()
        if true.shown_s >= _SHOWN_S
    }
    return Score(verdicts, object_of_track, false_tracks)


def _judge(true: TrueObject, answer: Answer | None) -> Verdict:
    if answer is None:
        return "missed"
    if answer.item_id is None:
        return "unknown"
    return "right" if answer.item_id == true.item_id else "wrong"


def _object_under(truth: Truth, answer: Answer) -> int | None:
    index = min(len(truth.frames) - 1, max(0, round(answer.pts_s * truth.fps)))
    objects = truth.frames[index]
    if not objects:
        return None
    x0, y0, x1, y1 = answer.box_rel
    box = np.asarray([[x0 * truth.width, y0 * truth.height, x1 * truth.width, y1 * truth.height]], np.float32)
    overlap = iou_matrix(box, np.asarray([b for _, b in objects], np.float32))[0]
    best = int(overlap.argmax())
    return objects[best][0] if overlap[best] >= _MIN_IOU else None
