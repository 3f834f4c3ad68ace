"""What people named, written as a data set that the trainers' readers read."""

from __future__ import annotations

from collections import Counter

import pytest

from console.settings import Settings
from console.training.data_set import (
    COCO,
    INDEX,
    LABELS,
    count_boxes,
    count_crops,
    file_of,
    hold_out,
    named_crops,
    write_boxes,
    write_crops,
)
from console.web.serve import close_services, open_services
from dataset_formats.layouts import read_listing
from dataset_formats.listings import single_objects
from tests.console_training import boxed_set, fruit_set


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    services = open_services(Settings(tmp_path_factory.mktemp("console")), None)
    yield services
    close_services(services)


def written(services, set_ids, folder):
    folder.mkdir()
    with services.database.read() as rows:
        crops = list(named_crops(rows, set_ids))
    write_crops(crops, folder)
    return folder / file_of(crops)


def test_whole_pictures_become_an_index_with_labels(services, tmp_path):
    set_id = fruit_set(services, tmp_path / "fruit")
    file = written(services, [set_id], tmp_path / "out")
    assert file.name == INDEX
    samples = single_objects(read_listing(file))
    assert sorted((one.category, one.item, one.label, one.path.name) for one in samples)[:2] == [
        ("fruit", "apple", "Apple", "0.png"), ("fruit", "apple", "Apple", "1.png"),
    ]  # fmt: skip
    assert {one.path.parent for one in samples} == {tmp_path / "fruit/apple", tmp_path / "fruit/pear"}


def test_boxed_crops_become_coco_and_keep_their_boxes(services, tmp_path):
    sets = [boxed_set(services, tmp_path / "boxed"), fruit_set(services, tmp_path / "fruit", 1)]
    file = written(services, sets, tmp_path / "out")
    assert file.name == COCO
    samples = single_objects(read_listing(file))
    assert {(one.category, one.item) for one in samples} == {("fruit", "apple"), ("fruit", "pear")}
    assert sorted(one.box_px for one in samples) == [(0, 0, 10, 20), (0, 0, 40, 30), (0, 0, 40, 30)]
    assert "fruit,pear,Pear" in (tmp_path / "out" / LABELS).read_text()


@pytest.mark.parametrize(
    ("splits", "read"),
    [(("train", "val", ""), ["train", "val", "train"]), (("train", "", "test"), ["train", "train", "test"])],
)
def test_splits_of_people_are_kept(services, tmp_path, splits, read):
    set_id = boxed_set(services, tmp_path / "boxed", splits)
    listing = read_listing(written(services, [set_id], tmp_path / "out"))
    assert [scene.split for scene in sorted(listing.scenes, key=lambda one: one.path.name)] == read


def test_missing_picture_is_left_out_and_searched_nowhere(services, tmp_path):
    set_id = fruit_set(services, tmp_path / "fruit")
    (tmp_path / "fruit/apple/0.png").rename(tmp_path / "moved.png")
    listing = read_listing(written(services, [set_id], tmp_path / "out"))
    assert len(listing.samples) == 5
    assert "apple/0.png" in listing.left_out[0]


def test_boxes_of_confirmed_pictures_train_a_detector(services, tmp_path):
    set_id = boxed_set(services, tmp_path / "boxed", ("", ""))
    with services.database.write() as connection:
        connection.execute("UPDATE pictures SET boxes = 'proposed' WHERE name = '1.png' AND set_id = ?", (set_id,))
    with services.database.read() as rows:
        counts = count_boxes(rows, [set_id])
        assert (counts.pictures, counts.objects, counts.waiting) == (1, 2, 1)
        write_boxes(rows, [set_id], tmp_path)
    (scene,) = read_listing(tmp_path / COCO, boxed=True).scenes
    assert [box.box_px for box in scene.boxes] == [(0, 0, 10, 20), (15, 5, 35, 25)]


def test_counts_say_what_is_missing(services, tmp_path):
    set_id = fruit_set(services, tmp_path / "fruit")
    with services.database.read() as rows:
        counts = count_crops(rows, [set_id])
        assert (counts.objects, counts.items, counts.median, counts.alone, counts.problem) == (6, 2, 3, 0, "")
        assert "nothing is decided" in count_crops(rows, []).problem
    with services.database.write() as connection:
        connection.execute("UPDATE crops SET state = 'open' WHERE item = 'pear' AND set_id = ?", (set_id,))
    with services.database.read() as rows:
        counts = count_crops(rows, [set_id])
        assert "telling items apart takes two" in counts.problem
        assert counts.waiting == 3


def test_some_of_each_item_are_held_out(services, tmp_path):
    sets = [fruit_set(services, tmp_path / "fruit", 10), boxed_set(services, tmp_path / "boxed", ("", "test"))]
    with services.database.read() as rows:
        crops = hold_out(list(named_crops(rows, sets)))
    held = Counter((crop.item, crop.split) for crop in crops)
    assert held == {
        ("apple", "train"): 9,
        ("apple", "val"): 2,
        ("pear", "train"): 8,
        ("pear", "val"): 2,
        ("apple", "test"): 1,
    }
    assert hold_out(crops) == crops
