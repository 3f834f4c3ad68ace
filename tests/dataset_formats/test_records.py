"""Records of data sets: names of splits, reports, boxes and what several formats share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dataset_formats.records import (
    AnnotatedPicture,
    Annotation,
    Listing,
    NamedBox,
    box_of_sides,
    box_of_size,
    default_split,
    drop_repeated_boxes,
    in_bulk,
    printable,
    report,
    split_from_name,
)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Train ", "TRAINING", "train2017", "train_2019", "trainval")),
        *((name, "val") for name in ("val", "valid", "Validation", "val-2017", " VAL2017")),
        *((name, "test") for name in ("test", "Testing", "test2015")),
        *((name, name) for name in ("catalogue", "gallery", "iconic", "query")),
        *(
            (name, "")
            for name in ("", "latest", "contest", "retrain", "train1", "test12", "2017", "valve", "train.txt")
        ),
    ],
)
def test_split_is_a_whole_name_in_any_case(name, split):
    assert split_from_name(name) == split


def test_every_fifth_picture_is_held_out():
    assert [default_split(number) for number in range(10)] == (["train"] * 4 + ["val"]) * 2


def test_report_gives_counts_and_the_first_few():
    listing = Listing("index", left_out=[f"row {number}" for number in range(7)], noticed=["odd"])
    assert report(listing, "a.csv", first=2) == [
        "a.csv: left out 7: row 0; row 1, and 5 more; edge-train data lists them",
        "a.csv: noticed 1: odd",
    ]
    assert report(Listing("index"), "a.csv") == []


def test_report_of_names_that_are_not_utf_8_can_be_printed():
    name = os.fsdecode(b"caf\xe9")
    assert printable(name) == "caf\\udce9"
    assert report(Listing("index", noticed=[name]), name)[0].encode() == b"caf\\udce9: noticed 1: caf\\udce9"


def test_many_of_one_kind_are_one_line():
    assert in_bulk("rows", [1, 2, 3, 4], first=2) == ["rows: 4 (1, 2, …)"]
    assert in_bulk("rows", ["a"]) == ["rows: 1 (a)"]
    assert in_bulk("rows", []) == []


def test_box_of_one_picture_that_is_listed_twice_is_kept_once():
    box, other = NamedBox((0, 0, 4, 4), "plum"), NamedBox((0, 0, 4, 4), "fig")
    scenes = [
        AnnotatedPicture(Path("a.png"), "train", (box, other, NamedBox((0.0, 0, 4, 4), "plum", score=0.5))),
        AnnotatedPicture(Path("b.png"), "train", (box,)),
    ]
    kept, noticed = drop_repeated_boxes(scenes)
    assert [scene.boxes for scene in kept] == [(box, other), (box,)]
    assert noticed == ["pictures that list one box twice; each was read once: 1 (a.png)"]


def test_repeated_boxes_are_dropped_from_annotations_too():
    box = NamedBox((0, 0, 4, 4), "plum")
    kept, noticed = drop_repeated_boxes([Annotation("a.png", (box, box)), Annotation("b.png", ())])
    assert [one.boxes for one in kept] == [(box,), ()]
    assert len(noticed) == 1


@pytest.mark.parametrize(
    "values",
    [[], [1, 2, 3], [1, 2, 3, 4, 5], ["a", 1, 2, 3], [0, 0, float("nan"), 1], [0, 0, 10**400, 1], [0, 0, None, 1]],
)
def test_what_is_no_box_is_none(values):
    assert box_of_sides(values) is None
    assert box_of_size(values) is None


def test_box_without_area_is_none():
    assert box_of_sides([4, 0, 4, 9]) is None
    assert box_of_sides([5, 0, 4, 9]) is None
    assert box_of_size([5, 0, -4, 9]) is None
    assert box_of_size(["5", 0, 4, 9.5]) == (5, 0, 9, 9.5) == box_of_sides([5, 0, 9, 9.5])
