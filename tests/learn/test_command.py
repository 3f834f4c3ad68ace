"""`learn` from photos to a folder that a device starts from: a small shop, all steps, once."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace

import pytest

from edge.build import load_state
from edge.config.schema import EngineConfig
from edge.config.yaml_file import load_config
from edge.errors import TrainError
from edge.imaging.image import read_image
from edge.recognition.recognise_image import recognise_image
from edge.telemetry.timing import Timings
from learn.command import LearnOptions, learn
from learn.steps import pack
from quantize.command import PackSources
from tests.learn.test_photos import shop, write_photo
from trainer.cli import main


@pytest.fixture(scope="module")
def learned(tmp_path_factory, lcnet):
    folder = tmp_path_factory.mktemp("shop")
    options = LearnOptions(shop(folder / "photos", 6), folder / "SHOP", weights=lcnet, camera="file:///counter.mp4")
    return options, learn(options)


def bundle_id(out):
    return load_state(out / "state", EngineConfig()).bundle_id


def test_the_folder_starts_and_names_what_it_learned(learned):
    options, report = learned
    assert report["plan"]["how"] == "general"
    config = load_config(options.out / "kiosk.yaml", {})
    assert config.state_dir.resolve() == (options.out / "state").resolve()
    assert config.cameras["counter"].source == "file:///counter.mp4"
    load_config(options.out / "camera.yaml", {})
    models = load_state(config.state_dir, EngineConfig())
    decision = recognise_image(models, read_image(options.photos / "milk/oat milk/0.jpg"), 24, Timings())
    assert (decision.top[0].item_id, decision.category.name) == ("oat milk", "milk")


def test_few_held_out_photos_give_no_probability_and_no_percentage(learned):
    options, report = learned
    models = load_state(options.out / "state", EngineConfig())
    assert not any(rule.calibrated for rule in models.open_sets.values())
    assert report["verdict"]["held_out"] == 3
    assert "too few photos for a percentage" in (options.out / "how-good.html").read_text(encoding="utf-8")


def test_report_lists_the_answer_to_each_held_out_photo(learned):
    options, report = learned
    answers = report["answers"]
    assert len(answers) == report["verdict"]["held_out"]
    assert sum(one["outcome"] == "wrong" for one in answers) == report["verdict"]["wrong"]
    for one in answers:
        path = options.photos / one["category"] / one["item"]
        assert one["path"].startswith(str(path))
        assert one["box_px"] is None
    assert json.loads((options.out / "report.json").read_text())["answers"] == answers


def test_an_interrupted_run_goes_on_and_does_not_begin_again(learned, monkeypatch):
    options, report = learned
    before = bundle_id(options.out)
    monkeypatch.setattr("learn.command.measure_speed", lambda _: pytest.fail("planned again"))
    monkeypatch.setattr("learn.steps.pack_bundle", lambda *_, **__: pytest.fail("packed again"))
    assert learn(options)["plan"] == report["plan"]
    assert bundle_id(options.out) == before


def test_another_detector_is_packed_without_learning_again(learned, monkeypatch, tmp_path):
    options, _ = learned
    (tmp_path / "detector.onnx").write_bytes(b"another")
    packed = []
    monkeypatch.setattr("learn.networks.make_general_embedder", lambda *_: pytest.fail("learned again"))
    monkeypatch.setattr("learn.steps.pack_bundle", lambda *given, **_: packed.append(given) or sys.exit())
    with pytest.raises(SystemExit):
        learn(replace(options, detector=tmp_path / "detector.onnx"))
    ((new, sources, *_),) = packed
    assert (sources.detector, new.sequence) == (tmp_path / "detector.onnx", 2)


def test_the_next_bundle_is_newer_than_the_installed_one(learned, monkeypatch, tmp_path):
    options, _ = learned
    shutil.copytree(options.out / "state", tmp_path / "SHOP/state")
    shutil.copytree(options.out / "work", tmp_path / "SHOP/work", ignore=shutil.ignore_patterns("learn.json", "bundle"))
    packed = []
    monkeypatch.setattr("learn.steps.pack_bundle", lambda *given, **_: packed.append(given) or sys.exit())
    with pytest.raises(SystemExit):
        pack(
            replace(options, out=tmp_path / "SHOP"), PackSources(embedders=(options.out / "work/general",)), ("scenes",)
        )
    assert packed[0][0].sequence == 2
    assert packed[0][0].bundle_id not in (bundle_id(options.out), "")


def test_wrong_address_of_a_camera_is_told_before_anything_else(tmp_path, capsys):
    assert main(["learn", str(tmp_path), "-o", str(tmp_path / "SHOP"), "--camera", "htp://x"]) == 1
    assert "htp://x" in capsys.readouterr().err
    assert not (tmp_path / "SHOP").exists()


def test_other_photos_make_a_new_bundle_and_keep_the_rest(learned):
    options, _ = learned
    before = bundle_id(options.out)
    taught = options.out / "state/overlay/note"
    taught.parent.mkdir()
    taught.write_text("taught")
    (options.out / "kiosk.yaml").write_text((options.out / "kiosk.yaml").read_text() + "# changed\n")
    write_photo(options.photos / "fruit/plum/1.jpg", 900)
    assert learn(options)["items"] == 4
    assert bundle_id(options.out) != before
    assert taught.read_text() == "taught"
    assert "# changed" in (options.out / "kiosk.yaml").read_text()
    assert json.loads((options.out / "report.json").read_text())["items"] == 4


def test_photos_that_say_nothing_of_their_items_are_refused(tmp_path, lcnet):
    for i in range(60):
        write_photo(tmp_path / f"photos/item{i % 10}/{i}.jpg", i)
    with pytest.raises(TrainError, match="no better than guessing: check that each folder holds photos of one item"):
        learn(LearnOptions(tmp_path / "photos", tmp_path / "SHOP", weights=lcnet))
    assert not (tmp_path / "SHOP/kiosk.yaml").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, lcnet):
    (tmp_path / "SHOP").write_text("a file")
    with pytest.raises(TrainError, match="SHOP: cannot write: Not a directory"):
        learn(LearnOptions(shop(tmp_path / "photos", 2), tmp_path / "SHOP", weights=lcnet))
