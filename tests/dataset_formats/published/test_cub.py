"""CUB-200-2011: its tables, and rows of them that do not fit."""

from __future__ import annotations

from collections import Counter

import pytest

from dataset_formats.published.cub import read_cub
from edge.errors import DataError
from tests.dataset_formats.samples import cub


def change(root, table: str, number: int, line: str | None) -> None:
    """Replace a line (from 1) of a table; None: remove it."""
    file = root / f"{table}.txt"
    lines = file.read_text().splitlines()
    lines[number - 1 : number] = [] if line is None else [line]
    file.write_text("\n".join(lines) + "\n")


def test_splits_are_those_of_the_table_or_published(tmp_path):
    cub(tmp_path / "CUB_200_2011")
    own = read_cub(tmp_path)
    assert Counter(sample.split for sample in own.samples) == {"train": 51, "test": 51}
    first = own.samples[0]
    assert (first.category, first.item, first.label) == ("bird", "001.Bird_1", "Bird 1")
    assert first.box_px == (4, 2, 24, 12)
    published = read_cub(tmp_path, published=True)
    assert {s.item for s in published.samples if s.split == "test"} == {"101.Bird_101", "102.Bird_102"}
    assert (own.left_out, own.noticed) == ([], [])


@pytest.mark.parametrize("name", ["images.txt", "classes.txt", "train_test_split.txt"])
def test_missing_table_is_named(tmp_path, name):
    (cub(tmp_path, 3) / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: not found"):
        read_cub(tmp_path)


@pytest.mark.parametrize(
    ("table", "line", "why"),
    [
        ("images", "2", "images.txt: line 2: found '2', expected an id and its value"),
        ("image_class_labels", "2", "image_class_labels.txt: line 2: found '2'"),
        ("image_class_labels", None, "image 2: has no row of its own in image_class_labels.txt"),
        ("image_class_labels", "2 9", "image 2: found class 9, which classes.txt does not list once"),
        ("image_class_labels", "3 2", "image_class_labels.txt: id 3: has 2 different rows"),
        ("train_test_split", "2 yes", "image 2: found 'yes' for its split"),
        ("train_test_split", None, "image 2: found '' for its split"),
        ("bounding_boxes", "2 1 2 nan 4", "image 2: found the box '1 2 nan 4'"),
        ("bounding_boxes", "2 1 2 0 4", "image 2: found the box '1 2 0 4'"),
        ("bounding_boxes", None, "image 2: found the box ''"),
        ("images", "2 gone.jpg", "gone.jpg: not found"),
        ("images", "2 001.Bird_1/a.jpg", "image 2: 001.Bird_1/a.jpg: other ids mean it, too"),
    ],
)
def test_row_that_does_not_fit_is_left_out(tmp_path, table, line, why):
    change(cub(tmp_path, 4), table, 2, line)
    listing = read_cub(tmp_path)
    assert why in "\n".join(listing.left_out)
    assert "002.Bird_2" not in {sample.item for sample in listing.samples}
    assert "004.Bird_4" in {sample.item for sample in listing.samples}


def test_rows_are_matched_by_id_in_any_order(tmp_path):
    cub(tmp_path, 4)
    for name in ("images", "bounding_boxes", "classes"):
        lines = (tmp_path / f"{name}.txt").read_text().splitlines()
        (tmp_path / f"{name}.txt").write_text("\n".join(reversed(lines)))
    assert {(s.path.parent.name, s.item) for s in read_cub(tmp_path).samples} == {
        (f"00{n}.Bird_{n}", f"00{n}.Bird_{n}") for n in range(1, 5)
    }


def test_row_that_repeats_another_is_noticed(tmp_path):
    change(cub(tmp_path, 3), "images", 3, "3 003.Bird_3/a.jpg\n3 003.Bird_3/a.jpg")
    listing = read_cub(tmp_path)
    assert len(listing.samples) == 3
    assert listing.noticed == [f"{tmp_path}/images.txt: rows that repeat another; read once: 1 (3)"]


def test_set_without_boxes_says_that_it_has_none(tmp_path):
    (cub(tmp_path, 2) / "bounding_boxes.txt").unlink()
    listing = read_cub(tmp_path)
    assert [sample.box_px for sample in listing.samples] == [None, None]
    assert "bounding_boxes.txt: not found; whole pictures are used" in listing.noticed[0]


def test_set_of_which_no_picture_is_usable_is_refused(tmp_path):
    (cub(tmp_path, 1) / "bounding_boxes.txt").write_text("1 a b c d\n")
    with pytest.raises(DataError, match=r"no picture can be used; the first: .*image 1: found the box"):
        read_cub(tmp_path)
