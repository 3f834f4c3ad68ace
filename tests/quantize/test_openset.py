"""The open-set rule."""

from pathlib import Path

import numpy as np
import pytest

from quantize import openset
from quantize.index import Sample

NORMAL = np.random.default_rng(1).normal(size=400)


def crop(item):
    return Sample(Path("x.png"), "x.png", "val", "box", item)


def test_threshold_accepts_the_right_matches_and_refuses_the_impostors_when_they_are_apart():
    fit = openset.fit(0.9 + 0.02 * NORMAL, 0.4 + 0.05 * NORMAL)
    assert 0.5 < fit.open_set.threshold < 0.87
    assert fit.false_reject <= 0.01
    assert fit.false_accept <= 0.02
    assert fit.rule == "accepts 99%"


def test_threshold_makes_both_errors_equal_when_impostors_overlap():
    fit = openset.fit(0.7 + 0.1 * NORMAL, 0.6 + 0.1 * NORMAL)
    assert fit.rule == "equal error"
    assert fit.false_accept == pytest.approx(fit.false_reject, abs=0.02)


def test_probability_rises_through_a_half_between_the_two():
    rule = openset.fit(0.8 + 0.05 * NORMAL, 0.4 + 0.05 * NORMAL).open_set
    assert 0.5 < rule.midpoint < 0.7
    assert 1 / (1 + np.exp(-rule.slope * (0.8 - rule.midpoint))) > 0.9
    assert 1 / (1 + np.exp(-rule.slope * (0.4 - rule.midpoint))) < 0.1


def test_few_scores_keep_the_default_and_say_so():
    fit = openset.fit(np.array([0.9]), np.array([0.1]))
    assert fit.open_set.threshold == 0.5
    assert "fewer than 20" in fit.rule


def test_an_impostor_is_a_crop_whose_own_item_is_taken_out():
    gallery = np.array([[1, 0], [0.6, 0.8]], np.float32)
    genuine, impostor = openset.scores_of(
        np.array([[1, 0]], np.float32), [crop("red")], gallery, [crop("red"), crop("blue")]
    )
    assert genuine.tolist() == [1.0]
    assert impostor.tolist() == pytest.approx([0.6])


def test_a_category_with_few_scores_takes_those_of_all():
    plenty = (0.9 + 0.02 * NORMAL, 0.4 + 0.05 * NORMAL)
    fits = openset.fit_each({"box": plenty, "can": (plenty[0][:3], plenty[1][:3])}, ["box", "can", "jar"])
    assert fits["can"].open_set.threshold == pytest.approx(fits["box"].open_set.threshold, abs=0.01)
    assert fits["jar"].rule.endswith("of all categories")
