"""What a person is told who taught a thing."""

from __future__ import annotations

import numpy as np
import pytest

from edge.kiosk.enrolment import concerns, exemplars, together
from edge.manifest import OpenSet
from edge.types import Hit

RULES = {"carton": OpenSet(threshold=0.7)}


def looks(count, spread, seed=0):
    """Unit rows around one direction."""
    rng = np.random.default_rng(seed)
    rows = np.eye(1, 16, dtype=np.float32) + spread * rng.normal(size=(count, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def kinds(vectors, others=(), recognised=4):
    return [one.kind for one in concerns({"carton": vectors}, {"carton": list(others)}, RULES, recognised)]


def test_looks_from_several_sides_that_are_like_nothing_else_are_no_concern():
    assert kinds(looks(4, 0.15), [Hit("c1", "Oat flakes", 0.69)]) == []


def test_two_looks_are_few():
    assert kinds(looks(2, 0.15)) == ["few_looks"]


def test_looks_that_are_alike_are_of_the_same_pose():
    assert kinds(looks(5, 0.01)) == ["same_pose"]


def test_another_item_above_the_threshold_is_too_near_and_the_nearest_is_named():
    hits = {"carton": [Hit("c1", "Oat flakes", 0.8), Hit("c2", "Corn flakes", 0.75)], "can": [Hit("d", "Cola", 0.6)]}
    (found,) = concerns({"carton": looks(4, 0.15)}, hits, RULES, 4)
    assert (found.kind, found.other) == ("near_another", Hit("c1", "Oat flakes", 0.8))


def test_what_is_not_recognised_at_all_is_said_first():
    assert kinds(looks(2, 0.15), recognised=0) == ["not_recognised", "few_looks"]
    assert [one.kind for one in concerns({}, {}, RULES, 0)] == ["not_recognised", "few_looks"]


def test_all_looks_together_are_a_unit_vector():
    assert np.linalg.norm(together(looks(4, 0.3))) == pytest.approx(1.0)


def test_a_thing_is_searched_by_its_views_and_by_points_between_every_two_looks():
    first, second, third = (looks(2, 0.3, seed) for seed in range(3))
    rows = exemplars([first, second, third])
    assert rows.shape == (3 * 2 + 3 * 3, 16)
    np.testing.assert_array_equal(rows[:6], np.concatenate([first, second, third]))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-6)
    middle = first[0] + second[0]
    assert np.isclose(rows[6:] @ (middle / np.linalg.norm(middle)), 1.0, atol=1e-6).any()


def test_a_pose_between_two_looks_is_nearer_than_to_either():
    left, right = np.eye(2, 16, dtype=np.float32)[:, None]
    between = (left + right)[0] / np.sqrt(2)
    assert max(exemplars([left, right]) @ between) > max(np.concatenate([left, right]) @ between) + 0.2


def test_one_look_has_nothing_between():
    one = looks(6, 0.3)
    np.testing.assert_array_equal(exemplars([one]), one)
