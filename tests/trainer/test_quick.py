"""Recipes shortened by --quick: half the epochs, smaller training crops, the same device input."""

from __future__ import annotations

from pathlib import Path

from tests.trainer.toy import classifier_recipe, detector_recipe, embedder_recipe, write_crops
from trainer import cli
from trainer.models.networks import load_card
from trainer.quick import shortened
from trainer.recipe import load_recipe

CONFIGS = Path(__file__).parents[2] / "configs" / "train"


def test_quick_crops_are_smaller_but_device_input_stays(tmp_path):
    full = load_recipe(CONFIGS / "demo-embedder.yaml")
    quick = shortened(full)
    assert quick.quick
    assert (quick.input.width, quick.input.height) == (96, 128)
    assert (quick.input.train_width, quick.input.train_height) == (64, 96)  # multiples of the stride, 16
    assert quick.optimiser.epochs == full.optimiser.epochs / 2
    assert quick.for_category("car").optimiser.epochs == full.for_category("car").optimiser.epochs / 2
    assert quick.for_category("car").input.train_width == 144
    assert quick.for_category("bottle").optimiser.epochs == quick.optimiser.epochs


def test_quick_keeps_the_training_size_of_a_recipe(tmp_path):
    recipe = classifier_recipe(tmp_path, input={"width": 64, "height": 64, "train_width": 48})
    assert shortened(recipe).input == recipe.input
    small = embedder_recipe(tmp_path, input={"width": 32, "height": 32}, backbone={"strides": [32]})
    assert shortened(small).input.train_width == 32


def test_quick_detector_trains_half_the_epochs_at_full_size():
    full = load_recipe(CONFIGS / "demo-detector.yaml")
    quick = shortened(full)
    assert quick.optimiser.epochs == full.optimiser.epochs / 2
    assert quick.input == full.input
    assert shortened(detector_recipe(Path(), epochs=1)).optimiser.epochs == 1


def test_card_of_a_quick_run_says_so(tmp_path):
    recipe = classifier_recipe(write_crops(tmp_path / "data"), epochs=3, input={"width": 64, "height": 48})
    (tmp_path / "recipe.yaml").write_text(recipe.model_dump_json())
    assert cli.main(["classifier", "-c", str(tmp_path / "recipe.yaml"), "-o", str(tmp_path / "run"), "--quick"]) == 0
    recorded = load_card(tmp_path / "run").recipe
    assert (recorded["quick"], recorded["optimiser"]["epochs"]) == (True, 2)
    assert (recorded["input"]["train_width"], recorded["input"]["train_height"]) == (48, 32)
