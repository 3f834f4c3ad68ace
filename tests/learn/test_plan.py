"""What `learn` plans for the photos, the machine and the minutes there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset_formats.records import Sample
from learn.plan import Photos, Speed, advice, make_plan

SPEED = Speed(train_s=0.02, embed_s=0.004)  # of one core, about


def photos(items, per_item):
    return Photos(categories=3, items=items, photos=items * per_item, alone=0, median=per_item)


def samples(**counts):
    return [Sample(Path(f"{n}{i}"), "train", "fruit", n) for n, count in counts.items() for i in range(count)]


def test_counts_of_photos():
    counted = Photos.of(samples(apple=4, pear=1, plum=6))
    assert counted == Photos(categories=1, items=3, photos=11, alone=1, median=4)


@pytest.mark.parametrize(("items", "per_item"), [(20, 2), (6, 10), (200, 4)])
def test_few_photos_are_not_trained_on(items, per_item):
    plan = make_plan(photos(items, per_item), SPEED, 60)
    assert (plan.how, plan.epochs) == ("general", 0)
    assert f"{items * per_item} photos are too few" in plan.why


def test_one_item_is_not_trained_on():
    assert "there is one item" in make_plan(photos(1, 500), SPEED, 60).why


def test_more_minutes_mean_larger_pictures_then_more_epochs():
    plans = [make_plan(photos(100, 15), SPEED, minutes) for minutes in (2, 12, 30, 60, 600)]
    assert plans[0].how == "general"
    assert "too few to train" in plans[0].why
    sizes = [plan.px for plan in plans[1:]]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] == 256
    assert plans[-1].epochs == 30


@pytest.mark.parametrize("minutes", [10, 20, 60])
def test_a_plan_keeps_to_the_minutes(minutes):
    for items, per_item in ((20, 10), (100, 15), (500, 20)):
        plan = make_plan(photos(items, per_item), SPEED, minutes)
        assert plan.minutes <= minutes + 1 or plan.how == "general"


def test_items_with_the_fewest_photos_are_named_first():
    lines = advice(samples(apple=4, pear=1, plum=12, fig=2), most=2)
    assert lines == [
        "pear: 1 photo; take 9 more",
        "fig: 2 photos; take 8 more",
        "and 1 more with fewer than 10 photos",
    ]


def test_items_of_one_label_are_told_apart():
    both = [
        Sample(Path("1.jpg"), "train", "tea", "tea 1 l", "1 l"),
        Sample(Path("2.jpg"), "train", "juice", "juice 1 l", "1 l"),
        Sample(Path("3.jpg"), "train", "milk", "oat", "Oat milk"),
    ]
    assert advice(both) == [f"{name}: 1 photo; take 9 more" for name in ("Oat milk", "juice 1 l", "tea 1 l")]
