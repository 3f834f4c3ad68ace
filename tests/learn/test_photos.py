"""Reading the photos to learn from: copies, what is left out, what is held out."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from dataset_formats.records import Sample
from edge.errors import TrainError
from edge.imaging.image import read_image
from learn.photos import LONGEST_PX, hold_out, read_photos, write_index


def write_photo(path, seed=0, size=(60, 80)):
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC))


def shop(folder, per_item=5):
    """Write photos of three items that differ in colour, each on another background."""
    for i, item in enumerate(("fruit/apple", "fruit/pear", "milk/oat milk")):
        for n in range(per_item):
            write_photo(folder / item / f"{n}.jpg", 100 * i + n)
            photo = cv2.imread(str(folder / item / f"{n}.jpg"))
            cv2.rectangle(photo, (10, 5), (70, 55), [255 * (i == channel) for channel in range(3)], cv2.FILLED)
            cv2.imwrite(str(folder / item / f"{n}.jpg"), photo)
    return folder


def read(source, tmp_path):
    return read_photos(source, None, tmp_path / "copies", lambda listed, _: listed)


def test_large_photos_become_small_copies(tmp_path):
    write_photo(tmp_path / "in/a/1.jpg", 1, (1500, 2000))
    write_photo(tmp_path / "in/b/1.png", 2, (40, 30))
    copies = {sample.item: read_image(sample.path) for sample in read(tmp_path / "in", tmp_path).samples}
    assert copies["a"].shape == (480, LONGEST_PX, 3)
    assert copies["b"].shape == (40, 30, 3)


def test_a_damaged_photo_is_left_out_and_named(tmp_path):
    source = shop(tmp_path / "in", 2)
    (source / "fruit/apple/1.jpg").write_bytes(b"no picture")
    photos = read(source, tmp_path)
    assert len(photos.samples) == 5
    assert "apple/1.jpg" in photos.left_out[0]
    assert photos.lost == []
    (source / "fruit/apple/0.jpg").write_bytes(b"no picture")
    assert read(source, tmp_path).lost == ["apple"]


def test_a_folder_without_usable_photos_is_refused(tmp_path):
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/a/1.jpg").write_bytes(b"")
    with pytest.raises(TrainError, match="0 photos can be used; two are needed"):
        read(tmp_path / "in", tmp_path)


def test_copies_are_made_once(tmp_path):
    source = shop(tmp_path / "in", 2)
    first = read(source, tmp_path).samples[0].path
    stamp = first.stat().st_mtime_ns
    write_photo(source / "fruit/apple/9.jpg", 77)
    again = read(source, tmp_path).samples
    assert first.stat().st_mtime_ns == stamp
    assert len(again) == 7


def test_each_item_of_three_photos_holds_one_out(tmp_path):
    split = [(s.item, s.split) for s in hold_out(read(shop(tmp_path / "in", 4), tmp_path))]
    for item in ("apple", "pear", "oat milk"):
        assert split.count((item, "val")) == 1
    assert {s.split for s in hold_out(read(shop(tmp_path / "two", 2), tmp_path))} == {"train"}


def test_photos_that_look_the_same_stay_together(tmp_path):
    source = shop(tmp_path / "in", 1)
    for n in range(6):
        write_photo(source / f"fruit/apple/burst{n}.jpg", 5)
    assert {s.split for s in hold_out(read(source, tmp_path)) if s.item == "apple"} == {"train"}


def test_test_pictures_are_not_touched(tmp_path):
    source = tmp_path / "in"
    for seed, name in enumerate(f"{split}/c/{item}" for split in ("train", "val", "test") for item in ("a", "b")):
        write_photo(source / name / "1.jpg", seed)
    assert len(read(source, tmp_path).samples) == 4


def test_the_index_holds_any_name(tmp_path):
    sample = Sample(tmp_path / "a.jpg", "val", 'Jus, "frais"', "l'été\n1", "果汁")
    path = write_index([sample], tmp_path / "index.csv")
    (row,) = csv.DictReader(io.StringIO(path.read_bytes().decode(), newline=""))
    names = {"category": sample.category, "item": sample.item, "label": "果汁"}
    assert row == {"path": str(sample.path), "split": "val", **names}
    painted = replace(sample, attributes=(("colour", "red"),))
    rows = list(csv.reader(io.StringIO(write_index([painted, sample], path).read_bytes().decode(), newline="")))
    assert [row[5] for row in rows] == ["attribute:colour", "red", ""]


def test_items_of_one_name_in_two_categories_stay_two(tmp_path):
    for seed, item in enumerate(("Coke/Original", "Pepsi/Original", "Pepsi/Zero")):
        write_photo(tmp_path / "in" / item / "1.jpg", seed)
    found = {(s.category, s.item, s.label or s.item) for s in read(tmp_path / "in", tmp_path).samples}
    assert found == {
        ("Coke", "Coke Original", "Original"),
        ("Pepsi", "Pepsi Original", "Original"),
        ("Pepsi", "Zero", "Zero"),
    }


@pytest.mark.parametrize(
    "items",
    [("tea/1 l", "juice/1 l", "tea/tea 1 l"), ("a b/c", "a/b c", "x/c", "y/b c"), ("a/b", "b/b", "b/b b", "a/a b")],
)
def test_a_longer_name_never_is_that_of_another_item(tmp_path, items):
    for seed, item in enumerate(items):
        write_photo(tmp_path / "in" / item / "1.jpg", seed)
    found = read(tmp_path / "in", tmp_path).samples
    assert sorted(f"{s.category}/{s.label or s.item}" for s in found) == sorted(items)
    assert len({s.item for s in found}) == len(items)


def test_a_photo_that_vanishes_is_left_out_and_named(tmp_path):
    source = shop(tmp_path / "in", 2)

    def late(listed, _):
        (source / "fruit/apple/1.jpg").unlink()
        return listed

    photos = read_photos(source, None, tmp_path / "copies", late)
    assert len(photos.samples) == 5
    assert "apple/1.jpg: cannot read: No such file" in photos.left_out[0]


def test_boxed_objects_keep_their_photo_and_get_labels(tmp_path):
    write_photo(tmp_path / "in/a.jpg", 1, (100, 200))
    boxes = [{"id": n, "image_id": 1, "category_id": 1, "bbox": [50 * n, 0, 50, 100]} for n in (0, 1)]
    tree = {
        "images": [{"id": 1, "file_name": "a.jpg", "split": "train"}],
        "annotations": boxes,
        "categories": [{"id": 1, "name": "oat-milk", "supercategory": "milk"}],
    }
    (tmp_path / "in/coco.json").write_text(json.dumps(tree))
    (tmp_path / "labels.csv").write_text("category,item,label\nmilk,oat-milk,Oat milk 1 l\n")
    photos = read_photos(
        tmp_path / "in/coco.json", None, tmp_path / "copies", lambda listed, _: listed, tmp_path / "labels.csv"
    )
    assert {sample.label for sample in photos.samples} == {"Oat milk 1 l"}
    found = sorted(photos.sources[sample.path.name] for sample in photos.samples)
    assert found == [(tmp_path / "in/a.jpg", (0, 0, 50, 100)), (tmp_path / "in/a.jpg", (50, 0, 100, 100))]
    (tmp_path / "labels.csv").write_text("category,item,label\nMilk,oat-milk,Oat milk 1 l\n")
    with pytest.raises(TrainError, match=r"none of its rows names an item of .*; the first: Milk, oat-milk"):
        read_photos(
            tmp_path / "in/coco.json", None, tmp_path / "copies", lambda listed, _: listed, tmp_path / "labels.csv"
        )
