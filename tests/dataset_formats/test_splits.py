"""Names of splits, and the default one."""

from __future__ import annotations

import pytest

from dataset_formats.splits import default_split, find_split, split_from_name


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


@pytest.mark.parametrize(
    ("asked", "found"), [(" val", "val"), ("Validation", "val"), ("Shelf", "Shelf"), ("shelf", None), ("test", None)]
)
def test_asked_split_is_found_as_the_data_set_names_it(asked, found):
    assert find_split(asked, {"train", "val", "Shelf"}) == found
