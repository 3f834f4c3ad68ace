"""Pictures, exemplars and warnings of an enrolment."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge.kiosk.enrolment import enrolment_warnings, exemplars, judge_picture, mean_vector, measure_picture
from edge.manifest.embedder import OpenSet
from edge.types import Hit

RULES = {"carton": OpenSet(threshold=0.7)}


def pictures(count, spread, seed=0):
    """Unit rows around one direction."""
    rng = np.random.default_rng(seed)
    rows = np.eye(1, 16, dtype=np.float32) + spread * rng.normal(size=(count, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def kinds(vectors, others=(), recognised=4):
    return [one.kind for one in enrolment_warnings({"carton": vectors}, {"carton": list(others)}, RULES, recognised)]


def test_varied_pictures_of_a_distinct_item_give_no_warning():
    assert kinds(pictures(4, 0.15), [Hit("c1", "Oat flakes", 0.69)]) == []


def test_two_pictures_are_few():
    assert kinds(pictures(2, 0.15)) == ["few_looks"]


def test_similar_pictures_are_of_the_same_pose():
    assert kinds(pictures(5, 0.01)) == ["same_pose"]


def test_nearest_item_above_the_threshold_is_named():
    hits = {"carton": [Hit("c1", "Oat flakes", 0.8), Hit("c2", "Corn flakes", 0.75)], "can": [Hit("d", "Cola", 0.6)]}
    (found,) = enrolment_warnings({"carton": pictures(4, 0.15)}, hits, RULES, 4)
    assert (found.kind, found.other) == ("near_another", Hit("c1", "Oat flakes", 0.8))


def test_not_recognised_is_the_first_warning():
    assert kinds(pictures(2, 0.15), recognised=0) == ["not_recognised", "few_looks"]
    assert [one.kind for one in enrolment_warnings({}, {}, RULES, 0)] == ["not_recognised", "few_looks"]


def test_mean_vector_has_unit_length():
    assert np.linalg.norm(mean_vector(pictures(4, 0.3))) == pytest.approx(1.0)


def test_exemplars_are_views_and_midpoints_of_every_two_pictures():
    first, second, third = (pictures(2, 0.3, seed) for seed in range(3))
    rows = exemplars([first, second, third])
    assert rows.shape == (3 * 2 + 3 * 3, 16)
    np.testing.assert_array_equal(rows[:6], np.concatenate([first, second, third]))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-6)
    middle = first[0] + second[0]
    assert np.isclose(rows[6:] @ (middle / np.linalg.norm(middle)), 1.0, atol=1e-6).any()


def test_midpoint_is_nearer_to_a_pose_between_two_pictures():
    left, right = np.eye(2, 16, dtype=np.float32)[:, None]
    between = (left + right)[0] / np.sqrt(2)
    assert max(exemplars([left, right]) @ between) > max(np.concatenate([left, right]) @ between) + 0.2


def test_one_picture_has_no_midpoints():
    one = pictures(6, 0.3)
    np.testing.assert_array_equal(exemplars([one]), one)


NOISE = np.random.default_rng(0).integers(0, 255, (180, 320, 3), dtype=np.uint8)
OTHER = np.ascontiguousarray(NOISE[:, ::-1]) // 2


def still(picture):
    return measure_picture(picture, is_still=True)


def test_first_sharp_still_picture_is_taken():
    measure = still(NOISE)
    assert judge_picture(measure, [], measure.sharpness, 4) == "take"


def test_moving_picture_is_not_taken():
    measure = measure_picture(NOISE, is_still=False)
    assert judge_picture(measure, [], measure.sharpness, 4) == "moving"


def test_picture_half_as_sharp_as_the_sharpest_is_not_taken():
    sharp, blurred = still(NOISE), still(cv2.GaussianBlur(NOISE, (15, 15), 5))
    assert judge_picture(blurred, [], sharp.sharpness, 4) == "blurred"


def test_same_side_is_not_taken_twice():
    first, again, turned = still(NOISE), still(np.minimum(NOISE, 253) + 2), still(OTHER)
    assert judge_picture(again, [first], first.sharpness, 4) == "same"
    assert judge_picture(turned, [first], turned.sharpness, 4) == "take"


def test_no_picture_is_taken_above_the_wanted_number():
    first, turned = still(NOISE), still(OTHER)
    assert judge_picture(turned, [first], turned.sharpness, 1) == "enough"


def test_picture_of_one_pixel_can_be_judged():
    assert judge_picture(still(np.zeros((1, 1, 3), np.uint8)), [], 0.0, 4) == "take"
