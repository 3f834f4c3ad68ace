"""Thresholds by the share of wrong names that an operator states."""

import math

import numpy as np
import pytest

from edge.errors import QuantizeError
from edge.types import Category
from quantize.open_set.fit_thresholds import fit_thresholds, is_accepted
from quantize.open_set.leave_items_out import Predictions, ScoredCrop, leave_items_out
from quantize.open_set.risk import RiskSearch, fewest_pictures, upper_limit

ITEMS = {"box": [f"box-{n}" for n in range(20)]}


def predictions(seed: int, each: int, spread: float = 0.05):
    """Pictures whose own item scores about 0.8, and other items about 0.5; half of them are sure."""
    rng = np.random.default_rng(seed)
    crops = []
    for number, item in enumerate(ITEMS["box"]):
        for _ in range(each):
            scores = rng.normal(0.5, spread, 20).astype(np.float32)
            scores[number] = rng.normal(0.8, 0.12)
            crops.append(ScoredCrop("box", item, [Category("box", 1.0)], {"box": scores}))
    return leave_items_out(crops, ITEMS, rounds=10, seed=seed)


@pytest.mark.parametrize(("wrong", "named"), [(0, 10), (3, 100), (7, 8), (20, 2000)])
def test_limit_is_that_of_clopper_and_pearson(wrong, named):
    limit = upper_limit(wrong, named, 0.05)
    fewer = sum(math.comb(named, k) * limit**k * (1 - limit) ** (named - k) for k in range(wrong + 1))
    assert fewer == pytest.approx(0.05, rel=1e-6)  # so few wrong answers are this rare at the limit


def test_limit_of_wrong_answers_alone_is_one():
    assert upper_limit(5, 5, 0.05) == 1.0


def test_fewest_pictures_just_show_a_risk():
    for risk in (0.01, 0.05, 0.2):
        count = fewest_pictures(risk)
        assert upper_limit(0, count, 0.05) <= risk < upper_limit(0, count - 1, 0.05)


def test_search_stops_where_the_next_pictures_are_wrong():
    wrong = np.r_[np.zeros(1000, bool), np.ones(1000, bool)]
    found = RiskSearch(np.arange(2000.0)[::-1], wrong, 1.0).lowest(0.05)
    assert found is not None
    assert found.limit <= 0.05
    assert 1000 <= found.named <= 1053  # 53 wrong ones of 1053 are more than 5 %


def test_few_sure_pictures_do_not_end_the_search():
    """The surer half alone cannot show what all of them together show."""
    levels, wrong = np.arange(325.0), np.zeros(325, bool)
    found = RiskSearch(levels, wrong, 1.0).lowest(0.02)
    assert found is not None
    assert found.named == 325
    assert RiskSearch(levels, wrong, 1.0).fewest(0.02) > 325 / 2


def test_rounds_of_a_picture_count_once():
    levels, wrong = np.repeat(np.arange(400.0), 20), np.zeros(8000, bool)
    assert RiskSearch(levels, wrong, 1 / 20).lowest(0.01) is None  # 400 pictures, not 8,000
    assert RiskSearch(levels, wrong, 1.0).lowest(0.01) is not None


def test_promise_holds_on_pictures_that_were_not_fitted_on():
    broken = 0
    for seed in range(4):
        rule = fit_thresholds(predictions(seed, 40, 0.1), ["box"], risk=0.05)["box"].open_set
        fresh = predictions(100 + seed, 60, 0.1)
        named = fresh.score >= rule.threshold
        assert named.mean() > 0.1
        broken += bool((~fresh.correct[named]).mean() > 0.05)
    assert broken <= 1


@pytest.mark.parametrize("sure", [0.1, 0.3, 1.0])
def test_promise_holds_for_what_a_device_names_of_unlikely_categories(sure):
    """Empty places: their category is unlikely, and their nearest item a little below the items of the gallery."""
    rng = np.random.default_rng(5)
    scores = np.r_[rng.normal(0.75, 0.08, 900), rng.normal(0.5, 0.08, 600)]
    right = np.arange(1500) < 900
    names = np.full(1500, "box")
    asked = Predictions(np.arange(1500), names, names, names, np.where(right, 1.0, sure), scores, right, right)
    for risk, at in fit_thresholds(asked, ["box"])["box"].open_set.risk_points.items():
        rule = fit_thresholds(asked, ["box"], risk=float(risk))["box"].open_set
        assert rule.threshold == at
        named = is_accepted(rule, asked)
        assert named.mean() > 0.3
        assert (~right[named]).mean() <= float(risk)


def test_every_bundle_has_the_risks_that_its_pictures_show():
    rule = fit_thresholds(predictions(0, 20), ["box"])["box"].open_set
    assert rule.risk is None
    assert "0.1" in rule.risk_points
    assert "0.01" not in rule.risk_points  # 400 pictures, of which 320 have an item to name
    assert rule.risk_points["0.05"] >= rule.risk_points["0.1"]


def test_risk_that_pictures_cannot_show_is_refused():
    with pytest.raises(QuantizeError, match=r"--risk 0\.001: .* it takes \d{4} named pictures without a wrong one"):
        fit_thresholds(predictions(0, 20), ["box"], risk=0.001)
