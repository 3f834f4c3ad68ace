"""What is planned for scenes: sizes and epochs that fit the minutes, and the categories of each embedder."""

from __future__ import annotations

import pytest

from dataset_formats.records import Sample
from learn.plan import Speed
from learn.scene_networks import plan_embedders, until_converged
from learn.scene_plan import SceneCounts, detector_size, embedder_groups, make_scene_plan

SPEED = Speed(train_s=0.02, embed_s=0.005)


def plan(minutes, pictures=100, boxes=200, categories=3, aspect=0.75):
    return make_scene_plan(SceneCounts(pictures, boxes, categories, 6, aspect), SPEED, minutes)


def test_more_minutes_give_a_larger_detector_or_more_epochs():
    sizes = [(one.detector_width * one.detector_height, one.detector_epochs) for one in map(plan, (0.5, 10, 60, 600))]
    assert sizes == sorted(sizes)
    assert sizes[0][1] == 8  # never fewer
    assert plan(600).detector_epochs == 150  # never more: it stops when it has converged


def test_the_detector_fits_its_minutes():
    found = plan(60)
    side = (found.detector_width * found.detector_height) ** 0.5
    seconds = found.detector_epochs * 100 * SPEED.train_s * (side / 128) ** 2 * 1.35
    assert 0.5 * 60 * 60 * 0.45 <= seconds <= 1.05 * 60 * 60 * 0.45


@pytest.mark.parametrize("aspect", [0.2, 0.75, 1.0, 1.78, 9.0])
def test_the_input_has_the_shape_of_the_pictures(aspect):
    width, height = detector_size(320, aspect)
    assert width % 32 == height % 32 == 0
    assert width / height == pytest.approx(min(max(aspect, 0.5), 2.0), rel=0.2)
    assert width * height == pytest.approx(320**2, rel=0.2)


def test_one_category_needs_no_classifier():
    assert plan(30, categories=1).classifier_epochs == 0
    assert plan(30, categories=2).classifier_epochs >= 8


def test_each_category_of_several_items_has_its_embedder():
    assert embedder_groups({"a": 3, "b": 2, "c": 1}) == [["a"], ["b", "c"]]
    assert embedder_groups({"a": 3, "b": 1, "c": 1}) == [["a"], ["b", "c"]]
    assert embedder_groups({"a": 1}) == [["a"]]


def test_categories_with_few_crops_share_one_embedder(tmp_path):
    many = [Sample(tmp_path, "train", "big", str(n % 4)) for n in range(200)]
    few = [Sample(tmp_path, "train", name, str(n % 2)) for name in ("x", "y") for n in range(6)]
    planned = plan_embedders(many + few, SPEED, 60, by_category=True)
    assert [(group, one.how) for group, one in planned] == [(["big"], "trained"), (["x", "y"], "general")]
    (shared,) = plan_embedders(
        [Sample(tmp_path, "train", name, str(n % 4)) for name in "abc" for n in range(40)], SPEED, 60, by_category=True
    )
    assert (shared[0], shared[1].how) == (["a", "b", "c"], "trained")  # together they suffice
    (alone,) = plan_embedders(many + few, SPEED, 60, by_category=False)
    assert alone[0] == ["big", "x", "y"]


def test_small_sets_are_not_evaluated_before_they_can_have_learned():
    assert until_converged(150, "map50_95", 4, 16).evaluate_every == 6
    assert until_converged(3, "map50_95", 4, 16).evaluate_every == 3
    few_steps = until_converged(60, "map50_95", 4, 16)
    assert few_steps.stop_after is not None
    assert few_steps.schedule == "plateau"
