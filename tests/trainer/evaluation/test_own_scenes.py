"""Shopping lists of scenes with named boxes, read by the demo's bundle."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dataset_formats.coco.reader import write_coco
from dataset_formats.records import Annotation, NamedBox
from edge.imaging.image import encode_image
from edge.types import Match
from trainer.cli import main
from trainer.data.pictures import Pictures
from trainer.evaluation import own_scenes
from trainer.evaluation.checkout_scenes import render_scenes
from trainer.evaluation.own_scenes import match_names
from trainer.evaluation.shopping_lists import DetectedObject, ReadScene, TrueObject, match_objects, measure_lists
from trainer.synthetic.items import catalogue

DEMO = Path(__file__).parents[3] / "demo"
BUNDLE = ["--bundle", str(DEMO / "bundle"), "--bundle-gallery", str(DEMO / "gallery")]


def write_scenes(folder, *, named=True):
    """An easy scene, a hard one, one whose box is outside and a damaged one; the gallery lacks the first box's name."""
    listed = []
    for level in ("easy", "hard"):
        (scene,) = render_scenes(level, 1, 3, catalogue())
        names = [one.item_id if named else "object" for one in scene.objects]
        names[0] = "never seen" if level == "easy" else names[0]
        boxes = tuple(
            NamedBox(tuple(map(float, one.box_px)), name, visible=one.visible_fraction)
            for one, name in zip(scene.objects, names, strict=True)
        )
        (folder / f"{level}.jpg").write_bytes(encode_image(scene.image_rgb, ".jpg", 95))
        listed.append(Annotation(f"{level}.jpg", boxes, level=level))
    (folder / "outside.jpg").write_bytes((folder / "easy.jpg").read_bytes())
    listed.append(Annotation("outside.jpg", (NamedBox((9e3, 0.0, 9.1e3, 50.0), names[1]),), level="easy"))
    (folder / "torn.jpg").write_bytes(b"\xff\xd8")
    listed.append(Annotation("torn.jpg", listed[0].boxes, level="easy"))
    write_coco(listed, [], folder / "scenes.json")


def test_bundle_reads_the_lists_of_own_scenes(tmp_path, capsys):
    write_scenes(tmp_path)
    out = tmp_path / "report.json"
    assert main(["evaluate", *BUNDLE, "--scenes", str(tmp_path / "scenes.json"), "-o", str(out)]) == 0
    tables = json.loads(capsys.readouterr().out)["own_scenes"]
    assert list(tables) == ["INT8", "FP32"]
    table = tables["INT8"]
    assert list(table) == ["easy", "hard", "all"]
    assert (table["all"]["scenes"], table["all"]["unreadable"]) == (2, 2)
    assert table["easy"]["cAcc"]["mean"] == 0.0  # one of its objects is of no item of the gallery
    assert table["all"]["known"]["identified"] > 0.7
    assert table["all"]["by_item"]["never seen"]["map50"] == 0.0
    assert 0.7 < table["all"]["item_map50"] < 1.0
    page, text = (out.with_suffix(ending).read_text() for ending in (".html", ".md"))
    assert "1 items that the gallery lacks" in text
    assert "Boxes of each item, mmAP" in text
    assert "never seen" in page


def test_scenes_without_item_names_are_refused_with_the_names(tmp_path, capsys):
    write_scenes(tmp_path, named=False)
    assert main(["evaluate", *BUNDLE, "--scenes", str(tmp_path / "scenes.json")]) == 1
    assert "none of its boxes is named as an item" in capsys.readouterr().err
    assert main(["evaluate", *BUNDLE[:2], "--scenes", str(tmp_path / "scenes.json")]) == 1
    assert "--scenes needs --detector, or --bundle and --bundle-gallery" in capsys.readouterr().err


def test_names_match_items_first_then_labels():
    labels = {"a1": "Ale", "jam": "Fig jam", "x": "a1"}
    assert match_names(["a1", "ALE", "fig JAM", "tea"], labels) == {
        "a1": "a1",
        "ALE": "a1",
        "fig JAM": "jam",
        "tea": "tea",
    }


def test_label_of_several_items_is_noticed(tmp_path, monkeypatch):
    items = SimpleNamespace(item_ids=("ale-1", "ale-2", "jam"), labels=("Ale", "ale", "Jam"))
    monkeypatch.setattr(own_scenes, "stored_items", lambda *_: [("bottle", None, items)])
    write_scenes(tmp_path)
    boxes = tuple(NamedBox((0.0, 0.0, 9.0, 9.0), name) for name in ("ALE", "jam", "ale-2"))
    write_coco([Annotation("easy.jpg", boxes), Annotation("hard.jpg", ())], [], tmp_path / "scenes.json")
    scenes = own_scenes.read_own_scenes(tmp_path, tmp_path, tmp_path / "scenes.json", None, None)
    assert scenes.item_of == {"ALE": "ale-1", "jam": "jam", "ale-2": "ale-2"}
    (line,) = scenes.noticed
    assert line.startswith("1 names of boxes are the label of several items")
    assert "ALE" in line
    shown = [scenes.shown(one, np.zeros((20, 20, 3), np.uint8), Pictures()) for one in scenes.pictures]
    assert [len(objects) for objects in shown] == [3, 0]  # a picture of nothing is a scene, too


def test_true_object_is_matched_once_by_the_best_box():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]], np.float32)
    truth = np.array([[20, 20, 30, 30], [0, 0, 10, 10]], np.float32)
    assert match_objects(boxes, truth) == {1: 0}
    assert match_objects(boxes[:0], truth) == {}


def test_lists_hold_found_items_that_no_picture_shows():
    ale, tea = (Match(name, name, 0.9, 0.2, 0.8) for name in ("ale", "tea"))
    boxes = [(0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0)]
    detected = [DetectedObject(box, 0.9, [], {}) for box in boxes]
    scene = ReadScene(
        [TrueObject(boxes[0], "ale"), TrueObject((50.0, 0.0, 60.0, 9.0), "jam")], detected, [ale, tea], []
    )
    table = measure_lists([ReadScene(scene.shown, detected, [ale, tea], [ale, tea])], {"ale", "jam"}, 0)
    assert table["ACD"]["mean"] == 2.0  # a tea too many, a jam too few
    assert table["mCIoU"] == pytest.approx(1 / 3)
    assert table["known"] == {"identified": 0.5, "wrong": 0.0, "unknown": 0.0, "missed": 0.5}
    assert table["by_item"] == {
        "ale": {"map50": 1.0, "map50_95": 1.0, "objects": 1.0},
        "jam": {"map50": 0.0, "map50_95": 0.0, "objects": 1.0},
    }
