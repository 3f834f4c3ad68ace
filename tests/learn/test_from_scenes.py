"""`learn --from-scenes` from whole pictures to a folder that a device starts from: toy scenes, all steps, once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edge.config.yaml_file import load_config
from edge.errors import TrainError
from edge.recogniser import Recogniser
from learn.from_scenes import learn_from_scenes
from learn.judge import Verdict
from learn.page import headline
from learn.plan import Speed
from learn.scene_set import SceneSet
from learn.scene_steps import plan_shop
from learn.steps import LearnOptions
from tests.learn.toy_scenes import find_bright, write_scenes
from trainer.cli import main
from trainer.models.published_weights import choose_weights


class KilledError(Exception):
    """The program was killed here."""


def killed(*_, **__):
    raise KilledError


@pytest.fixture
def found_by_colour(monkeypatch):
    """Let crops be cut by a detector that needs no training."""

    class Opened:
        detect = staticmethod(find_bright)

    monkeypatch.setattr("learn.scene_steps.open_detector", lambda *_: Opened)


@pytest.fixture
def options(tmp_path, lcnet, toy_detector):
    scenes = write_scenes(tmp_path / "scenes", 12)
    return LearnOptions(scenes, tmp_path / "SHOP", weights=lcnet, detector=toy_detector, minutes=0.1)


@pytest.mark.usefixtures("found_by_colour")
def test_a_killed_run_goes_on_and_the_folder_starts(options, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr("learn.steps.pack_bundle", killed)
        with pytest.raises(KilledError):
            learn_from_scenes(options)
    for step in ("measure_speed", "cut_scenes"):
        monkeypatch.setattr(f"learn.scene_steps.{step}", lambda *_, step=step: pytest.fail(f"{step} again"))
    monkeypatch.setattr("learn.scene_networks.train_classifier", lambda *_: pytest.fail("trained again"))
    report = learn_from_scenes(options)
    assert report["crops"]["boxes"]["matched"] == 24
    assert report["scenes"]["naming"] == "named"
    verdict = report["verdict"]
    assert verdict["held_out"] + verdict["missed"] == 2 * report["pictures"]["held_out"] > 0
    assert len(report["answers"]) == verdict["held_out"]
    assert json.loads((options.out / "report.json").read_text())["verdict"] == verdict
    config = load_config(options.out / "camera.yaml", {})
    assert Recogniser.of_state(config.state_dir).has_detector
    assert "edge run -c" in capsys.readouterr().out


@pytest.mark.usefixtures("found_by_colour")
@pytest.mark.parametrize("naming", ["unnamed", "one_level"])
def test_scenes_that_name_less_are_answered_usefully(options, naming, monkeypatch, capsys):
    write_scenes(options.photos.parent, 12, naming)
    if naming == "unnamed":
        report = learn_from_scenes(options)
        assert "Sort them into folders category/item, then run: edge-train learn FOLDER" in report["next"]
        assert len(list((options.out / "work/crops/crops").iterdir())) == 24
        assert not (options.out / "camera.yaml").exists()
        return
    monkeypatch.setattr("learn.from_scenes.train_the_embedders", killed)
    with pytest.raises(KilledError):
        learn_from_scenes(options)
    assert "these are items of one category; --names FILE gives them categories" in capsys.readouterr().out
    assert not (options.out / "work/classifier").exists()


def test_a_detector_that_finds_nothing_held_out_needs_no_classifier(options, monkeypatch, capsys):
    monkeypatch.setattr("learn.scene_steps.open_detector", lambda *_: type("Blind", (), {"detect": lambda _: []}))
    monkeypatch.setattr("learn.from_scenes.pack_the_bundle", killed)
    monkeypatch.setattr("learn.scene_steps.make_embedders", lambda planned, *_: planned)
    with pytest.raises(KilledError):
        learn_from_scenes(options)
    told = capsys.readouterr().out
    assert "0 objects; as drawn: " in told
    assert "all items are searched together" in told
    assert "embedder of box, cup" in told


@pytest.mark.parametrize(("photo_s", "text"), [(1e-5, "until it converges, at most"), (1.0, "too few to converge")])
def test_the_detector_is_trained_until_it_converges_or_time_is_up(options, monkeypatch, photo_s, text, capsys):
    seen = []
    monkeypatch.setattr("learn.scene_steps.measure_speed", lambda _: Speed(photo_s, photo_s))
    monkeypatch.setattr(
        "learn.scene_networks.train_detector", lambda recipe, run: seen.append((recipe, run)) or killed()
    )
    with pytest.raises(KilledError):
        learn_from_scenes(LearnOptions(options.photos, options.out, weights=options.weights, minutes=1.0))
    ((recipe, run),) = seen
    assert (recipe.optimiser.schedule, recipe.optimiser.watch) == ("plateau", "map50_95")
    assert text in capsys.readouterr().out
    assert recipe.optimiser.stop_after is not None
    assert (recipe.scenes.class_agnostic, run.name) == (True, "detector")


@pytest.mark.parametrize("given", [True, False])
def test_other_scenes_keep_a_detector_that_is_given(options, given, monkeypatch):
    detector = options.out / "work/detector"
    shutil.copytree(options.detector, detector)
    monkeypatch.setattr("learn.scene_steps.measure_speed", killed)
    options = replace(options, detector=detector if given else None)
    with pytest.raises(KilledError):
        plan_shop(options, choose_weights(options.weights), SceneSet(Path("scenes.json"), [], "named"))
    assert detector.exists() == given


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "give either a folder of photos, or --from-scenes"),
        (["photos", "--from-scenes", "s.json"], "give either a folder of photos, or --from-scenes"),
        (["photos", "--names", "n.csv"], "it goes with --from-scenes"),
    ],
)
def test_wrong_use_is_told(tmp_path, capsys, arguments, text):
    assert main(["learn", *arguments, "-o", str(tmp_path / "SHOP")]) == 1
    assert text in capsys.readouterr().err


def test_scenes_of_no_box_are_refused(tmp_path, lcnet):
    scenes = write_scenes(tmp_path / "scenes", 2)
    with pytest.raises(TrainError, match="2 pictures can be used; 4 are needed"):
        learn_from_scenes(LearnOptions(scenes, tmp_path / "SHOP", weights=lcnet))


def test_the_headline_counts_what_was_missed():
    assert "it finds 0;" in headline(Verdict((), 1.0, missed=25, named_extra=2))
    assert "also named 2 things that nobody had marked" in headline(Verdict((), 1.0, missed=25, named_extra=2))
    assert "found 0" in headline(Verdict((), 1.0, missed=3))
    assert "nobody knows yet" in headline(Verdict((), 1.0, missed=0))
