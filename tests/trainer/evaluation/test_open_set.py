"""Open-set measures on results few enough to count."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.evaluation.open_set import (
    QueryResult,
    area_under_curve,
    calibration_error_of,
    identified_at,
    outcomes,
    reliability,
    separation,
)

RESULTS = [
    QueryResult("a", True, "a", "a", 0.9, 0.9),
    QueryResult("b", True, "a", "a", 0.6, 0.6),
    QueryResult("b", True, None, "b", 0.4, 0.4),
    QueryResult("x", False, "a", "a", 0.5, 0.5),
    QueryResult("x", False, None, None, float("-inf")),
]


def test_outcomes_are_shares_of_known_and_unknown_pictures():
    assert outcomes(RESULTS, known=True, missed=1) == {
        "identified": 0.25, "wrong": 0.25, "unknown": 0.25, "missed": 0.25,
    }  # fmt: skip
    assert outcomes(RESULTS, known=False) == {"identified": 0.0, "wrong": 0.5, "unknown": 0.5, "missed": 0.0}
    assert outcomes([], known=True)["identified"] == 0.0


def test_auroc_counts_ties_half():
    assert area_under_curve(np.array([0.9, 0.5]), np.array([0.5, 0.1])) == pytest.approx((2 + 1.5) / 4)
    assert separation(RESULTS) == pytest.approx((2 + 2 + 1) / 6)


def test_identified_at_counts_right_items_above_the_threshold():
    assert identified_at(RESULTS, 0.01).tolist() == [1.0, 0.0, 0.0]
    assert identified_at(RESULTS, 0.5).tolist() == [1.0, 0.0, 1.0]  # one of two unknown is accepted


def test_calibration_error_is_the_mean_gap_to_the_truth():
    bins = reliability(RESULTS)
    assert [one["count"] for one in bins] == [1, 1, 1, 1]
    # .9 right, .6 wrong, .4 right, .5 of an unknown item: wrong
    assert calibration_error_of(bins) == pytest.approx((0.1 + 0.6 + 0.6 + 0.5) / 4)
    assert calibration_error_of([]) == 0.0
