"""What is exported is read again by other tools, and imported to the same boxes."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_formats.yolo.reader import read_yolo
from edge.errors import TrainError
from tests.dataset_formats import samples
from tests.trainer.damaged import few_examples
from trainer.labelling.exports import export_labels, short_names
from trainer.labelling.imports import import_edited
from trainer.labelling.label_file import LabelledPicture
from trainer.labelling.label_store import LABELS_FILE, LabelStore, open_label_store
from trainer.labelling.proposals import Proposal

WIDTH, HEIGHT = 320, 240
FILES = {"coco": "a.json", "voc": "voc", "cvat": "a.xml", "label-studio": "a.json", "yolo": "yolo"}
NAMES = ["../p/can/a.jpg", "../p/jar/a.jpg", "../p/jar/b é.png", "../p/c.jpg"]


def proposal(x0=10.0, y0=20.0, x1=30.0, y1=60.0, category="can") -> Proposal:
    return Proposal((x0, y0, x1, y1), 0.5, "proposer", {"edge": 0.5}, category)


def store_of(folder: Path, boxes: dict[str, list[Proposal]], confirm: tuple[str, ...] = ()) -> LabelStore:
    store = open_label_store(folder)
    for name, listed in boxes.items():
        store.propose(LabelledPicture(name, WIDTH, HEIGHT, tuple(listed), "proposed", 0.5, "weak box"))
    for name in confirm:
        store.confirm(name, boxes[name])
    store.save()
    return store


def submit(path: Path) -> None:
    """Do what Label Studio does when a person submits the predictions of its tasks."""
    tasks = json.loads(path.read_text())
    for task in tasks:
        task["annotations"] = task.pop("predictions", task.get("annotations"))
    path.write_text(json.dumps(tasks))


@st.composite
def stores(draw: st.DrawFn) -> dict[str, list[Proposal]]:
    """Boxes as the store keeps them: two decimals, two pixels at least, inside the picture."""
    drawn = {}
    for name in NAMES:
        boxes = {}
        for _ in range(draw(st.integers(0, 3))):
            x0, y0 = draw(st.integers(0, 100 * (WIDTH - 3))), draw(st.integers(0, 100 * (HEIGHT - 3)))
            x1, y1 = draw(st.integers(x0 + 200, 100 * WIDTH)), draw(st.integers(y0 + 200, 100 * HEIGHT))
            category = draw(st.sampled_from(["can", "jar of <honey> & Co", "Käse", "no", "1"]))
            boxes[x0, y0, x1, y1] = proposal(x0 / 100, y0 / 100, x1 / 100, y1 / 100, category)
        drawn[name] = list(boxes.values())
    return drawn


def named(boxes: tuple[Proposal, ...] | list[Proposal]) -> list[tuple]:
    return sorted((box.category, *(round(side, 2) for side in box.box_px)) for box in boxes)


@pytest.mark.parametrize("kind", ["coco", "voc", "cvat", "label-studio"])
@settings(few_examples, max_examples=25)
@given(boxes=stores())
def test_exported_boxes_are_imported_again(kind, boxes):
    with tempfile.TemporaryDirectory() as place:
        target = Path(place) / FILES[kind]
        export_labels(store_of(Path(place) / "first", boxes, (NAMES[1],)), kind, target)
        if kind == "label-studio":
            submit(target)
        second = store_of(Path(place) / "second", {name: [] for name in NAMES})
        done = import_edited(second, target)
        assert (len(done.edits), done.left_out) == (len(NAMES), [])
        assert {name: named(one.boxes) for name, one in second.pictures.items()} == {
            name: named(listed) for name, listed in boxes.items()
        }


@settings(few_examples, max_examples=25)
@given(boxes=stores())
def test_boxes_exported_to_yolo_are_read_again(boxes):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "yolo"
        export_labels(store_of(Path(place) / "labels", boxes), "yolo", folder)
        if not any(boxes.values()):
            return  # no class, and so no YOLO
        for number, name in enumerate(NAMES):
            samples.picture(folder / "images" / name.removeprefix("../p/"), number, WIDTH, HEIGHT)
        listing = read_yolo(folder)
        read = {
            scene.path.relative_to(folder / "images").as_posix(): sorted(
                (box.item, *(round(side, 2) for side in box.box_px)) for box in scene.boxes
            )
            for scene in listing.scenes
        }
        assert read == {name.removeprefix("../p/"): named(listed) for name, listed in boxes.items()}


@pytest.mark.parametrize("kind", FILES)
def test_export_says_which_pictures_are_confirmed(tmp_path, kind):
    boxes = {name: [proposal()] for name in NAMES}
    report = export_labels(store_of(tmp_path / "labels", boxes, (NAMES[1],)), kind, tmp_path / FILES[kind])
    assert report == {"pictures": 4, "boxes": 4, "confirmed": 1, "to": str(tmp_path / FILES[kind])}
    told = tmp_path / FILES[kind]
    if kind == "coco":
        states = {one["file_name"]: one["state"] for one in json.loads(told.read_text())["images"]}
        assert [name for name, state in states.items() if state == "human"] == ["jar/a.jpg"]
    elif kind == "label-studio":
        tasks = json.loads(told.read_text())
        assert ["annotations" in task for task in tasks] == [False, True, False, False]
        assert tasks[0]["predictions"][0]["result"][0]["score"] == 0.5
    elif kind == "cvat":
        assert told.read_text().count('source="manual"') == 1
        assert told.read_text().count('source="auto"') == 3
    else:
        rows = list(csv.DictReader((told / "states.csv").read_text().splitlines()))
        assert [row["picture"] for row in rows if row["state"] == "confirmed"] == ["jar/a.jpg"]


def test_proposals_exported_to_label_studio_confirm_nothing(tmp_path):
    store = store_of(tmp_path / "labels", {name: [proposal()] for name in NAMES}, (NAMES[1],))
    export_labels(store, "label-studio", tmp_path / "tasks.json")
    import_edited(store, tmp_path / "tasks.json")
    assert [one.name for one in store.pictures.values() if one.state == "human"] == [NAMES[1]]


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["../p/can/a.jpg", "../p/jar/a.jpg"], ["can/a.jpg", "jar/a.jpg"]),
        (["../p/a.jpg", "../p/can/a.jpg"], ["p/a.jpg", "p/can/a.jpg"]),  # a.jpg alone could be either
        (["../p/a.jpg"], ["a.jpg"]),
        (["a.jpg", "can/a.jpg"], ["a.jpg", "can/a.jpg"]),
        (["../a.jpg", "../can/a.jpg"], ["../a.jpg", "../can/a.jpg"]),
    ],
)
def test_short_names_mean_one_picture_each(names, short):
    assert list(short_names(names).values()) == short


def test_export_never_overwrites_the_label_folder(tmp_path):
    store = store_of(tmp_path, {"a.jpg": [proposal()]})
    before = (tmp_path / LABELS_FILE).read_bytes()
    for kind, target in (("coco", tmp_path / LABELS_FILE), ("voc", tmp_path)):
        with pytest.raises(TrainError, match="belongs to the label folder"):
            export_labels(store, kind, target)
    assert (tmp_path / LABELS_FILE).read_bytes() == before


def test_export_of_an_empty_folder_is_rejected(tmp_path):
    with pytest.raises(TrainError, match="propose boxes first"):
        export_labels(open_label_store(tmp_path), "coco", tmp_path / "a.json")
