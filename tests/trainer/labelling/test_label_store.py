"""Labels of a folder: edits survive crashes, confirmed boxes are never replaced, the queue is sorted."""

from __future__ import annotations

import csv
import json

import pytest

from edge.errors import TrainError
from tests.dataset_formats import samples
from trainer.data.dataset import read_scenes
from trainer.labelling.label_file import LabelledPicture
from trainer.labelling.label_store import EDITS_FILE, LABELS_FILE, compare_boxes, open_label_store
from trainer.labelling.proposals import Proposal


def box(x0, y0, x1, y1, source="proposer", category="object") -> Proposal:
    return Proposal((x0, y0, x1, y1), 0.8, source, {"edge": 0.5}, category)


def book_of(folder, count=3):
    store = open_label_store(folder)
    for number in range(count):
        store.propose(
            LabelledPicture(f"{number}.png", 100, 80, (box(10, 10, 50, 50),), "proposed", number / 10, "weak box")
        )
    store.save()
    return store


def test_saved_store_is_read_back_unchanged(tmp_path):
    store = book_of(tmp_path)
    assert open_label_store(tmp_path) == store


def test_edit_survives_a_crash_before_saving(tmp_path):
    book_of(tmp_path).confirm("1.png", [box(12, 10, 50, 50)])
    after = open_label_store(tmp_path).pictures["1.png"]
    assert (after.state, after.boxes[0].box_px, after.boxes[0].source) == ("human", (12, 10, 50, 50), "human")


def test_truncated_line_loses_only_itself(tmp_path):
    store = book_of(tmp_path)
    store.confirm("0.png", [])
    with (tmp_path / EDITS_FILE).open("a") as file:
        file.write('{"picture": "1.png", "aft')
    again = open_label_store(tmp_path)
    again.confirm("2.png", [box(0, 0, 9, 9)])
    states = {name: one.state for name, one in open_label_store(tmp_path).pictures.items()}
    assert states == {"0.png": "human", "1.png": "proposed", "2.png": "human"}


def test_concurrent_edits_are_both_kept(tmp_path):
    book_of(tmp_path)
    one, other = open_label_store(tmp_path), open_label_store(tmp_path)
    one.confirm("0.png", [])
    other.confirm("1.png", [])
    one.save()
    other.save()
    assert [waiting.name for waiting in open_label_store(tmp_path).queue()] == ["2.png"]


def test_proposal_never_replaces_confirmed_boxes(tmp_path):
    store = book_of(tmp_path)
    store.confirm("0.png", [box(1, 2, 3, 4)])
    store.propose(LabelledPicture("0.png", 100, 80, (box(50, 50, 60, 60),)))
    assert store.pictures["0.png"].boxes[0].box_px == (1, 2, 3, 4)


def test_queue_is_sorted_by_uncertainty_and_written(tmp_path):
    store = book_of(tmp_path)
    store.confirm("1.png", [])
    store.save()
    with (tmp_path / "queue.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["picture"] for row in rows] == ["2.png", "0.png"] == [one.name for one in store.queue()]
    assert store.write_batch(tmp_path / "next.json", 1) == 1
    assert [image["file_name"] for image in json.loads((tmp_path / "next.json").read_text())["images"]] == ["2.png"]


def test_detector_trains_only_on_confirmed_pictures(tmp_path):
    store = book_of(tmp_path, 12)
    for number in range(12):
        samples.picture(tmp_path / f"{number}.png", number, 100, 80)
    for number in range(6):
        store.confirm(f"{number}.png", [box(10, 10, 30, 40)])
    store.save()
    train, _ = read_scenes(tmp_path / LABELS_FILE, splits=["train"])
    val, _ = read_scenes(tmp_path / LABELS_FILE, splits=["val"])
    assert [scene.path.name for scene in train] == ["0.png", "1.png", "2.png", "3.png", "5.png"]
    assert [scene.path.name for scene in val] == ["4.png"]
    assert train[0].path == tmp_path / "0.png"
    assert train[0].boxes_px.tolist() == [[10, 10, 30, 40]]


def test_picture_edited_again_stays_in_its_split(tmp_path):
    store = book_of(tmp_path, 6)
    for number in range(6):
        samples.picture(tmp_path / f"{number}.png", number, 100, 80)
    for number in (0, 1, 2, 3, 4, 5, 0):
        store.confirm(f"{number}.png", [box(10, 10, 30, 40)])
    store.save()
    assert [scene.path.name for scene in read_scenes(tmp_path / LABELS_FILE, splits=["val"])[0]] == ["4.png"]
    assert store.confirmations == 7


def test_edit_counts_kept_moved_added_and_removed_boxes():
    before = [box(0, 0, 10, 10), box(20, 0, 30, 10), box(40, 0, 50, 10)]
    edit = compare_boxes(before, [box(0, 0, 10, 10), box(20, 0, 30, 5), box(70, 0, 80, 10)])
    assert edit.overlaps == pytest.approx((1.0, 0.5))
    assert (edit.untouched, edit.added, edit.removed) == (1, 1, 1)


def test_boxes_are_clipped_and_empty_ones_rejected(tmp_path):
    store = book_of(tmp_path)
    store.confirm("0.png", [box(-5, 70, 120, 90)])
    assert store.pictures["0.png"].boxes[0].box_px == (0, 70, 100, 80)
    before = (tmp_path / EDITS_FILE).read_bytes()
    for wrong in (box(5, 5, 5, 9), box(200, 0, 300, 10), box(float("nan"), 0, 9, 9)):
        with pytest.raises(TrainError, match=r"1\.png: box \[.* has no area"):
            store.confirm("1.png", [wrong])
    with pytest.raises(TrainError, match=r"'9\.png' is not one of its"):
        store.confirm("9.png", [])
    assert (tmp_path / EDITS_FILE).read_bytes() == before


@pytest.mark.parametrize("text", ['{"images": 3}', "{", "7", "[]", "{}"])
def test_file_without_labels_is_rejected(tmp_path, text):
    (tmp_path / LABELS_FILE).write_text(text)
    with pytest.raises(TrainError, match=r"labels\.json: not a label file"):
        open_label_store(tmp_path)


@pytest.mark.parametrize(
    ("key", "number", "changed", "left"),
    [
        ("images", 1, {"width": "100"}, ["0.png", "2.png"]),
        ("images", 1, {"state": "perhaps"}, ["0.png", "2.png"]),
        ("images", 1, {"uncertainty": None}, ["0.png", "2.png"]),
        ("images", 1, {"id": []}, ["0.png", "2.png"]),
        ("annotations", 1, {"bbox": [1, 2, float("nan"), 4]}, ["0.png", "1.png", "2.png"]),
        ("annotations", 1, {"bbox": [1, 2]}, ["0.png", "1.png", "2.png"]),
        ("annotations", 1, {"source": "nobody"}, ["0.png", "1.png", "2.png"]),
        ("annotations", 1, {"category_id": 77}, ["0.png", "1.png", "2.png"]),
        ("annotations", 1, {"reasons": 3}, ["0.png", "1.png", "2.png"]),
    ],
)
def test_damaged_record_loses_only_itself(tmp_path, caplog, key, number, changed, left):
    book_of(tmp_path)
    tree = json.loads((tmp_path / LABELS_FILE).read_text())
    tree[key][number] |= changed
    (tmp_path / LABELS_FILE).write_text(json.dumps(tree))
    store = open_label_store(tmp_path)
    assert list(store.pictures) == left
    assert [len(store.pictures[name].boxes) for name in ("0.png", "2.png")] == [1, 1]
    assert f"left out {key[:-1]} 2" in caplog.text


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe{", b'{"picture": 3, "before": [], "after": []}', b'{"picture": "0.png"}', b"[]"]
)
def test_damaged_edit_loses_only_itself(tmp_path, caplog, damage):
    book_of(tmp_path).confirm("1.png", [])
    with (tmp_path / EDITS_FILE).open("ab") as file:
        file.write(damage + b"\n")
    open_label_store(tmp_path).confirm("2.png", [])
    assert [waiting.name for waiting in open_label_store(tmp_path).queue()] == ["0.png"]
    assert "line 2 is damaged" in caplog.text


def test_name_that_is_no_utf8_is_saved_and_read(tmp_path):
    store = open_label_store(tmp_path)
    store.propose(LabelledPicture("caf\udce9.jpg", 100, 80, (box(10, 10, 50, 50),)))
    store.save()
    assert list(open_label_store(tmp_path).pictures) == ["caf\udce9.jpg"]
    assert "caf\\udce9.jpg" in (tmp_path / "queue.csv").read_text()
