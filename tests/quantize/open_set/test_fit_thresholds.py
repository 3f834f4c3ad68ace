"""Fitting the open-set rule."""

import numpy as np
import pytest

from edge.manifest.embedder import OpenSet
from edge.recognition.decision import decide
from edge.types import Category, Hit
from quantize.open_set.fit_thresholds import fit_thresholds, is_accepted, is_enough
from quantize.open_set.leave_items_out import Predictions, ScoredCrop, leave_items_out

ITEMS = {"box": [f"box-{n}" for n in range(10)], "can": [f"can-{n}" for n in range(10)]}


def crops(rng, apart=0.3, each=12):
    """Crops whose own item scores about 0.8 and others of the category `apart` less; cans are 0.04 closer."""
    scored = []
    for category, closeness in ("box", 0.0), ("can", 0.04):
        for number, item in enumerate(ITEMS[category]):
            for _ in range(each):
                scores = rng.normal(0.8 - apart + closeness, 0.04, 10).astype(np.float32)
                scores[number] = rng.normal(0.8, 0.04)
                scored.append(ScoredCrop(category, item, [Category(category, 0.9)], {category: scores}))
    return scored


def sigmoid(rule: OpenSet, score):
    return 1 / (1 + np.exp(-rule.slope * (score - rule.midpoint)))


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("midpoint", [0.4, 0.7])  # at the second one, the threshold accepts what is likelier wrong
def test_the_rule_accepts_what_a_device_names(midpoint, calibrated):
    rule = OpenSet(threshold=0.6, slope=20.0, midpoint=midpoint, calibrated=calibrated)
    answers = [(sure, score) for sure in (0.02, 0.24, 0.26, 1.0) for score in (0.5, 0.6, 0.65, 0.9)]
    sure, score = np.array(answers).T
    names, some = np.full(len(answers), "box"), np.ones(len(answers), np.bool_)
    accepted = is_accepted(rule, Predictions(np.arange(len(answers)), names, names, names, sure, score, some, some))
    hits = [{"box": [Hit("box-1", "", at)]} for at in score.tolist()]
    named = [decide([Category("box", p)], hit, {"box": rule}) for p, hit in zip(sure.tolist(), hits, strict=True)]
    assert accepted.tolist() == [one.match is not None for one in named]
    assert 0 < accepted.sum() < len(answers)


def test_item_missing_from_the_gallery_is_unknown_in_every_round():
    crop = ScoredCrop("box", "box-new", [Category("box", 0.9)], {"box": np.array([0.9] + [0.1] * 9, np.float32)})
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


def test_threshold_is_below_the_best_right_answer_of_weak_vectors():
    rng = np.random.default_rng(7)
    fits = fit_thresholds(leave_items_out(crops(rng, apart=0.01), ITEMS), ["box", "can"])
    best = max(scores.max() for crop in crops(np.random.default_rng(7), apart=0.01) for scores in crop.scores.values())
    assert all(fit.open_set.threshold < best < 1 for fit in fits.values())
    assert all(point < best for fit in fits.values() for point in fit.open_set.operating_points.values())
    assert max(fit.named for fit in fits.values()) < 0.1
    assert {fit.rule for fit in fits.values()} == {
        "the best right answer; none reaches a probability of at least the overall accuracy, 0.50"
    }


def test_share_of_known_pictures_that_are_named_is_told():
    fits = fit_thresholds(leave_items_out(crops(np.random.default_rng(8)), ITEMS), ["box", "can", "jar"])
    assert fits["box"].named > 0.9
    assert fits["jar"].named is None
    assert fits["box"].row()["named"] == pytest.approx(fits["box"].named, abs=1e-4)


def test_curve_needs_right_answers_from_different_pictures():
    few = crops(np.random.default_rng(9), each=1)[:10]
    assert not is_enough(leave_items_out(few, ITEMS))  # ten pictures in twenty rounds
    assert is_enough(leave_items_out(crops(np.random.default_rng(9), each=2), ITEMS))
    rule = fit_thresholds(leave_items_out(few, ITEMS), ["box"])["box"].open_set
    assert rule.calibrated is False


def test_categories_searched_together_share_one_rule():
    predictions = leave_items_out(crops(np.random.default_rng(10)), ITEMS)
    rules = {name: fit.open_set for name, fit in fit_thresholds(predictions, ["box", "can"], None, [ITEMS]).items()}
    assert rules["box"] == rules["can"]
    apart = {name: fit.open_set for name, fit in fit_thresholds(predictions, ["box", "can"]).items()}
    assert apart["box"] != apart["can"]


def test_category_with_few_predictions_shrinks_to_the_pooled_curve():
    predictions = leave_items_out(crops(np.random.default_rng(5), 0.15), ITEMS, rounds=8)
    rows = predictions.category == "box"
    few = np.flatnonzero(predictions.category == "can")[:2]
    rows[few] = True
    fits = fit_thresholds(predictions.select(rows), ["box", "can", "jar"])
    assert fits["jar"].open_set.midpoint == pytest.approx(fits["box"].open_set.midpoint, abs=0.02)
    assert fits["can"].open_set.midpoint == pytest.approx(fits["box"].open_set.midpoint, abs=0.02)
    assert fits["can"].known + fits["can"].unknown == 2
