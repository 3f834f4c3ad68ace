"""What is exported comes back: boxes, classes, identities, and who said so."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from console.exchange.exports import FORMS, export_set
from console.exchange.imports import find_import, read_import, receive, take_import
from console.exchange.plans import Wishes
from console.sets.crops import NewBox
from dataset_formats.yolo.reader import read_yolo
from tests.console_box_samples import boxes_in, confirm, made_set, propose, set_of, write_pictures

NAMES = ("left/a b.png", "left/c.png", "right/c.png", "right/none.png", "open.png")
READ_BACK = [form for form in FORMS if form != "yolo"]


@pytest.fixture
def pictures(services, tmp_path):
    """Two pictures with boxes of people, one without an object, and proposals for the last one."""
    found = made_set(services, tmp_path / "set", NAMES)
    confirm(services, found[0], NewBox(None, (10.5, 10, 60, 50.25), category="card"), NewBox(None, (100, 20, 150, 90)))
    confirm(services, found[1], NewBox(None, (0, 0, 200, 120), category="can", item="7up", decided_by="ann"))
    confirm(services, found[2], NewBox(None, (5, 6, 70, 80), category="can", item="cola", decided_by="ann"))
    confirm(services, found[3])
    propose(services, found[4], (30, 30, 90, 90), score=0.75)
    return found


def exported(services, picture_id, form, names="class"):
    with services.database.read() as rows:
        return export_set(rows, set_of(services, picture_id), form, names)


def read(services, tmp_path, set_id, data: bytes, name: str, wishes=Wishes()):  # noqa: B008  frozen
    path = tmp_path / "sent"
    path.write_bytes(data)
    import_id = receive(services.settings, 5.0, path)
    read_import(services.database, services.settings, 5.0, "ann", set_id, import_id, name, wishes)
    return find_import(services.settings, set_id, import_id)


def take(services, found):
    return take_import(services.database, services.settings, 6.0, "ann", found, lambda *_: None)


def everything(services, picture_ids):
    query = "SELECT x0, y0, x1, y1, category, item FROM crops WHERE picture_id = ? ORDER BY x0"
    with services.database.read() as rows:
        boxes = [
            [(*(round(side, 3) for side in row[:4]), *row[4:]) for row in map(tuple, rows.execute(query, (one,)))]
            for one in picture_ids
        ]
        states = [rows.execute("SELECT boxes FROM pictures WHERE id = ?", (one,)).fetchone()[0] for one in picture_ids]
    return boxes, states


@pytest.mark.parametrize("form", READ_BACK)
def test_what_was_exported_changes_nothing(services, pictures, tmp_path, form):
    made = exported(services, pictures[0], form)
    found = read(services, tmp_path, set_of(services, pictures[0]), made.data, made.name, Wishes(replace=True))
    counts = found.plan.count()
    assert (counts["pictures"], counts["not_found"], counts["left_out"]) == (0, 0, 0)
    assert counts["unchanged"] == 5


@pytest.mark.parametrize("form", READ_BACK)
def test_another_set_gets_the_same_boxes(services, pictures, tmp_path, form):
    other = made_set(services, tmp_path / "other", NAMES, category=None)
    made = exported(services, pictures[0], form)
    found = read(services, tmp_path, set_of(services, other[0]), made.data, made.name, Wishes(empty=True))
    assert take(services, found).startswith(f"{made.name}: took the boxes of 5 pictures")
    boxes, states = everything(services, other)
    assert states == ["confirmed", "confirmed", "confirmed", "confirmed", "proposed"]
    sides = [[row[:4] for row in one] for one in boxes]
    assert sides == [
        [(10.5, 10, 60, 50.25), (100, 20, 150, 90)], [(0, 0, 200, 120)], [(5, 6, 70, 80)], [], [(30, 30, 90, 90)]
    ]  # fmt: skip
    assert [row[4] for one in boxes for row in one] == ["card", "card", "can", "can", "card"]
    if form == "coco":
        assert boxes[1][0][5] == "7up"


@pytest.mark.parametrize("form", ["coco", "label-studio", "voc"])
def test_picture_without_an_object_comes_back_unasked(services, pictures, tmp_path, form):
    other = made_set(services, tmp_path / "other", NAMES)
    made = exported(services, pictures[0], form)
    take(services, read(services, tmp_path, set_of(services, other[0]), made.data, made.name))
    assert everything(services, other)[1] == ["confirmed", "confirmed", "confirmed", "confirmed", "proposed"]


@pytest.mark.parametrize("form", READ_BACK)
def test_identities_come_back_as_expected(services, pictures, tmp_path, form):
    other = made_set(services, tmp_path / "other", NAMES, category="card")
    made = exported(services, pictures[0], form, "identity")
    found = read(services, tmp_path, set_of(services, other[0]), made.data, made.name, Wishes(names="identity"))
    take(services, found)
    boxes, _ = everything(services, other)
    assert [row[5] for one in boxes for row in one] == [None, None, "7up", "cola", None]
    with services.database.read() as rows:
        states = rows.execute("SELECT DISTINCT state FROM crops WHERE picture_id = ?", (other[1],)).fetchall()
    assert [tuple(one) for one in states] == [("open",)]  # a person confirms them in the review


def test_yolo_reads_back(services, pictures, tmp_path):
    made = exported(services, pictures[0], "yolo")
    with zipfile.ZipFile(io.BytesIO(made.data)) as archive:
        archive.extractall(tmp_path / "yolo")
    write_pictures(tmp_path / "yolo/images", NAMES)
    listing = read_yolo(tmp_path / "yolo")
    found = {str(one.path.relative_to(tmp_path / "yolo/images")): one.boxes for one in listing.scenes}
    assert {name: len(boxes) for name, boxes in found.items()} == dict(zip(NAMES, (2, 1, 1, 0, 1), strict=True))
    assert found["right/c.png"][0].box_px == pytest.approx((5, 6, 70, 80), abs=1e-4)
    assert (tmp_path / "yolo/states.csv").read_text().splitlines()[3] == "open.png,proposed"


def test_proposals_of_a_file_replace_nothing_of_people(services, pictures, tmp_path):
    cards = set_of(services, pictures[0])
    tree = json.loads(exported(services, pictures[0], "coco").data)
    for image in tree["images"]:
        image["state"] = "proposed"
    for box in tree["annotations"]:
        box |= {"bbox": [1, 1, 30, 30], "score": 0.5}
    found = read(services, tmp_path, cards, json.dumps(tree).encode(), "coco.json", Wishes(replace=True))
    assert (found.plan.count()["pictures"], found.plan.count()["kept"], found.plan.unchanged) == (1, 3, 1)
    take(services, found)
    assert boxes_in(services, pictures[1]) == [(0, 0, 200, 120)]
    assert boxes_in(services, pictures[4]) == [(1, 1, 31, 31)]


def test_confirmed_boxes_are_replaced_only_on_wish(services, pictures, tmp_path):
    cards = set_of(services, pictures[0])
    xml = exported(services, pictures[0], "cvat").data.decode().replace('xtl="5" ', 'xtl="15" ')
    kept = read(services, tmp_path, cards, xml.encode(), "boxes.xml")
    assert kept.plan.kept == ["right/c.png"]
    found = read(services, tmp_path, cards, xml.encode(), "boxes.xml", Wishes(replace=True))
    assert (found.plan.count()["moved"], found.plan.count()["unnamed"]) == (1, 0)
    take(services, found)
    assert everything(services, pictures[2:3]) == ([[(15, 6, 70, 80, "can", "cola")]], ["confirmed"])  # still named


def test_a_picture_that_was_edited_meanwhile_stays(services, pictures, tmp_path):
    cards = set_of(services, pictures[0])
    xml = (
        exported(services, pictures[0], "cvat").data.decode().replace('xtl="30"', 'xtl="20"').replace("auto", "manual")
    )
    found = read(services, tmp_path, cards, xml.encode(), "boxes.xml")
    confirm(services, pictures[4], NewBox(None, (1, 1, 9, 9)))
    assert take(services, found).endswith(
        "took the boxes of 0 pictures; 1 were changed meanwhile, and stay as they are"
    )
    assert boxes_in(services, pictures[4]) == [(1, 1, 9, 9)]


def test_names_of_other_tools_are_found(services, pictures, tmp_path):
    rectangle = {"x": 10, "y": 10, "width": 20, "height": 50, "rotation": 0, "rectanglelabels": ["can"]}
    result = {"type": "rectanglelabels", "value": rectangle, "original_width": 200, "original_height": 120}
    names = ("/data/upload/3/1a2b3c4d-open.png", "s3://shop/right/none.png", "/data/local-files/?d=elsewhere.png")
    tasks = [
        {"id": number, "data": {"image": name}, "annotations": [{"result": [result]}]}
        for number, name in enumerate(names)
    ]
    found = read(services, tmp_path, set_of(services, pictures[0]), json.dumps(tasks).encode(), "tasks.json")
    assert [one.name for one in found.plan.changes] == ["open.png"]
    assert found.plan.kept == ["right/none.png"]
    assert found.plan.not_found == ["elsewhere.png: no picture has this name"]


def test_boxes_of_a_resized_picture_are_scaled(services, pictures, tmp_path):
    tree = {
        "images": [{"id": 1, "file_name": "open.png", "width": 400, "height": 240}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 20, 100, 80]}],
        "categories": [{"id": 1, "name": "card"}],
    }
    found = read(services, tmp_path, set_of(services, pictures[0]), json.dumps(tree).encode(), "coco.json")
    assert [one.box_px for one in found.plan.changes[0].boxes] == [(10, 10, 60, 50)]


def test_every_format_says_its_type(services, pictures):
    types = {form: exported(services, pictures[0], form).media_type for form in FORMS}
    assert types["cvat"] == "application/xml"
    assert types["voc"] == "application/zip"
    assert Path(exported(services, pictures[0], "voc").name).suffix == ".zip"
