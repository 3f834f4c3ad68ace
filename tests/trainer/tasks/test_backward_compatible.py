"""Backward-compatible training: new vectors stay near those of the old gallery."""

from __future__ import annotations

import numpy as np
import pytest

from edge.errors import TrainError
from tests.trainer.loop.test_training_loop import table
from tests.trainer.toy import embedder_recipe, write_crops
from trainer.data.crops import load_crops, predict
from trainer.model_setup import preprocess_of
from trainer.models.networks import load_model
from trainer.tasks.embedder import train_embedders

LONGER = {"batches_per_epoch": 8}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """An embedder, and data with one item more than it was trained on."""
    folder = tmp_path_factory.mktemp("old")
    train_embedders(embedder_recipe(write_crops(folder / "data"), epochs=4, heads=["class"], **LONGER), folder / "run")
    write_crops(folder / "more", items=3)
    return folder


def angles(folder, other, index) -> np.ndarray:
    recipe = embedder_recipe(index)
    crops = load_crops(recipe.data, preprocess_of(recipe))
    vectors = [predict(load_model(f)[0], crops.val_canvases, crops.spec) for f in (folder, other)]
    return (vectors[0] * vectors[1]).sum(axis=1)


def test_compatible_embedder_stays_nearer_to_the_old_one(old, tmp_path):
    index = old / "more" / "index.csv"
    for name, start in ("compatible", "compatible_with"), ("tuned", "init_from"):
        train_embedders(
            embedder_recipe(index, epochs=4, heads=["class"], **LONGER, **{start: old / "run"}), tmp_path / name
        )
    compatible, tuned = (angles(tmp_path / name, old / "run", index) for name in ("compatible", "tuned"))
    assert compatible.mean() > tuned.mean() + 0.05
    first, *_, last = table(tmp_path / "compatible")
    assert float(last["loss_old_pull"]) < float(first["loss_old_pull"])
    assert float(last["loss_old_classes"]) < float(first["loss_old_classes"])


def test_vectors_of_another_length_or_input_are_rejected(old, tmp_path):
    index = old / "more" / "index.csv"
    with pytest.raises(TrainError, match=r"compatible_with .*: found heads .*dim=8.*set heads of the recipe to match"):
        train_embedders(embedder_recipe(index, dim=16, heads=["class"], compatible_with=old / "run"), tmp_path / "wide")
    larger = {"width": 48, "height": 48}
    recipe = embedder_recipe(index, input=larger, heads=["class"], compatible_with=old / "run")
    with pytest.raises(TrainError, match="set preprocess of the recipe to match"):
        train_embedders(recipe, tmp_path / "large")
