"""Fitting the open-set rule."""

import numpy as np
import pytest

from edge.manifest import OpenSet
from edge.types import Category
from quantize.fit_thresholds import Predictions, ScoredCrop, fit_thresholds, leave_items_out, predict

ITEMS = {"box": [f"box-{n}" for n in range(10)], "can": [f"can-{n}" for n in range(10)]}


def crops(rng, apart=0.3, each=12):
    """Crops whose own item scores about 0.8 and others of the category `apart` less; cans are 0.04 closer."""
    scored = []
    for category, closeness in ("box", 0.0), ("can", 0.04):
        for number, item in enumerate(ITEMS[category]):
            for _ in range(each):
                scores = rng.normal(0.8 - apart + closeness, 0.04, 10).astype(np.float32)
                scores[number] = rng.normal(0.8, 0.04)
                scored.append(ScoredCrop(item, [Category(category, 0.9)], {category: scores}))
    return scored


def sigmoid(rule: OpenSet, score):
    return 1 / (1 + np.exp(-rule.slope * (score - rule.midpoint)))


def test_left_out_item_is_unknown_and_its_neighbour_is_predicted():
    crop = ScoredCrop("box-0", [Category("box", 0.9)], {"box": np.array([0.9, 0.6] + [0.1] * 8, np.float32)})
    assert predict(crop, ITEMS, set()) == ("box", pytest.approx(0.9), True, True)
    assert predict(crop, ITEMS, {"box-0"}) == ("box", pytest.approx(0.6), False, False)
    assert predict(crop, ITEMS, set(ITEMS["box"])) == ("", -1.0, False, False)


def test_item_missing_from_the_gallery_is_unknown_in_every_round():
    crop = ScoredCrop("box-new", [Category("box", 0.9)], {"box": np.array([0.9] + [0.1] * 9, np.float32)})
    predictions = leave_items_out([crop], ITEMS, rounds=5)
    assert not predictions.known.any()
    assert not predictions.correct.any()
    assert len(predictions.score) == 5


def test_a_fifth_of_the_items_is_left_out_each_round():
    predictions = leave_items_out(crops(np.random.default_rng(0)), ITEMS, rounds=5)
    assert len(predictions.score) == 5 * 240
    assert predictions.known.mean() == pytest.approx(0.8)


def test_probability_is_calibrated_on_items_not_fitted_on():
    rng = np.random.default_rng(1)
    fits = fit_thresholds(leave_items_out(crops(rng, 0.15, 20), ITEMS, rounds=8), ["box", "can"])
    fresh = leave_items_out(crops(rng, 0.15, 20), ITEMS, rounds=8, seed=9)
    for category, fit in fits.items():
        own = fresh.select(fresh.category == category)
        probability = sigmoid(fit.open_set, own.score)
        assert probability.mean() == pytest.approx(own.correct.mean(), abs=0.03)
        high = probability > 0.5
        assert own.correct[high].mean() == pytest.approx(probability[high].mean(), abs=0.06)


def test_requested_share_of_unknown_objects_is_accepted():
    predictions = leave_items_out(crops(np.random.default_rng(2), 0.1, 20), ITEMS, rounds=10)
    for share in (0.01, 0.05, 0.1):
        fits = fit_thresholds(predictions, ["box", "can"], share)
        accepted = sum(
            int(
                (predictions.score >= fits[name].open_set.threshold)[
                    (predictions.category == name) & ~predictions.known
                ].sum()
            )
            for name in fits
        )
        assert share / 4 < accepted / (~predictions.known).sum() < share + 0.01
        assert fits["box"].open_set.false_accept == share


def test_operating_points_exist_without_a_requested_share():
    predictions = leave_items_out(crops(np.random.default_rng(3), 0.1), ITEMS, rounds=10)
    rule = fit_thresholds(predictions, ["can"])["can"].open_set
    assert rule.midpoint < rule.threshold <= rule.operating_points["0.1"]
    assert rule.false_accept is None
    assert list(rule.operating_points) == ["0.01", "0.05", "0.1"]
    points = rule.operating_points
    assert points["0.01"] > points["0.05"] >= points["0.1"] > rule.midpoint


def test_threshold_is_never_below_the_overall_accuracy():
    fit = fit_thresholds(leave_items_out(crops(np.random.default_rng(4), 0.6), ITEMS, rounds=5), ["box"], 0.1)["box"]
    assert sigmoid(fit.open_set, fit.open_set.threshold) == pytest.approx(0.8, abs=0.02)
    assert (fit.false_accept, fit.false_reject) == (0.0, 0.0)


def test_too_few_predictions_keep_the_default_rule():
    none = np.zeros(1, bool)
    fit = fit_thresholds(Predictions(np.array(["a"]), np.array(["box"]), np.array([0.9]), none, none), ["box"])["box"]
    assert fit.open_set == OpenSet()
    assert "fewer than 20 predictions" in fit.rule


def test_category_with_few_predictions_shrinks_to_the_pooled_curve():
    predictions = leave_items_out(crops(np.random.default_rng(5), 0.15), ITEMS, rounds=8)
    rows = predictions.category == "box"
    few = np.flatnonzero(predictions.category == "can")[:2]
    rows[few] = True
    fits = fit_thresholds(predictions.select(rows), ["box", "can", "jar"])
    assert fits["jar"].open_set.midpoint == pytest.approx(fits["box"].open_set.midpoint, abs=0.02)
    assert fits["can"].open_set.midpoint == pytest.approx(fits["box"].open_set.midpoint, abs=0.02)
    assert fits["can"].known + fits["can"].unknown == 2
