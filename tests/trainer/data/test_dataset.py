"""Listings for training: folders, CSV and COCO."""

from __future__ import annotations

import numpy as np
import pytest

from edge.errors import TrainError
from edge.imaging.image import encode_image
from tests.trainer.toy import write_index, write_scenes
from trainer.data.dataset import read_samples, read_scenes


def test_empty_item_folder_is_named(tmp_path):
    (tmp_path / "jar" / "plum").mkdir(parents=True)
    with pytest.raises(TrainError, match=r"plum: holds no picture"):
        read_samples(tmp_path)


def test_category_item_folders_hold_out_every_fifth_picture(tmp_path):
    for number in range(5):
        path = tmp_path / "jar" / "plum" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(np.zeros((4, 4, 3), np.uint8), ".png"))
    samples = read_samples(tmp_path)
    assert {("jar", "plum")} == {(s.category, s.item) for s in samples}
    assert [s.split for s in samples] == ["train"] * 4 + ["val"]


def test_index_columns_may_be_coarse_and_fine(tmp_path):
    (tmp_path / "index.csv").write_text("path,split,coarse,fine\na.png,train,jar,plum\n")
    assert [(s.category, s.item) for s in read_samples(tmp_path / "index.csv")] == [("jar", "plum")]
    (tmp_path / "index.csv").write_text("path,split,kind\na.png,train,jar\n")
    with pytest.raises(TrainError, match=r"lacks the columns \['category', 'item'\]"):
        read_samples(tmp_path / "index.csv")


def test_empty_index_is_rejected(tmp_path):
    write_index(tmp_path, [])
    with pytest.raises(TrainError, match=r"index\.csv"):
        read_samples(tmp_path)


def test_json_that_is_not_coco_is_rejected(tmp_path):
    path = write_scenes(tmp_path, 3)
    scenes, labels = read_scenes(path)
    assert (len(scenes), labels) == (3, ["object"])
    assert read_scenes(path, class_agnostic=False)[1] == ["box"]
    path.write_text('{"images": [{"id": 1}]}')
    with pytest.raises(TrainError, match="not COCO"):
        read_scenes(path)
