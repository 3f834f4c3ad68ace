"""The score of the events that a subscriber received."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.demo.score import TrackAnswer, last_answers, read_ground_truth, score
from edge.errors import CaptureError

FPS = 10


def write_truth(folder, shown: dict[int, tuple[range, tuple[float, float, float, float]]]):
    """Write a ground truth: by object id, the frames that show it and its box in a 100x100 picture."""
    frames = [
        [
            {"object_id": i, "box_px": list(box), "visible_fraction": 1.0}
            for i, (when, box) in shown.items()
            if index in when
        ]
        for index in range(30)
    ]
    objects = [{"object_id": i, "category": "can", "item_id": f"can-{i}", "label": f"Can {i}"} for i in shown]
    path = folder / "stream.json"
    path.write_text(json.dumps({"fps": FPS, "width": 100, "height": 100, "objects": objects, "frames": frames}))
    return read_ground_truth(path)


def answer(track: int, pts_s: float, box, item: str | None) -> TrackAnswer:
    return TrackAnswer(track, pts_s, box, "can", item, 0.9)


LEFT, RIGHT = (0.0, 0.0, 40.0, 40.0), (60.0, 60.0, 100.0, 100.0)
LEFT_REL, RIGHT_REL = (0.0, 0.0, 0.4, 0.4), (0.6, 0.6, 1.0, 1.0)


def test_answer_belongs_to_the_object_under_its_box(tmp_path):
    truth = write_truth(tmp_path, {1: (range(30), LEFT), 2: (range(30), RIGHT)})
    result = score(truth, [answer(7, 1.0, LEFT_REL, "can-1"), answer(8, 1.0, RIGHT_REL, "can-1")])
    assert result.outcomes == {1: "right", 2: "wrong"}
    assert result.object_of_track == {7: 1, 8: 2}
    assert result.share_right == 0.5


def test_last_answer_on_an_object_counts(tmp_path):
    truth = write_truth(tmp_path, {1: (range(30), LEFT)})
    early, late = answer(1, 0.5, LEFT_REL, "can-9"), answer(2, 2.0, LEFT_REL, "can-1")
    assert score(truth, [late, early]).outcomes == {1: "right"}


def test_no_item_is_unknown_and_no_track_is_missed(tmp_path):
    truth = write_truth(tmp_path, {1: (range(30), LEFT), 2: (range(30), RIGHT)})
    assert score(truth, [answer(1, 1.0, LEFT_REL, None)]).outcomes == {1: "unknown", 2: "missed"}


def test_briefly_shown_object_is_not_scored(tmp_path):
    truth = write_truth(tmp_path, {1: (range(30), LEFT), 2: (range(4), RIGHT)})
    assert set(score(truth, []).outcomes) == {1}


def test_track_on_no_object_is_counted_as_false(tmp_path):
    truth = write_truth(tmp_path, {1: (range(30), LEFT)})
    result = score(truth, [answer(1, 1.0, RIGHT_REL, "can-1")])
    assert (result.false_tracks, result.outcomes) == (1, {1: "missed"})


def test_answers_are_the_last_event_of_each_track():
    def event(track, item):
        match = {"item": item, "score": 0.8} if item else None
        return {
            "type": "new",
            "track_id": track,
            "pts_s": 1.0,
            "box": [0, 0, 1, 1],
            "category": {"name": "can"},
            "match": match,
        }

    answers = last_answers([event(1, "a"), event(2, None), event(1, "b")])
    assert [(a.track_id, a.item_id) for a in answers] == [(1, "b"), (2, None)]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        '{"frames": 3}',
        '{"fps": 0, "frames": [], "objects": [{"object_id": 1, "category": "a", "item_id": "b"}]}',
        '{"fps": 1, "width": 1e999, "height": 1, "frames": [], "objects": []}',
        "[" * 100_000,
    ],
)
def test_damaged_ground_truth_is_one_clear_error(tmp_path, content):
    path = tmp_path / "truth.json"
    path.write_text(content)
    with pytest.raises(CaptureError, match=r"truth\.json: not a ground truth"):
        read_ground_truth(path)


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.binary(max_size=60) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_bytes_are_a_ground_truth_or_our_error(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.json"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(CaptureError):
            read_ground_truth(path)
