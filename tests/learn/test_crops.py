"""Crops of scenes: cut by the detector's boxes, named by the true ones, and every box accounted for."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from dataset_formats.layouts import read_listing
from edge.imaging.image import read_image
from edge.types import Detection
from learn.crops import BOXES_FILE, INDEX_FILE, REPORT_FILE, CropOptions, cut_scenes
from learn.scene_set import named_pictures
from tests.learn.toy_scenes import COLOURS, find_bright, write_scenes
from trainer.cli import main
from trainer.data.dataset import read_samples


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), 6, splits=("train", "train", "val"))


def pictures_of(scenes):
    return named_pictures(read_listing(scenes, boxed=True), {})


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_crops_are_named_by_the_true_boxes(scenes, tmp_path):
    cut = cut_scenes(pictures_of(scenes), find_bright, tmp_path / "out", CropOptions(margin=0.0))
    samples = read_samples(tmp_path / "out" / INDEX_FILE)
    assert len(samples) == cut.counts()["matched"] == 12
    assert [one.split for one in samples].count("val") == 4
    for one in samples:
        middle = read_image(one.path)[10:-10, 10:-10].reshape(-1, 3)
        assert np.abs(np.median(middle, axis=0) - COLOURS[one.category, one.item]).max() < 25


def test_the_margin_grows_the_crop(scenes, tmp_path):
    picture = pictures_of(scenes)[0]
    sides = {}
    for margin in (0.0, 0.25):
        cut = cut_scenes([picture], find_bright, tmp_path / f"{margin}", CropOptions(margin=margin))
        sides[margin] = max(read_image(one.path).shape[1] for one in cut.samples)
    assert sides[0.25] >= 1.3 * sides[0.0]


def test_every_box_is_listed(scenes, tmp_path):
    """One object is missed, one found twice, and one thing found that is none."""

    def detect(image_rgb):
        first, *_ = find_bright(image_rgb)
        return [first, replace(first, score=0.4), Detection((60.0, 0.0, 80.0, 8.0), 0.3, "object")]

    cut_scenes(pictures_of(scenes), detect, tmp_path / "out")
    listed = rows(tmp_path / "out" / BOXES_FILE)
    kinds = [row["kind"] for row in listed]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == dict.fromkeys(
        ("matched", "missed", "doubled", "unmatched"), 6
    )
    missed = next(row for row in listed if row["kind"] == "missed")
    assert (missed["found_x0"], missed["crop"]) == ("", "")
    assert float(missed["true_x1"]) > float(missed["true_x0"])
    report = json.loads((tmp_path / "out" / REPORT_FILE).read_text())
    assert report["boxes"]["missed"] == sum(one.get("missed", 0) for one in report["items"]) == 6
    assert report["splits"]["val"]["doubled"] == 2


def test_missed_objects_are_cut_out_as_drawn_where_asked(scenes, tmp_path):
    cut = cut_scenes(pictures_of(scenes), lambda _: [], tmp_path / "out", CropOptions(add_missed=("train",)))
    assert (cut.counts("train")["added"], cut.counts("val")["missed"]) == (8, 4)
    assert {one.split for one in cut.samples} == {"train"}
    assert "red" in json.loads((tmp_path / "out" / REPORT_FILE).read_text())["never_found"]


def test_hidden_objects_are_neither_cut_out_nor_missed(scenes, tmp_path):
    (picture,) = pictures_of(scenes)[:1]
    hidden = replace(picture, boxes=(replace(picture.boxes[0], visible=0.1), picture.boxes[1]))
    cut = cut_scenes([hidden], find_bright, tmp_path / "found")
    assert cut.counts() == {"matched": 1, "added": 0, "missed": 0, "doubled": 0, "unmatched": 0, "hidden": 1}
    assert cut_scenes([hidden], lambda _: [], tmp_path / "none").counts()["missed"] == 1


def test_the_command_cuts_by_a_training_run_and_refuses_a_full_folder(scenes, tmp_path, toy_detector, capsys):
    names = tmp_path / "names.csv"
    names.write_text("name,category,item,label\nred,warm,red,Red\nyellow,warm,yellow,\n")
    out = tmp_path / "out"
    command = ["crops", "--detector", str(toy_detector), "--scenes", str(scenes), "-o", str(out)]
    command += ["--names", str(names), "--add-missed", "train,val", "--threshold", "0.99"]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["crops"] == report["boxes"]["matched"] + report["boxes"]["added"] == 12
    listed = rows(out / INDEX_FILE)
    assert {(row["category"], row["label"]) for row in listed if row["item"] == "red"} == {("warm", "Red")}
    assert main(command) == 1
    assert "holds crops already" in capsys.readouterr().err


def test_a_folder_that_is_no_detector_is_refused(scenes, tmp_path, capsys):
    command = ["crops", "--detector", str(tmp_path), "--scenes", str(scenes), "-o", str(tmp_path / "out")]
    assert main(command) == 1
    assert "is no detector; give a run folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (["--iou", "1.5"], "--iou is 1.5; give more than 0 and at most 1"),
        (["--margin", "-1"], "--margin is -1; give 0 to 1"),
        (["--threshold", "2"], "--threshold is 2; give 0 to less than 1"),
        (["--add-missed", "train,vla"], "there is no split 'vla'; the data set has train, val"),
        (["--keep-labels", "can"], "are for ONNX files, and this is a folder"),
    ],
)
def test_an_option_that_would_cut_nothing_or_do_nothing_is_refused(
    scenes, toy_detector, tmp_path, capsys, option, text
):
    given = ["crops", "--detector", str(toy_detector), "--scenes", str(scenes), "-o", str(tmp_path / "out"), *option]
    assert main(given) == 1
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
