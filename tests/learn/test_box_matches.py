"""Matching found boxes to true ones: each once, and every box accounted for."""

from __future__ import annotations

import numpy as np
import pytest

from learn.box_matches import match_boxes
from trainer.metrics import Boxes
from trainer.metrics import match_boxes as judged_boxes

TRUE = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)


def test_each_kind_of_box():
    found = np.array([[0, 0, 10, 9], [0, 1, 10, 10], [50, 50, 60, 60]], np.float32)
    matches = match_boxes(found, np.array([0.5, 0.9, 0.8]), TRUE)
    assert [(one.found, one.true) for one in matches.matched] == [(1, 0)]  # the better score goes first
    assert matches.matched[0].iou == pytest.approx(0.9)
    assert [(one.found, one.true) for one in matches.doubled] == [(0, 0)]
    assert matches.unmatched == (2,)
    assert matches.missed == (1,)


def test_a_second_box_takes_the_free_neighbour():
    true = np.array([[0, 0, 10, 10], [3, 0, 13, 10]], np.float32)
    matches = match_boxes(np.array([[1, 0, 11, 10], [1, 0, 11, 10]], np.float32), np.array([0.9, 0.8]), true)
    assert sorted(one.true for one in matches.matched) == [0, 1]
    assert matches.doubled == ()


@pytest.mark.parametrize(("found", "true"), [(0, 2), (2, 0), (0, 0)])
def test_nothing_found_or_nothing_there(found, true):
    matches = match_boxes(TRUE[:found], np.ones(found), TRUE[:true])
    assert (len(matches.unmatched), len(matches.missed), matches.matched) == (found, true, ())


def test_matches_are_those_of_the_evaluation():
    """The measure of detectors is another implementation of the same rule."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        corners = rng.uniform(0, 60, (9, 2))
        boxes = np.hstack([corners, corners + rng.uniform(15, 30, (9, 2))]).astype(np.float32)
        scores = rng.random(5).astype(np.float32)
        matches = match_boxes(boxes[:5], scores, boxes[5:])
        _, right = judged_boxes([Boxes(boxes[:5], scores)], [boxes[5:]], 0.5)
        assert len(matches.matched) == right.sum()
        assert len(matches.matched) + len(matches.doubled) + len(matches.unmatched) == 5
        assert len(matches.matched) + len(matches.missed) == 4
