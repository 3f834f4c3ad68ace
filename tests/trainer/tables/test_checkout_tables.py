"""The tables of the checkout and of the categories, each filled on a tiny data set by its command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.checkout import products, write_rpc
from dataset_formats.coco.reader import read_coco
from edge.errors import TrainError
from tests.trainer.toy import write_crops, write_scenes
from trainer.cli import main
from trainer.recipe import load_recipe
from trainer.tables import rpc_scenes
from trainer.tables.cmc_categories import CMC_CATEGORIES, cmc_recipe
from trainer.tables.rpc_checkout import LEVELS, MODES, RPC_CHECKOUT
from trainer.tables.rpc_scenes import read_exemplars, write_training_scenes
from trainer.tables.table import Request

SMALL = ["--weights", "none", "--backbone", "mobilenetv4_conv_small_050", "--seeds", "0", "--epochs", "1"]


@pytest.fixture(scope="module")
def rpc(tmp_path_factory):
    """Two products with three exemplars each, and one scene of each level."""
    return write_rpc(tmp_path_factory.mktemp("rpc"), products()[:2], 3, 1)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(rpc_scenes, "SCENES", 9)
    monkeypatch.setattr(rpc_scenes, "VIEWS", 2)


def test_checkout_table_has_a_row_for_each_mode_and_level(rpc, tmp_path, capsys):
    rows = "Syn+Render-free easy,Syn+Render-free averaged"
    command = ["table", "rpc-checkout", "--data", str(rpc), "-o", str(tmp_path), *SMALL, "--pixels", "64"]
    assert main([*command, "--methods", rows]) == 0
    report = json.loads(capsys.readouterr().out)
    measured = {row["method"]: row["measures"] for row in report["rows"]}
    assert list(measured) == rows.split(",")
    easy, averaged = (measured[row] for row in rows.split(","))
    assert (easy["scenes"]["mean"], averaged["scenes"]["mean"]) == (1.0, 3.0)
    assert set(RPC_CHECKOUT.columns) <= set(easy)
    assert averaged["ACD"]["mean"] >= easy["ACD"]["mean"]  # nothing is found after one epoch: all objects are missed
    assert len(list(tmp_path.glob("runs/trained-*"))) == 1  # the levels share one detector
    assert len(RPC_CHECKOUT.methods(Request(rpc, tmp_path))) == len(MODES) * len(LEVELS)


def test_training_scenes_hold_products_and_levels(rpc, tmp_path):
    request = Request(rpc, tmp_path, pixels=96)
    file = write_training_scenes(request, ["Single", "Syn", "Render-free"], 0, tmp_path / "mode")
    listing = read_coco(file, None)
    (tmp_path / "alone").mkdir()
    alone = read_coco(write_training_scenes(request, ["Single"], 0, tmp_path / "alone"), None)
    assert [one.split for one in alone.scenes] == ["train", "train", "train", "val"]
    single = [one for one in listing.scenes if one.path.parent.name == "train2019"]
    assert len(single) == 4  # two views of each product
    pasted = [one for one in listing.scenes if one not in single]
    assert len(pasted) == 18
    assert {one.level for one in pasted} == {"easy", "medium", "hard"}
    assert {one.split for one in listing.scenes} == {"train", "val"}
    assert {box.item for one in pasted for box in one.boxes} == set(read_exemplars(request).names)
    again = write_training_scenes(request, ["Syn"], 0, tmp_path / "again")
    other = write_training_scenes(request, ["Syn"], 1, tmp_path / "other")
    first = [min(file.parent.glob("Syn/*.jpg")).read_bytes() for file in (again, other)]
    assert first[0] != first[1]


def test_data_without_exemplars_is_refused(tmp_path):
    scenes = write_scenes(tmp_path, 4)
    tree = json.loads(scenes.read_text())
    tree["images"] = [one | {"split": "test"} for one in tree["images"]]
    scenes.write_text(json.dumps(tree))
    with pytest.raises(TrainError, match="holds no exemplars"):
        read_exemplars(Request(scenes, tmp_path))


def test_category_table_measures_over_categories(tmp_path, capsys):
    index = write_crops(tmp_path / "crops")
    command = ["table", "cmc-categories", "--data", str(index), "-o", str(tmp_path / "out"), *SMALL, "--pixels", "32"]
    assert main([*command, "--methods", "mobilenetv4_conv_small_050"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    measures = {column: one["mean"] for column, one in row["measures"].items()}
    assert set(CMC_CATEGORIES.columns) <= set(measures)
    # of two categories with as many pictures each, all three are the same number
    assert measures["accuracy"] == measures["recall"] == measures["accuracy of one category"]
    assert measures["pictures"] == 8.0


def test_category_table_says_which_weights_its_networks_need(tmp_path):
    request = Request(tmp_path, tmp_path)
    with pytest.raises(TrainError, match="MobileNetV2: no package has its weights; give --weights hub"):
        CMC_CATEGORIES.measure(request, "MobileNetV2", 0, tmp_path)


def test_category_table_trains_as_published(tmp_path):
    published = load_recipe(Path(__file__).parents[3] / "configs/train/published-classifier.yaml")
    recipe = cmc_recipe(Request(published.data.index, tmp_path), "mobilenetv2_100", 0)
    changed = {"backbone": published.backbone, "auxiliary_grid": published.auxiliary_grid}
    assert recipe.model_copy(update=changed) == published  # the table uses the whole network
