"""The pictures of an evaluation, and which of them are the same."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from edge.errors import TrainError
from edge.imaging.image import encode_image
from trainer.evaluation.evaluation_set import load_evaluation_set


def write_set(folder, *rows: tuple[str, str, str]):
    """Write an index of file name, split and item; a picture is a plain colour of its own unless it is there."""
    for number, (name, _, _) in enumerate(rows):
        if not (folder / name).exists():
            picture = np.full((12, 16, 3), 10 * number, np.uint8)
            (folder / name).write_bytes(encode_image(picture, ".png"))
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "split", "item", "category"), *((*row, "food") for row in rows)])
    return folder / "index.csv"


def load(index, query=None, gallery=None, **changes):
    return load_evaluation_set(index, None, query, gallery, **{"share": 0.0, "seed": 0} | changes)


def test_query_that_is_the_gallery_is_leave_one_out(tmp_path):
    index = write_set(tmp_path, ("a.png", "val", "tea"), ("b.png", "val", "tea"), ("c.png", "val", "jam"))
    found = load(index, "val", "val")
    assert found.query_ids.tolist() == found.gallery_ids.tolist()
    assert len(set(found.query_ids.tolist())) == 3
    assert (found.protocol, found.own) == ("leave-one-out", 3)
    assert found.noticed == [
        "noticed: 3 query pictures are in the gallery, too; protocol leave-one-out: a query's own picture is no answer"
    ]


def test_separate_pictures_need_no_word(tmp_path):
    found = load(write_set(tmp_path, ("a.png", "val", "tea"), ("b.png", "catalogue", "tea")))
    assert (found.protocol, found.own, found.noticed) == ("separate gallery", 0, [])


def test_picture_in_both_splits_and_a_copy_are_known(tmp_path):
    rows = [("a.png", "val", "tea"), ("b.png", "val", "tea"), ("c.png", "val", "jam"), ("d.png", "catalogue", "jam")]
    write_set(tmp_path, *rows)
    shutil.copy(tmp_path / "b.png", tmp_path / "copied.png")
    index = write_set(tmp_path, *rows, ("copied.png", "catalogue", "tea"), ("./a.png", "catalogue", "tea"))
    found = load(index)
    assert [number in found.gallery_ids for number in found.query_ids] == [True, True, False]
    assert found.own == 2
    assert (
        f"2 query pictures are in the gallery, too (1 as a copy under another name: {tmp_path}/b.png is"
        in (found.noticed[0])
    )


def test_link_to_a_picture_is_the_same_picture(tmp_path):
    rows = [("a.png", "val", "tea"), ("b.png", "catalogue", "tea")]
    write_set(tmp_path, *rows)
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    found = load(write_set(tmp_path, *rows, ("link.png", "catalogue", "tea")))
    assert found.own == 1
    assert "copy" not in found.noticed[0]


def test_boxes_of_one_picture_are_different_pictures(tmp_path):
    (tmp_path / "shelf.png").write_bytes(encode_image(np.zeros((40, 60, 3), np.uint8), ".png"))
    boxes = [[0, 0, 10, 10], [20, 0, 10, 10], [40, 0, 40, 10], [70, 0, 10, 10]]
    tree = {
        "images": [{"id": 1, "file_name": "shelf.png", "split": "val"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": box, "area": 100} for i, box in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "tea"}],
    }
    (tmp_path / "scenes.json").write_text(json.dumps(tree))
    found = load(tmp_path / "scenes.json", "val", "val")
    assert len(set(found.query_ids.tolist())) == 3
    assert found.queries[2].box_px == (40, 0, 60, 10)  # clipped
    assert "box (70.0, 0.0, 80.0, 10.0) lies outside" in found.skipped[0]


def test_pictures_that_cannot_be_read_are_named_and_counted(tmp_path):
    index = write_set(tmp_path, *((f"{name}.png", "val" if name in "abc" else "catalogue", "tea") for name in "abcde"))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:-10])  # truncated
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "d.png").write_bytes(whole[:40])
    found = load(index)
    assert [sample.path.name for sample in found.queries] == ["c.png"]
    assert [sample.path.name for sample in found.gallery] == ["e.png"]
    assert len(found.skipped) == 2
    assert "a.png: the png is truncated" in found.skipped[0]
    assert len(found.gallery_skipped) == 1
    assert found.noticed == ["left out 2 query pictures and 1 gallery pictures that cannot be used"]


def test_gallery_without_a_readable_picture_is_an_error(tmp_path):
    index = write_set(tmp_path, ("a.png", "val", "tea"), ("b.png", "catalogue", "tea"))
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(TrainError, match=r"no gallery picture can be read; the first: .*b\.png"):
        load(index)


def test_fallback_of_the_gallery_is_noticed(tmp_path):
    index = write_set(tmp_path, ("a.png", "val", "tea"), ("b.png", "train", "tea"))
    found = load(index)
    assert found.gallery_splits == ("train",)
    assert found.noticed == ["there is no split 'catalogue': 'train' is the gallery"]


def test_left_out_items_do_not_depend_on_the_order_of_the_pictures(tmp_path):
    rows = [(f"{n}.png", "val" if n < 5 else "catalogue", f"item {n % 5}") for n in range(10)]
    left = []
    for place, order in enumerate((rows, rows[::-1])):
        (tmp_path / str(place)).mkdir()
        left.append(load(write_set(tmp_path / str(place), *order), share=0.4, seed=3).left_out)
    assert left[0] == left[1]
    assert len(left[0]) == 2
