"""Masks by networks: what they learn from, how well they mask, and the rounds that use them."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import numpy as np
import pytest

from edge.errors import TrainError
from edge.imaging.image import read_image
from edge.inference.preprocess import Placement
from tests.trainer.pasting.mask_samples import iou
from tests.trainer.pasting.self_tuning.test_rounds import command, make
from tests.trainer.toy import localiser_recipe, write_scenes
from trainer.cli import main
from trainer.pasting.background import drawn_background
from trainer.pasting.cutouts import read_cutouts
from trainer.pasting.paste import SceneLayout
from trainer.pasting.scenes import SceneGenerator, expand
from trainer.pasting.self_tuning import network_masks as module
from trainer.pasting.self_tuning import rounds
from trainer.pasting.self_tuning.agreement import colour_model
from trainer.pasting.self_tuning.network_masks import finder_masks, localiser_masks, network_masks, write_masked_objects
from trainer.pasting.self_tuning.rounds import self_tune


@pytest.fixture(scope="module")
def pasted(tmp_path_factory):
    """Scenes of red rectangles with exact masks, and the cut-outs in them."""
    folder = tmp_path_factory.mktemp("pasted")
    cutouts = read_cutouts(write_scenes(folder / "real", 4), masks=colour_model).found
    layout = SceneLayout(96, 64, (1, 2), (0.4, 0.7), clutter=0)
    expand(SceneGenerator(tuple(cutouts), drawn_background, layout), folder, 10)
    return folder / "scenes.json", cutouts


def rows_of(index):
    return list(csv.DictReader(index.read_text().splitlines()))


def test_windows_hold_the_object_and_its_exact_mask(pasted, tmp_path):
    index = write_masked_objects(pasted[0], tmp_path)
    rows = rows_of(index)
    assert len(rows) >= 8
    assert {row["split"] for row in rows} == {"train", "val"}
    for row in rows:
        picture, mask = (read_image(tmp_path / row[key]).astype(int) for key in ("path", "mask"))
        red = picture[..., 0] - picture[..., 1:].max(axis=2)
        assert red[mask[..., 0] > 200].mean() > red[mask[..., 0] < 50].mean() + 20
    assert len(rows_of(write_masked_objects(pasted[0], tmp_path / "few", 3))) <= 4


def test_mask_of_a_localiser_is_put_where_the_box_is(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MaskNetwork", object)
    monkeypatch.setattr(module, "load_model", lambda run: (run, "card"))
    monkeypatch.setattr(module, "predict_mask", lambda *given: (given[2][..., 0] > 200).astype(np.uint8) * 255)
    image = np.random.default_rng(0).integers(100, 140, (64, 96, 3)).astype(np.uint8)
    image[20:50, 30:70] = (230, 30, 30)
    image[:, 90:] = (230, 30, 30)  # outside the window of the box
    truth = image[..., 0] == 230
    truth[:, 90:] = False
    source = localiser_masks(tmp_path)
    assert iou(source(image, (28.0, 18.0, 72.0, 52.0)), truth) == 1.0
    assert source(image, (0.0, 0.0, 20.0, 15.0)) is None  # nothing there
    assert source(image, (10.0, 10.0, 12.0, 12.0)) is None  # too small


def small_localiser(folder, **changes):
    return localiser_recipe(folder / "index.csv", width=4, **changes)


def test_finder_masks_where_any_known_thing_is_hot(pasted):
    class Hot:
        """A finder whose heat map is the redness of the picture."""

        model = type("Model", (), {"shape": type("Shape", (), {"map_stride": 1})()})()

        def make_query(self, picture, mask, _):
            assert picture.shape[:2] == mask.shape

        def scene_features(self, image, _):
            placed = Placement(1.0, 1.0, image.shape[1], image.shape[0])
            return type("View", (), {"image": image, "placed": placed})()

        def heat_map(self, view, *_):
            return (view.image[..., 0] > 200).astype(np.float32)

    image = np.random.default_rng(0).integers(100, 140, (64, 96, 3)).astype(np.uint8)
    image[20:50, 30:70] = (230, 30, 30)
    source = finder_masks(Hot(), pasted[1])
    assert iou(source(image, (28.0, 18.0, 72.0, 52.0)), image[..., 0] == 230) == 1.0
    assert source(image, (0.0, 0.0, 20.0, 15.0)) is None


@pytest.fixture
def trained(monkeypatch):
    """The seeds of the localisers that are trained; none is."""
    seeds = []

    def train(recipe, run):
        seeds.append((recipe.seed, recipe.data.index.name, recipe.width))
        run.mkdir(parents=True)
        (run / "model.json").write_text("{}")

    monkeypatch.setattr(module, "train_localiser", train)
    monkeypatch.setattr(module, "localiser_masks", lambda run: run.name)
    return seeds


def test_two_seeds_are_trained_once_or_one_beside_a_finder(pasted, tmp_path, trained, monkeypatch):
    recipe = small_localiser(tmp_path, seed=4)
    for _ in range(2):
        assert network_masks(pasted[0], tmp_path, recipe, None, pasted[1]) == ("localiser-0", "localiser-1")
    assert trained == [(4, "index.csv", 4), (5, "index.csv", 4)]
    monkeypatch.setattr(module, "load_finder", lambda run: run)
    monkeypatch.setattr(module, "finder_masks", lambda finder, cutouts: (finder, len(cutouts)))
    sources = network_masks(pasted[0], tmp_path / "other", None, tmp_path, pasted[1])
    assert sources == ("localiser-0", (tmp_path, len(pasted[1])))
    assert trained[2:] == [(0, "index.csv", 12)]


def test_round_extracts_with_its_networks(tmp_path, trained, monkeypatch):
    used = []
    monkeypatch.setattr(rounds, "train_detector", lambda *_: SimpleNamespace(metrics={}))
    monkeypatch.setattr(rounds, "_extract", lambda tuning, _: used.append((tuning.student, tuning.teacher)) or {})
    self_tune(make(tmp_path, rounds=1, scenes=14, by_networks=True), tmp_path / "out")
    assert used == [("localiser-0", "localiser-1")]
    assert (tmp_path / "out/round-0/masks/index.csv").exists()


def test_few_pasted_objects_are_rejected(pasted, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "write_masked_objects", lambda *given: write_masked_objects(*given, 3))
    with pytest.raises(TrainError, match=r"objects well enough to learn masks from; paste 8 or more: give more --scen"):
        network_masks(pasted[0], tmp_path, None, None, pasted[1])


def test_command_takes_networks_and_rejects_half_of_them(tmp_path, capsys, monkeypatch):
    tuning = make(tmp_path)
    monkeypatch.setattr(rounds, "self_tune", lambda given, _: [given.by_networks, str(given.finder)])
    networks = ["--images", str(tmp_path / "new"), "--finder", "run"]
    assert main(command(tmp_path, tuning.recipe, *networks, "--masks", "networks")) == 0
    assert '[\n  true,\n  "run"\n ]' in capsys.readouterr().out
    assert main(command(tmp_path, tuning.recipe, *networks)) == 1
    assert "give --masks networks as well" in capsys.readouterr().err
