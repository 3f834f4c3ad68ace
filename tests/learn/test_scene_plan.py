"""What is planned for scenes: sizes and epochs that fit the minutes, and the categories of each embedder."""

from __future__ import annotations

import pytest

from dataset_formats.records import Sample
from learn.plan import Speed
from learn.scene_networks import plan_embedders, until_converged
from learn.scene_plan import (
    SceneCounts,
    detector_batch,
    detector_size,
    embedder_groups,
    epochs_to_converge,
    make_scene_plan,
)
from trainer.loop.schedule import best_so_far

SPEED = Speed(train_s=0.02, embed_s=0.005)


def plan(minutes, pictures=100, boxes=200, categories=3, aspect=0.75):
    return make_scene_plan(SceneCounts(pictures, boxes, categories, 6, aspect), SPEED, minutes)


def test_more_minutes_give_a_larger_detector_or_more_epochs():
    sizes = [(one.detector_width * one.detector_height, one.detector_epochs) for one in map(plan, (0.5, 10, 60, 600))]
    assert sizes == sorted(sizes)
    assert sizes[0][1] == 8  # never fewer
    assert plan(600).detector_epochs == 200  # never more: it stops when it has converged


def test_the_detector_fits_its_minutes():
    found = plan(60)
    side = (found.detector_width * found.detector_height) ** 0.5
    seconds = found.detector_epochs * 100 * SPEED.train_s * (side / 128) ** 2 * 1.35
    assert 0.5 * 60 * 60 * 0.45 <= seconds <= 1.05 * 60 * 60 * 0.45


def until_it_has_stopped(epochs, pictures, steps_to_best):
    """The epoch at which a training stops whose best evaluation is the first after some steps; None: it never does."""
    batch = detector_batch(pictures)
    optimiser = until_converged(epochs, "map50_95", batch, pictures)
    rows = []
    for epoch in range(1, epochs + 1):
        if best_so_far(rows, "map50_95").should_stop(optimiser.stop_after):
            return epoch - 1
        steps = epoch * (pictures // batch)
        measured = epoch % optimiser.evaluate_every == 0 or epoch == epochs
        rows.append({"epoch": float(epoch), **({"map50_95": min(steps, steps_to_best)} if measured else {})})
    return None


@pytest.mark.parametrize("pictures", [4, 19, 79, 400, 3000])
def test_a_plan_that_says_so_leaves_time_to_see_that_it_converged(pictures):
    epochs = epochs_to_converge(pictures)
    assert until_it_has_stopped(epochs, pictures, 400) is not None
    assert until_it_has_stopped(epochs // 3, pictures, 400) is None or pictures > 1000
    short, long = plan(0.2, pictures), plan(20 * pictures, pictures)
    assert (short.detector_can_converge, long.detector_can_converge) == (False, True)


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
