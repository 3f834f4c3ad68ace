"""Listings for training: folders, CSV and COCO."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from dataset_formats.records import AnnotatedPicture, Listing, NamedBox
from edge.errors import DataError, TrainError
from tests.trainer.toy import write_crops, write_scenes
from trainer.data.dataset import class_names, read_samples, read_scenes


def test_listing_logs_how_much_it_left_out_and_noticed(tmp_path, caplog):
    index = write_crops(tmp_path)
    with index.open("a") as file:
        file.writelines(f"gone-{number}.png,train,red,red-0\n" for number in range(7))
        file.write("red-0-0.png,train,red,red-0\n")
    with caplog.at_level(logging.WARNING):
        assert len(read_samples(index)) == 24
    assert [record.message.partition(" (")[0] for record in caplog.records] == [
        next(r.message for r in caplog.records if "left out 7: " in r.message and "and 2 more" in r.message),
        f"{index}: noticed 1: {index}: rows that repeat another; read once: 1",
    ]


def test_box_with_a_name_that_the_set_does_not_list_is_a_class():
    boxes = tuple(NamedBox((0, 0, 4, 4), item) for item in ("fig", "plum", "date"))
    listing = Listing("coco", scenes=[AnnotatedPicture(Path("a.png"), "train", boxes)], names=["plum", "never"])
    assert class_names(listing) == ["plum", "never", "date", "fig"]


def test_json_that_is_not_coco_is_rejected(tmp_path):
    path = write_scenes(tmp_path, 3)
    scenes, labels = read_scenes(path)
    assert (len(scenes), labels) == (3, ["object"])
    assert read_scenes(path, class_agnostic=False)[1] == ["box"]
    path.write_text('{"images": [{"id": 1}]}')
    with pytest.raises(DataError, match="not COCO"):
        read_scenes(path)


def test_scene_of_hidden_objects_is_left_out_not_background(tmp_path, caplog):
    path = write_scenes(tmp_path, 3)
    tree = json.loads(path.read_text())
    tree["annotations"][1]["visible_fraction"] = 0.1
    del tree["annotations"][2]
    path.write_text(json.dumps(tree))
    scenes, _ = read_scenes(path, least_visible=0.3)
    assert [(scene.path.name, len(scene.boxes_px)) for scene in scenes] == [("0.png", 1), ("2.png", 0)]
    assert f"{path}: left out pictures that show only hidden objects: 1 ({tmp_path}/1.png)" in caplog.text


def test_absent_split_of_scenes_is_an_error_that_lists_those_there_are(tmp_path):
    path = write_scenes(tmp_path, 2)
    tree = json.loads(path.read_text())
    tree["images"][0]["split"], tree["images"][1]["split"] = "train", "val"
    path.write_text(json.dumps(tree))
    with pytest.raises(TrainError, match=r"no image of the splits \['test'\]; there are \['train', 'val'\]"):
        read_scenes(path, splits=["test"])
