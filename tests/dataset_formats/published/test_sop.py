"""Stanford Online Products: its two tables, and rows of them that do not fit."""

from __future__ import annotations

import pytest

from dataset_formats.published.sop import read_sop
from edge.errors import DataError
from tests.dataset_formats.samples import sop

TRAIN = ["1 1 1 bicycle_final/a.JPG", "2 1 1 bicycle_final/b.JPG"]
TEST = ["3 9 2 coffee_maker_final/c.JPG"]


def test_super_classes_are_the_categories(tmp_path):
    listing = read_sop(sop(tmp_path, TRAIN, TEST))
    assert [(s.split, s.category, s.item) for s in listing.samples] == [
        ("train", "bicycle", "1"),
        ("train", "bicycle", "1"),
        ("test", "coffee_maker", "9"),
    ]
    assert (listing.left_out, listing.noticed) == ([], [])


@pytest.mark.parametrize("row", ["4 1 1", "x 1 1 bicycle_final/d.JPG", "4 1.5 1 bicycle_final/d.JPG"])
def test_broken_row_is_left_out_with_its_line(tmp_path, row):
    listing = read_sop(sop(tmp_path, [TRAIN[0], "", row, TRAIN[1]], TEST))
    assert len(listing.samples) == 3
    assert listing.left_out == [f"{tmp_path}/Ebay_train.txt: line 4: found {row!r}, expected three ids and a path"]


def test_missing_picture_is_left_out(tmp_path):
    sop(tmp_path, TRAIN, TEST)
    (tmp_path / "bicycle_final/a.JPG").unlink()
    listing = read_sop(tmp_path)
    assert [sample.path.name for sample in listing.samples] == ["b.JPG", "c.JPG"]
    assert "Ebay_train.txt: line 2: " in listing.left_out[0]
    assert "a.JPG: not found" in listing.left_out[0]


def test_picture_with_two_classes_is_left_out(tmp_path):
    listing = read_sop(sop(tmp_path, [*TRAIN, "4 2 1 bicycle_final/a.JPG"], TEST))
    assert [sample.path.name for sample in listing.samples] == ["b.JPG", "c.JPG"]
    assert [line.partition(": ")[2].partition(":")[0] for line in listing.left_out] == ["line 2", "line 4"]


def test_repeated_id_is_noticed_and_the_path_decides(tmp_path):
    listing = read_sop(sop(tmp_path, [*TRAIN, "2 5 1 bicycle_final/d.JPG"], TEST))
    assert [(s.path.name, s.item) for s in listing.samples][2] == ("d.JPG", "5")
    assert "ids of several rows; the paths decide: 1 (image_id 2 in" in listing.noticed[0]


def test_class_in_both_splits_is_noticed(tmp_path):
    listing = read_sop(sop(tmp_path, TRAIN, [*TEST, "4 1 1 bicycle_final/d.JPG"]))
    assert listing.noticed == ["classes in both splits: 1 (1)"]


def test_missing_or_other_table_is_refused(tmp_path):
    sop(tmp_path, TRAIN, TEST)
    (tmp_path / "Ebay_test.txt").write_text("id,path\n")
    with pytest.raises(DataError, match=r"Ebay_test\.txt: found columns \['id,path'\], expected"):
        read_sop(tmp_path)
    (tmp_path / "Ebay_test.txt").unlink()
    with pytest.raises(DataError, match=r"Ebay_test\.txt: not found"):
        read_sop(tmp_path)


def test_set_of_which_no_picture_is_usable_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no picture can be used; the first: .*line 2: found 'x'"):
        read_sop(sop(tmp_path, ["x"], []))
