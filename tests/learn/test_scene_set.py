"""Reading the scenes to learn from: copies, names, and what is held out."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset_formats.layouts import read_listing
from dataset_formats.records import AnnotatedPicture, Listing, NamedBox
from edge.errors import DataError, TrainError
from edge.imaging.image import read_image
from learn.scene_set import BoxName, named_pictures, names_that_miss, naming_of, read_names, read_scenes
from tests.learn.toy_scenes import find_bright, write_scenes

BOX = (0.0, 0.0, 9.0, 9.0)


def read(source, tmp_path, **given):
    return read_scenes(source, None, tmp_path / "copies", lambda listed, _: listed, **given)


@pytest.mark.parametrize("naming", ["named", "one_level", "unnamed"])
def test_it_says_how_much_the_names_of_the_boxes_say(tmp_path, naming):
    assert read(write_scenes(tmp_path / "set", 5, naming), tmp_path).naming == naming


def test_the_file_of_the_copies_reads_as_the_scenes(tmp_path):
    scenes = read(write_scenes(tmp_path / "set", 10), tmp_path)
    again = read_listing(scenes.file, boxed=True)
    assert [(one.path, one.split, len(one.boxes)) for one in again.scenes] == [
        (one.path, one.split, len(one.boxes)) for one in scenes.pictures
    ]
    assert {box.category for one in again.scenes for box in one.boxes} == {"cup", "box"}
    assert 0 < sum(one.split == "val" for one in scenes.pictures) < 5


def test_test_pictures_are_not_touched_and_own_splits_stay(tmp_path):
    scenes = read(write_scenes(tmp_path / "set", 9, splits=("train", "val", "test")), tmp_path)
    assert (len(scenes.pictures), scenes.untouched) == (6, 3)
    assert {one.split for one in scenes.pictures} == {"train", "val"}


def test_boxes_lie_in_the_smaller_copies(tmp_path, monkeypatch):
    monkeypatch.setattr("learn.scene_set.LONGEST_PX", 80)
    scenes = read(write_scenes(tmp_path / "set", 4), tmp_path)
    for one in scenes.pictures:
        assert one.declared_size_px == (80, 60)
        found = sorted(box.box_px for box in find_bright(read_image(one.path)))
        for true, seen in zip(sorted(box.box_px for box in one.boxes), found, strict=True):
            assert max(abs(a - b) for a, b in zip(true, seen, strict=True)) <= 2.5


def test_finer_ids_are_items_of_their_class_and_names_go_first(tmp_path):
    listing = Listing("coco", scenes=[AnnotatedPicture(tmp_path, "", (NamedBox(BOX, "bottle", item_id="cola-1"),))])
    (plain,) = named_pictures(listing, {})[0].boxes
    assert (plain.category, plain.item) == ("bottle", "cola-1")
    (renamed,) = named_pictures(listing, {"cola-1": BoxName("drink", "Cola")})[0].boxes
    assert (renamed.category, renamed.item) == ("drink", "Cola")


def test_names_need_their_columns(tmp_path):
    (tmp_path / "names.csv").write_text("name,category,item,label\nnine,number,9,Nine\n")
    assert read_names(tmp_path / "names.csv") == {"nine": BoxName("number", "9", "Nine")}


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ("nine,,9\n", "line 2: a value is missing; give name, category and item"),
        ("nine,number,9\nnine,face,9\n", "line 3: 'nine' has another meaning in an earlier line"),
        ("nine,number,9,Nine, the\n", "line 2: has 5 values for 3 columns"),
    ],
)
def test_names_that_say_too_little_or_too_much_are_refused(tmp_path, rows, text):
    (tmp_path / "names.csv").write_text(f"name,category,item\n{rows}")
    with pytest.raises(DataError, match=text):
        read_names(tmp_path / "names.csv")


def test_names_on_no_box_and_boxes_without_a_row_are_listed(tmp_path):
    boxes = NamedBox(BOX, "nine"), NamedBox(BOX, "ten"), NamedBox(BOX, "cola", item_id="cola-1")
    listing, file = Listing("coco", scenes=[AnnotatedPicture(tmp_path, "", boxes)]), Path("names.csv")
    meant = BoxName("a", "b")
    assert names_that_miss(listing, {"nine": meant, "ten": meant, "cola": meant}, file) == []
    assert names_that_miss(listing, {"ten": meant, "TEN": meant, "cola-1": meant}, file) == [
        "names.csv: names that are on no box: TEN",
        "names.csv: boxes without a row keep their names: nine",
    ]
    with pytest.raises(TrainError, match=r"none of its names is on a box; the boxes are named cola, cola-1, nine, ten"):
        names_that_miss(listing, {"Nine": meant}, file)


def test_one_category_of_several_items_is_one_level():
    boxes = NamedBox(BOX, "nine"), NamedBox(BOX, "ten")
    assert naming_of([AnnotatedPicture(None, "", boxes)]) == "one_level"  # type: ignore[arg-type]


def test_too_few_pictures_are_refused(tmp_path):
    with pytest.raises(TrainError, match="3 pictures can be used; 4 are needed"):
        read(write_scenes(tmp_path / "set", 3), tmp_path)
    with pytest.raises(TrainError, match="0 pictures can be used; 4 are needed; 5 of the split test are not touched"):
        read(write_scenes(tmp_path / "tests", 5, splits=("test",)), tmp_path)
