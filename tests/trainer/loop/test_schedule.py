"""Learning rates against values worked out on paper; early stopping on validation pictures only."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from edge.errors import TrainError
from tests.trainer.loop.test_training_loop import table
from tests.trainer.toy import classifier_recipe, write_crops
from trainer.loop.checkpoint import BEST_FILE
from trainer.loop.schedule import BestSoFar, best_so_far, count_plateaus, learning_rate, watched_values
from trainer.models.networks import load_model
from trainer.recipe import DetectorRecipe
from trainer.recipe_parts import Optimiser
from trainer.tasks.classifier import ClassifierTask, train_classifier

PUBLISHED = Optimiser(name="sgd", lr=0.1, schedule="plateau", watch="loss_val", patience=2, decay=0.5, stop_after=4)


def test_learning_rate_warms_up_then_falls():
    how = Optimiser(lr=1.0, warmup=0.1)
    rates = [learning_rate(how, step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(rates[9], abs=0.01) == 1.0
    assert rates[0] < 0.2
    assert rates[-1] < 0.01


def test_plateaus_are_counted_one_after_another():
    assert [count_plateaus([1.0, 2.0, 2.0, 1.9, 1.8, 1.7][:n], 2) for n in range(7)] == [0, 0, 0, 0, 1, 1, 2]
    assert count_plateaus([1.0, 0.9, 1.1, 1.0, 1.2], 2) == 0


def test_plateau_halves_the_learning_rate():
    assert learning_rate(PUBLISHED, 0, 100, [-1.0]) == pytest.approx(0.1)
    assert learning_rate(PUBLISHED, 99, 100, [-1.0, -1.1, -1.2]) == pytest.approx(0.05)


def test_losses_are_negated_and_epochs_without_evaluation_skipped():
    rows = [{"epoch": 1.0, "loss_val": 0.7}, {"epoch": 2.0}, {"epoch": 3.0, "loss_val": 0.5}]
    assert watched_values(rows, PUBLISHED) == [-0.7, -0.5]
    assert watched_values([{"accuracy": 0.5}], Optimiser(watch="accuracy")) == [0.5]
    assert watched_values(rows, Optimiser()) == []


def test_plateau_schedule_needs_a_watched_metric():
    with pytest.raises(ValidationError, match="watch is null"):
        Optimiser(schedule="plateau")


def rows(*values: float | None, name: str = "accuracy") -> list[dict[str, float]]:
    return [{"epoch": e + 1.0} | ({} if v is None else {name: v}) for e, v in enumerate(values)]


def test_evaluations_are_counted_from_the_best_one():
    assert best_so_far(rows(0.5, None, 0.7, None, 0.6, 0.7), None) == BestSoFar(epoch=3, evaluations_since=2)
    assert best_so_far([], None) == BestSoFar(0, 0)
    assert best_so_far(rows(0.5, name="recall_1_gallery"), "recall_1_gallery").epoch == 1
    assert best_so_far(rows(0.5, 0.2, 0.3, name="loss_val"), "loss_val") == BestSoFar(epoch=2, evaluations_since=1)


def test_without_a_limit_nothing_should_stop():
    assert not BestSoFar(1, 99).should_stop(None)
    assert BestSoFar(1, 2).should_stop(2)
    assert not BestSoFar(1, 1).should_stop(2)


def early_stopping_recipe(index, patience=2, **changes):
    recipe = classifier_recipe(index, **changes)
    how = recipe.optimiser.model_copy(update={"epochs": 9, "evaluate_every": 1, "stop_after": patience})
    return recipe.model_copy(update={"optimiser": how})


def test_stopped_run_ships_best_weights_and_stays_stopped(tmp_path, monkeypatch):
    scores = iter([0.5, 0.9, 0.8, 0.7])  # a fifth evaluation would raise

    monkeypatch.setattr(ClassifierTask, "evaluate", lambda self, module: {"accuracy": next(scores)})
    recipe = early_stopping_recipe(write_crops(tmp_path / "data"))
    train_classifier(recipe, tmp_path / "run")
    assert [row["accuracy"] for row in table(tmp_path / "run")] == ["0.5", "0.9", "0.8", "0.7"]
    best = torch.load(tmp_path / "run" / BEST_FILE, weights_only=True)
    assert best["epoch"] == 2
    shipped = load_model(tmp_path / "run")[0].state_dict()
    assert all(torch.equal(value, best["module"][f"model.{key}"]) for key, value in shipped.items())
    train_classifier(recipe, tmp_path / "run")
    assert len(table(tmp_path / "run")) == 4


def test_missing_watched_metric_is_an_error(tmp_path):
    index = write_crops(tmp_path / "data")
    none = early_stopping_recipe(index, data={"index": index, "val_splits": ["elsewhere"]})
    with pytest.raises(TrainError, match="there are no validation pictures"):
        train_classifier(none, tmp_path / "none")
    recipe = early_stopping_recipe(index)
    how = recipe.optimiser.model_copy(update={"watch": "map50"})
    with pytest.raises(
        TrainError, match=r"map50 was not measured; set it to one of \['accuracy', 'item_accuracy', 'loss_val'\]"
    ):
        train_classifier(recipe.model_copy(update={"optimiser": how}), tmp_path / "other")


def test_test_split_is_never_watched(tmp_path):
    watching = {"optimiser": {"stop_after": 3}}
    with pytest.raises(ValidationError, match="remove the test split from val_splits"):
        classifier_recipe(tmp_path, data={"index": tmp_path, "val_splits": ["val", "test"]}, **watching)
    with pytest.raises(ValidationError, match="remove the test split from val_splits"):
        DetectorRecipe(kind="detector", scenes={"train": tmp_path, "val_splits": ["test"]}, **watching)
