"""Checkout measures on short lists, and against loops written from RPC's definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trainer.evaluation.checkout_measures import (
    checkout_accuracy,
    checkout_measures,
    count_items,
    counting_distance,
    mean_category_distance,
    mean_category_iou,
)

ITEMS = ["ale", "jam", "tea"]
TRUE = count_items([{"ale": 2}, {"ale": 1, "jam": 1}], ITEMS)
FOUND = count_items([{"ale": 2}, {"jam": 3, "cat": 9}], ITEMS)


def test_lists_become_rows_of_known_items():
    assert FOUND.tolist() == [[2, 0, 0], [0, 3, 0]]


def test_list_is_right_only_as_a_whole():
    assert checkout_accuracy(FOUND, TRUE).tolist() == [1.0, 0.0]
    assert counting_distance(FOUND, TRUE).tolist() == [0.0, 3.0]


def test_category_distance_averages_over_shown_items():
    assert mean_category_distance(FOUND, TRUE) == pytest.approx((1 / 3 + 2 / 1) / 2)


def test_category_iou_averages_over_shown_or_found_items():
    assert mean_category_iou(FOUND, TRUE) == pytest.approx((2 / 3 + 1 / 3) / 2)
    invented = count_items([{"tea": 1}, {}], ITEMS)
    assert mean_category_iou(FOUND + invented, TRUE) == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)


def test_measures_of_empty_lists_are_numbers():
    nothing = np.zeros((2, 3), np.int64)
    assert mean_category_distance(nothing, nothing) == 0.0
    assert mean_category_iou(nothing, nothing) == 1.0
    assert all(math.isfinite(value) for value in by_definition(TRUE, TRUE).values())
    assert checkout_measures(nothing, nothing)["relative_distance"] == 0.0


def by_definition(found, true):
    """The measures of rpctool, in loops; an item without a true (mCCD) or any (mCIoU) object is left out."""
    pictures, items = true.shape
    wrong = [[abs(int(found[i][k]) - int(true[i][k])) for k in range(items)] for i in range(pictures)]
    distances, overlaps = [], []
    for k in range(items):
        shown = sum(int(true[i][k]) for i in range(pictures))
        either = sum(max(found[i][k], true[i][k]) for i in range(pictures))
        if shown:
            distances.append(sum(wrong[i][k] for i in range(pictures)) / shown)
        if either:
            overlaps.append(sum(min(found[i][k], true[i][k]) for i in range(pictures)) / either)
    relative = [sum(wrong[i]) / sum(true[i]) for i in range(pictures) if sum(true[i])]
    return {
        "cAcc": sum(not any(row) for row in wrong) / pictures,
        "ACD": sum(map(sum, wrong)) / pictures,
        "mCCD": sum(distances) / len(distances),
        "mCIoU": sum(overlaps) / len(overlaps),
        "relative_distance": sum(relative) / len(relative),
    }


@pytest.mark.parametrize("seed", range(5))
def test_measures_agree_with_the_definitions(seed):
    rng = np.random.default_rng(seed)
    true = rng.poisson(0.4, (12, 7)) * (rng.random(7) < 0.7)
    found = np.maximum(true + rng.integers(-1, 2, true.shape) * (rng.random(true.shape) < 0.1), 0)
    measured = checkout_measures(found, true)
    flat = {key: value["mean"] if isinstance(value, dict) else value for key, value in measured.items()}
    for key, value in by_definition(found, true).items():
        assert flat[key] == pytest.approx(value), key
