"""Selective risk, on results few enough to count."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.evaluation.open_set import QueryResult
from trainer.evaluation.risk import named_wrongly, risk_curve

RIGHT = [QueryResult("a", True, "a", "a", score) for score in (0.9, 0.7)]
UNKNOWN = QueryResult("x", False, "a", "a", 0.8)  # named, though the gallery lacks it
SILENT = QueryResult("b", True, None, None, float("-inf"))
RESULTS = [RIGHT[1], SILENT, UNKNOWN, RIGHT[0]]


def test_curve_names_the_surest_first():
    np.testing.assert_allclose(risk_curve(RESULTS).risks, [0, 1 / 2, 1 / 3, 2 / 4])
    assert risk_curve(RESULTS).area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_excess_is_over_the_best_order():
    best = (0 + 0 + 1 / 3 + 2 / 4) / 4
    assert risk_curve(RESULTS).excess == pytest.approx(risk_curve(RESULTS).area - best)
    assert risk_curve([*RIGHT, SILENT]).excess == 0.0


def test_coverage_at_a_risk_ends_at_a_threshold():
    assert risk_curve(RESULTS).coverage_at(0.0) == 0.25
    assert risk_curve(RESULTS).coverage_at(0.4) == 0.75
    tied = [QueryResult("a", True, "a", item, 0.5) for item in ("a", "a", "b", "b")]
    np.testing.assert_allclose(risk_curve(tied).risks, 0.5)  # no threshold tells them apart
    assert risk_curve(tied).coverage_at(0.49) == 0.0


def test_area_agrees_with_a_plain_loop():
    rng = np.random.default_rng(0)
    results = [
        QueryResult("a", True, "a", str(rng.choice(["a", "b"], p=[0.8, 0.2])), float(rng.random())) for _ in range(200)
    ]
    ordered = sorted(results, key=lambda one: -one.score)
    shares = [sum(one.nearest != "a" for one in ordered[: k + 1]) / (k + 1) for k in range(200)]
    curve = risk_curve(results)
    assert curve.area == pytest.approx(sum(shares) / 200)
    assert curve.points()[-1] == {"coverage": 1.0, "risk": pytest.approx(shares[-1])}


def test_no_result_has_no_risk():
    empty = risk_curve([])
    assert (empty.area, empty.excess, empty.coverage_at(0.1), empty.points()) == (0.0, 0.0, 0.0, [])


def test_named_objects_are_wrong_or_not():
    assert named_wrongly(RESULTS).tolist() == [0.0, 1.0, 0.0]
