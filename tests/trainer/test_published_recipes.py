"""The recipes of the sources train through the command as they are printed, on a small network."""

from pathlib import Path

import pytest

from tests.trainer.toy import write_crops
from trainer.cli import main
from trainer.models.networks import load_model

RECIPES = Path(__file__).parents[2] / "configs/train"
SMALL = (
    "input={width: 64, height: 64}", "backbone={name: mobilenetv4_conv_small_050, pretrained: none}",
    "optimiser.epochs=1",
    "optimiser.batch=4", "optimiser.device=cpu", "blocks=2", "neighbourhood=1",
    "data.categories=[red]",
)  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "run", "heads"),
    [("mffg", "red", {"class": 128, "local": 128, "outline": 128}), ("hdcl", ".", {"class": 960})],
)
def test_recipe_of_a_source_trains_as_printed(tmp_path, recipe, run, heads):
    index = write_crops(tmp_path / "data")
    words = [word for change in (f"data.index={index}", *SMALL) for word in ("--set", change)]
    assert main(["embedder", "-c", str(RECIPES / f"{recipe}.yaml"), "-o", str(tmp_path / "run"), *words]) in {0, 1}
    _, card = load_model(tmp_path / "run" / run)
    assert {head.name: head.dim for head in card.heads} == heads
