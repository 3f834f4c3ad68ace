"""Self-tuning: objects that the detector finds become cut-outs of the next round, where two masks agree."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from edge.errors import TrainError
from edge.imaging.image import read_image
from tests.trainer.toy import classifier_recipe, detector_recipe, write_scenes
from trainer.cli import main
from trainer.pasting.background import drawn_background
from trainer.pasting.cutouts import read_cutouts
from trainer.pasting.paste import SceneLayout
from trainer.pasting.scenes import SceneGenerator
from trainer.pasting.self_tuning.agreement import colour_model
from trainer.pasting.self_tuning.rounds import SelfTuning, extract, self_tune


def found_in(scenes, shift_px: float = 0.0):
    """Pictures of red rectangles with a box of each, shifted."""
    tree = json.loads(scenes.read_text())
    for one in tree["annotations"]:
        x, y, wide, high = one["bbox"]
        box = (x + shift_px, y + shift_px, x + wide + shift_px, y + high + shift_px)
        yield read_image(scenes.parent / f"{one['image_id']}.png"), box


def make(folder, **changes) -> SelfTuning:
    scenes = write_scenes(folder / "real", 4)
    new = write_scenes(folder / "new", 3).parent
    (new / "torn.png").write_bytes(b"nothing")
    generator = SceneGenerator(
        tuple(read_cutouts(scenes, masks=colour_model).found), drawn_background, SceneLayout(96, 64, (1, 1), clutter=0)
    )
    recipe = detector_recipe(scenes, epochs=1)
    return SelfTuning(recipe, generator, tuple(sorted(new.glob("*.png"))), **{"rounds": 2, "scenes": 2} | changes)


def test_extracted_object_is_cut_out_again_at_its_size(tmp_path):
    scenes = write_scenes(tmp_path / "new", 8)
    counts = extract(found_in(scenes, 1.0), tmp_path / "cutouts/object/extracted")
    assert counts["kept"] >= 6
    again = read_cutouts(tmp_path / "cutouts").found
    assert len(again) == counts["kept"]
    red = [one.picture[one.picture[..., 3] > 250][:, :3].mean(axis=0) for one in again]
    assert np.allclose(red, (230, 30, 30), atol=12)


def test_mask_is_dropped_if_the_sources_disagree(tmp_path):
    def elsewhere(image_rgb, box_px):
        mask = np.zeros(image_rgb.shape[:2], np.bool_)
        mask[:8, :8] = True
        return mask

    scenes = write_scenes(tmp_path / "new", 5)
    assert extract(found_in(scenes), tmp_path / "cutouts", teacher=elsewhere) == {"agreement": 5}
    assert not (tmp_path / "cutouts").exists()


def test_box_without_an_object_is_dropped(tmp_path):
    flat = np.random.default_rng(0).integers(100, 140, (64, 96, 3)).astype(np.uint8)
    assert extract([(flat, (20.0, 20.0, 60.0, 50.0))], tmp_path / "cutouts")["kept"] == 0


def test_rounds_continue_from_the_previous_extraction(tmp_path):
    tuning, out = make(tmp_path), tmp_path / "out"
    kept = extract(found_in(tmp_path / "new/scenes.json"), out / "round-0/cutouts/box/extracted")["kept"]
    (out / "round-0/round.json").write_text(json.dumps({"round": 0, "kept": kept}))
    rounds = self_tune(tuning, out)
    assert rounds[0] == {"round": 0, "kept": kept}
    assert not (out / "round-0/detector").exists()
    assert kept == rounds[1]["of_which_extracted"] == rounds[1]["cutouts"] - len(tuning.generator.cutouts) >= 2
    assert rounds[1]["scenes"] == 2 + 4
    assert {"map50", "map50_95"} <= set(rounds[1]["metrics"])
    assert rounds[1]["boxes"] == rounds[1]["kept"] + sum(rounds[1]["dropped"].values())
    assert (rounds[1]["images"], len(rounds[1]["skipped"])) == (3, 1)
    assert json.loads((out / "rounds.json").read_text()) == rounds
    before = (out / "round-1/round.json").stat().st_mtime_ns
    assert self_tune(tuning, out) == rounds
    assert (out / "round-1/round.json").stat().st_mtime_ns == before


def command(folder, recipe, *more: str) -> list[str]:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True)))
    cutouts = str(folder / "real/scenes.json")
    given = ["-c", str(folder / "recipe.yaml"), "--cutouts", cutouts, "-o", str(folder / "out"), *more]
    return ["self-tune", *given]


def test_self_tune_command_reports_its_rounds(tmp_path, capsys):
    tuning = make(tmp_path)
    (tmp_path / "out/round-0").mkdir(parents=True)
    (tmp_path / "out/round-0/round.json").write_text('{"round": 0}')
    assert main(command(tmp_path, tuning.recipe, "--images", str(tmp_path / "new"), "--rounds", "1")) == 0
    assert json.loads(capsys.readouterr().out)["rounds"] == [{"round": 0}]


def test_self_tune_rejects_other_recipes_and_empty_folders(tmp_path, capsys):
    tuning = make(tmp_path)
    (tmp_path / "empty").mkdir()
    other = classifier_recipe(tmp_path / "index.csv")
    for recipe, images, said in (
        (other, "new", "kind is 'classifier', expected 'detector'"),
        (tuning.recipe, "empty", "empty: holds no picture"),
    ):
        assert main(command(tmp_path, recipe, "--images", str(tmp_path / images))) == 1
        assert said in capsys.readouterr().err


def test_detector_of_several_classes_is_rejected(tmp_path):
    tuning = make(tmp_path)
    several = tuning.recipe.scenes.model_copy(update={"class_agnostic": False})
    recipe = tuning.recipe.model_copy(update={"scenes": several})
    with pytest.raises(TrainError, match=r"set scenes\.class_agnostic to true"):
        self_tune(SelfTuning(recipe, tuning.generator, ()), tmp_path / "out")
