"""Early stopping: on validation pictures only, after examinations without a better one; the best is shipped."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from edge.errors import TrainError
from tests.trainer.loop.test_training_loop import table
from tests.trainer.toy import classifier_recipe, write_crops
from trainer.loop.checkpoint import BEST_FILE
from trainer.loop.early_stop import Standing, standing
from trainer.models.networks import load_model
from trainer.recipe import DetectorRecipe
from trainer.tasks.classifier import ClassifierTask, train_classifier


def rows(*values: float | None, name: str = "accuracy") -> list[dict[str, float]]:
    return [{"epoch": e + 1.0} | ({} if v is None else {name: v}) for e, v in enumerate(values)]


def test_examinations_count_from_the_best_one_and_epochs_without_one_do_not():
    assert standing(rows(0.5, None, 0.7, None, 0.6, 0.7), None) == Standing(best_epoch=3, since=2)
    assert standing([], None) == Standing(0, 0)
    assert standing(rows(0.5, name="recall_1_gallery"), "recall_1_gallery").best_epoch == 1
    assert standing(rows(0.5, 0.2, 0.3, name="loss_val"), "loss_val") == Standing(best_epoch=2, since=1)


def test_without_a_limit_nothing_is_over():
    assert not Standing(1, 99).is_over(None)
    assert Standing(1, 2).is_over(2)
    assert not Standing(1, 1).is_over(2)


def patient(index, patience=2, **changes):
    recipe = classifier_recipe(index, **changes)
    how = recipe.optimiser.model_copy(update={"epochs": 9, "evaluate_every": 1, "stop_after": patience})
    return recipe.model_copy(update={"optimiser": how})


def test_a_run_stops_ships_the_best_and_does_not_train_on_when_started_again(tmp_path, monkeypatch):
    scores = iter([0.5, 0.9, 0.8, 0.7])  # a fifth examination would raise

    monkeypatch.setattr(ClassifierTask, "evaluate", lambda self, module: {"accuracy": next(scores)})
    recipe = patient(write_crops(tmp_path / "data"))
    train_classifier(recipe, tmp_path / "run")
    assert [row["accuracy"] for row in table(tmp_path / "run")] == ["0.5", "0.9", "0.8", "0.7"]
    best = torch.load(tmp_path / "run" / BEST_FILE, weights_only=True)
    assert best["epoch"] == 2
    shipped = load_model(tmp_path / "run")[0].state_dict()
    assert all(torch.equal(value, best["module"][f"model.{key}"]) for key, value in shipped.items())
    train_classifier(recipe, tmp_path / "run")
    assert len(table(tmp_path / "run")) == 4


def test_nothing_to_watch_is_an_error_and_says_what_there_is(tmp_path):
    index = write_crops(tmp_path / "data")
    none = patient(index, data={"index": index, "val_splits": ["elsewhere"]})
    with pytest.raises(TrainError, match="found no validation pictures to watch"):
        train_classifier(none, tmp_path / "none")
    recipe = patient(index)
    how = recipe.optimiser.model_copy(update={"watch": "map50"})
    with pytest.raises(TrainError, match=r"found \['accuracy', 'item_accuracy', 'loss_val'\] to watch, expected map50"):
        train_classifier(recipe.model_copy(update={"optimiser": how}), tmp_path / "other")


def test_test_pictures_are_never_watched(tmp_path):
    watching = {"optimiser": {"stop_after": 3}}
    with pytest.raises(ValidationError, match="expected no test pictures among them"):
        classifier_recipe(tmp_path, data={"index": tmp_path, "val_splits": ["val", "test"]}, **watching)
    with pytest.raises(ValidationError, match="expected no test pictures among them"):
        DetectorRecipe(kind="detector", scenes={"train": tmp_path, "val_splits": ["test"]}, **watching)
