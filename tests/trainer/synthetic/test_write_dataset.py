"""Synthetic data sets on disk: complete, readable, and the same for any number of processes."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from pathlib import Path

import cv2
import pytest

from trainer.synthetic.items import CATEGORIES, catalogue
from trainer.synthetic.stream import write_stream
from trainer.synthetic.write_dataset import write_dataset

ITEMS = catalogue()[::18]


def _write(out: Path, workers: int) -> Path:
    return write_dataset(out, 9, 10, 2, 2, items=ITEMS, size_px=(160, 96), workers=workers, progress=False)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("synthetic"), 1).parent


def test_index_lists_every_picture_and_all_are_readable(written: Path) -> None:
    rows = list(csv.DictReader((written / "index.csv").read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == ["path", "split", "category", "item", "label"]
    assert all(cv2.imread(str(written / row["path"])) is not None for row in rows)
    on_disk = {
        str(path.relative_to(written)) for top in ("crops", "catalogue") for path in (written / top).rglob("*.*")
    }
    assert on_disk == {row["path"] for row in rows}
    expected = {"train": 2, "val": 1, "test": 1, "catalogue": 2}
    assert {split: count * len(ITEMS) for split, count in expected.items()} == Counter(row["split"] for row in rows)


def test_scenes_have_coco_boxes_inside_their_pictures(written: Path) -> None:
    table = json.loads((written / "scenes.json").read_text(encoding="utf-8"))
    assert [category["name"] for category in table["categories"]] == list(CATEGORIES)
    assert Counter(image["split"] for image in table["images"]) == {"train": 8, "val": 1, "test": 1}
    images = {image["id"]: image for image in table["images"]}
    assert len({one["id"] for one in table["annotations"]}) == len(table["annotations"]) > 0
    for image in images.values():
        assert cv2.imread(str(written / image["file_name"])).shape == (image["height"], image["width"], 3)
    for one in table["annotations"]:
        x, y, width, height = one["bbox"]
        image = images[one["image_id"]]
        assert 0 <= x < x + width <= image["width"]
        assert 0 <= y < y + height <= image["height"]
        assert one["item_id"].startswith(CATEGORIES[one["category_id"] - 1])


def test_chosen_category_looks_as_it_does_among_all(written: Path, tmp_path: Path) -> None:
    chosen = ITEMS[0].category
    options = {"items": ITEMS, "size_px": (160, 96), "workers": 1, "progress": False}
    index = write_dataset(tmp_path, 9, 0, 2, 2, categories=[chosen], **options)
    rows = list(csv.DictReader(index.read_text(encoding="utf-8").splitlines()))
    assert {row["category"] for row in rows} == {chosen}
    assert all((tmp_path / row["path"]).read_bytes() == (written / row["path"]).read_bytes() for row in rows)


def test_two_processes_write_the_same_as_one(written: Path, tmp_path: Path) -> None:
    _write(tmp_path, 2)
    files = sorted(path.relative_to(written) for path in written.rglob("*.*"))
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    for name in files:
        first, second = (hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in (written, tmp_path))
        assert first == second, name


def test_stream_is_written_with_its_ground_truth(tmp_path: Path) -> None:
    truth = json.loads(write_stream(tmp_path / "s.mp4", 2, catalogue(), 160, 96, 5, 3).read_text(encoding="utf-8"))
    assert (truth["schema"], truth["fps"], truth["width"], truth["height"], truth["seed"]) == (1, 5, 160, 96, 2)
    video = cv2.VideoCapture(str(tmp_path / "s.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == len(truth["frames"]) == 15
    listed = {one["object_id"] for one in truth["objects"]}
    assert listed == {one["object_id"] for frame in truth["frames"] for one in frame}
    assert all(one["label"] for one in truth["objects"])


def test_unwritable_video_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        write_stream(tmp_path / "missing" / "s.mp4", 2, catalogue(), 160, 96, 5, 1)
