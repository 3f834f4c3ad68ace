"""Boxes from other tools: what a person answered is confirmed, and nothing else."""

from __future__ import annotations

import contextlib
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import DataError, FinesightError
from tests.dataset_formats import samples as layouts
from tests.trainer.damaged import damaged_json, damaged_text, few_examples, write
from trainer.labelling.imports import import_edited, read_annotations
from trainer.labelling.label_file import LabelledPicture
from trainer.labelling.label_store import LabelStore, open_label_store
from trainer.labelling.proposals import Proposal

VOC = """<annotation><filename>a.jpg</filename><size><width>200</width><height>400</height><depth>3</depth></size>
<object><name>card</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>30</xmax><ymax>60</ymax></bndbox></object>
</annotation>"""
CVAT = """<annotations><version>1.1</version><image id="0" name="in/a.jpg" width="200" height="400">
<box label="card" source="manual" occluded="0" xtl="10" ytl="20" xbr="30" ybr="60" z_order="0"></box></image>
</annotations>"""


def coco(*images: dict[str, Any], boxes: dict[int, list] | None = None) -> dict[str, Any]:
    given_boxes = {1: [[10, 20, 20, 40]]} if boxes is None else boxes
    annotations = [
        {"id": 10 * image + n, "image_id": image, "category_id": 9, "bbox": box}
        for image, listed in given_boxes.items()
        for n, box in enumerate(listed)
    ]
    listed = [{"id": 1, "file_name": "in/a.jpg", "width": 200, "height": 400}] if not images else list(images)
    return {"images": listed, "annotations": annotations, "categories": [{"id": 9, "name": "card"}]}


def image(number: int, name: str, width: int = 200, height: int = 400) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": width, "height": height}


def result(x=5, **changed) -> dict[str, Any]:
    value = {"x": x, "y": 5, "width": 10, "height": 10, "rotation": 0, "rectanglelabels": ["card"]}
    about = {"type": "rectanglelabels", "original_width": 200, "original_height": 400, "image_rotation": 0, "id": "r"}
    return about | {"value": value} | changed


def studio(*results, name="/data/local-files/?d=in/a.jpg", **changed) -> dict[str, Any]:
    return {"id": 1, "data": {"image": name}, "annotations": [{"result": list(results)} | changed]}


MIN = [{"image": "in/a.jpg", "id": 1, "annotation_id": 1, "label": [result()["value"] | {"original_width": 200}]}]
MIN[0]["label"][0]["original_height"] = 400


def store_of(tmp_path, *names: str) -> LabelStore:
    store = open_label_store(tmp_path / "labels")
    for name in names or ("../p/in/a.jpg", "../p/b.jpg"):
        proposal = Proposal((10, 20, 30, 60), 0.5, "proposer", {"edge": 0.5}, "card")
        store.propose(LabelledPicture(name, 200, 400, (proposal,), "proposed", 0.5, "weak box"))
    store.save()
    return store


def confirmed(store: LabelStore) -> dict[str, list[tuple]]:
    human = (one for one in store.pictures.values() if one.state == "human")
    return {one.name: [(box.category, *box.box_px) for box in one.boxes] for one in human}


def written(tmp_path, contents: Any, name: str = "edited.json"):
    text = contents if isinstance(contents, str) else json.dumps(contents)
    (tmp_path / name).write_text(text)
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("a.xml", VOC),
        ("a.xml", CVAT),
        ("annotations", CVAT),  # the format is known by the contents
        ("a.json", coco()),
        ("a.json", [studio(result())]),
        ("a.json", MIN),
    ],
    ids=["VOC", "CVAT", "CVAT without suffix", "COCO", "Label Studio", "JSON-MIN"],
)
def test_same_box_is_imported_from_every_format(tmp_path, name, contents):
    store = store_of(tmp_path)
    done = import_edited(store, written(tmp_path, contents, name))
    assert confirmed(store) == {"../p/in/a.jpg": [("card", 10, 20, 30, 60)]}
    assert done.report() == {
        "pictures": 1,
        "boxes": 1,
        "left_out": 0,
        "noticed": 0,
        "proposed": 1,
        "untouched": 1,
        "added": 0,
        "removed": 0,
        "mean_overlap": 1.0,
    }


def test_byte_order_marks_are_read(tmp_path):
    for number, encoding in enumerate(("utf-8-sig", "utf-16")):
        store = store_of(tmp_path / f"{number}")
        (tmp_path / "a.json").write_bytes(json.dumps(coco()).encode(encoding))
        assert import_edited(store, tmp_path / "a.json").boxes == 1


def test_folder_of_voc_files_is_imported(tmp_path):
    folder = tmp_path / "voc"
    folder.mkdir()
    written(folder, VOC, "a.xml")
    written(folder, "<annotation><filename>b.jpg</filename></annotation>", "b.xml")
    store = store_of(tmp_path)
    import_edited(store, folder)
    assert confirmed(store) == {"../p/in/a.jpg": [("card", 10, 20, 30, 60)], "../p/b.jpg": []}


@pytest.mark.parametrize(("name", "contents"), [("instances.json", coco()), ("annotations.xml", CVAT)])
def test_folder_of_one_export_is_imported(tmp_path, name, contents):
    (tmp_path / "export").mkdir()
    written(tmp_path / "export", contents, name)
    assert import_edited(store_of(tmp_path), tmp_path / "export").boxes == 1


def test_uploads_of_label_studio_match_whatever_the_format(tmp_path):
    for number, contents in enumerate(
        ([studio(result(), name="/data/upload/3/1a2b3c4d-a.jpg")], coco(image(1, "images/1a2b3c4d-a.jpg")))
    ):
        store = store_of(tmp_path / f"{number}")
        import_edited(store, written(tmp_path, contents))
        assert list(confirmed(store)) == ["../p/in/a.jpg"]


def test_unknown_pictures_are_left_out_and_the_others_imported(tmp_path, caplog):
    store = store_of(tmp_path, "../p/in/a.jpg", "../p/x/c.jpg", "../p/y/c.jpg")
    images = [image(1, "in/a.jpg"), image(2, "elsewhere.jpg"), image(3, "c.jpg")]
    with caplog.at_level(logging.WARNING):
        done = import_edited(store, written(tmp_path, coco(*images)))
    assert list(confirmed(store)) == ["../p/in/a.jpg"]
    assert done.report()["left_out"] == 2
    assert "edited.json: elsewhere.jpg: no picture has this name" in caplog.messages[0]
    assert "edited.json: c.jpg: 2 pictures have this name" in caplog.messages[1]


def test_two_names_for_one_picture_are_left_out(tmp_path):
    store = store_of(tmp_path)
    images = [image(1, "1a2b3c4d-a.jpg"), image(2, "5e6f7a8b-a.jpg"), image(3, "b.jpg")]
    done = import_edited(store, written(tmp_path, coco(*images)))
    assert list(confirmed(store)) == ["../p/b.jpg"]
    assert ["2 names mean ../p/in/a.jpg" in line for line in done.left_out] == [True, True]


def test_box_outside_its_picture_is_left_out_and_the_others_imported(tmp_path):
    boxes = {1: [[10, 20, 20, 40], [500, 20, 20, 40]], 2: [[-90, 20, 20, 40]]}
    store = store_of(tmp_path)
    done = import_edited(store, written(tmp_path, coco(image(1, "in/a.jpg"), image(2, "b.jpg"), boxes=boxes)))
    assert confirmed(store) == {"../p/in/a.jpg": [("card", 10, 20, 30, 60)]}
    assert any("in/a.jpg" in line or "annotation" in line for line in done.left_out)
    assert any("b.jpg" in line for line in done.left_out)


def test_box_across_the_edge_is_cut_and_told(tmp_path):
    store = store_of(tmp_path)
    done = import_edited(store, written(tmp_path, [studio(result(x=-5))]))
    assert confirmed(store) == {"../p/in/a.jpg": [("card", 0, 20, 10, 60)]}
    assert done.noticed == ["pictures whose boxes were cut at their edge: 1 (in/a.jpg)"]


@pytest.mark.parametrize("half", [coco(image(1, "a.jpg", 100, 200), boxes={1: [[5, 10, 10, 20]]}), [studio(result())]])
def test_boxes_of_a_resized_picture_are_scaled_and_told(tmp_path, half):
    if isinstance(half, list):
        half[0]["annotations"][0]["result"][0] |= {"original_width": 100, "original_height": 200}
    store = store_of(tmp_path)
    done = import_edited(store, written(tmp_path, half))
    assert confirmed(store) == {"../p/in/a.jpg": [("card", 10, 20, 30, 60)]}
    assert "annotated in another size" in done.noticed[0]


def test_boxes_of_a_picture_of_another_shape_are_left_out(tmp_path):
    images = [image(1, "a.jpg", 400, 200), image(2, "b.jpg")]
    store = store_of(tmp_path)
    done = import_edited(store, written(tmp_path, coco(*images)))
    assert list(confirmed(store)) == ["../p/b.jpg"]
    assert "was annotated as 400 x 200, and ../p/in/a.jpg is 200 x 400" in done.left_out[0]


def test_size_of_the_picture_is_known_to_label_studio_results_without_one(tmp_path):
    bare = {key: value for key, value in result().items() if not key.startswith("original")}
    store = store_of(tmp_path)
    import_edited(store, written(tmp_path, [studio(bare)]))
    assert confirmed(store) == {"../p/in/a.jpg": [("card", 10, 20, 30, 60)]}


def test_picture_without_an_answer_stays_as_proposed(tmp_path):
    tasks = [studio(result(), was_cancelled=True), studio(name="b.jpg")]
    store = store_of(tmp_path)
    done = import_edited(store, written(tmp_path, tasks))
    assert confirmed(store) == {"../p/b.jpg": []}
    assert store.pictures["../p/in/a.jpg"].state == "proposed"
    assert (len(done.left_out), len(done.noticed)) == (1, 1)


@pytest.mark.parametrize(
    "contents",
    [
        [studio(result(), was_cancelled=True)],
        [studio(result(value={}))],
        coco(boxes={1: [[]]}),
        coco(image(1, "elsewhere.jpg")),
        {"images": [], "annotations": [], "categories": []},
    ],
)
def test_file_that_confirms_nothing_is_rejected(tmp_path, contents):
    store = store_of(tmp_path)
    with pytest.raises(DataError, match=r"edited\.json"):
        import_edited(store, written(tmp_path, contents))
    assert confirmed(store) == {}


@pytest.mark.parametrize(
    "text", ["", "7", "image,label\na.jpg,can\n", "0 0.5 0.5 0.1 0.1", '{"a": 1}', "[]", '{"images": 3}']
)
def test_other_formats_are_rejected_with_what_to_export(tmp_path, text):
    with pytest.raises(DataError, match=r"edited\.json: .*(export|COCO)"):
        read_annotations(written(tmp_path, text))


def test_archives_missing_files_and_folders_of_nothing_are_rejected(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="unpack it"):
        read_annotations(tmp_path / "a.zip")
    with pytest.raises(DataError, match="cannot read"):
        read_annotations(tmp_path / "absent.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        read_annotations(tmp_path / "empty")


def test_folder_of_several_exports_is_rejected(tmp_path):
    (tmp_path / "many").mkdir()
    for name in ("a.json", "b.json"):
        written(tmp_path / "many", coco(), name)
    with pytest.raises(DataError, match="several annotation files"):
        read_annotations(tmp_path / "many")


def test_name_that_is_no_utf8_is_imported_and_told(tmp_path, caplog):
    store = store_of(tmp_path, "../p/caf\udce9.jpg")
    import_edited(store, written(tmp_path, coco(image(1, "caf\udce9.jpg"), image(2, "th\udce9.jpg"))))
    assert list(confirmed(store)) == ["../p/caf\udce9.jpg"]
    assert "th\\udce9.jpg: no picture" in "".join(caplog.messages)


@few_examples
@given(text=st.one_of(damaged_json(coco()), damaged_json([studio(result())]), damaged_json(MIN), st.just("[" * 9999)))
def test_any_json_is_imported_or_rejected(tmp_path, text):
    with contextlib.suppress(FinesightError):
        read_annotations(written(tmp_path, text))


@few_examples
@given(
    text=st.one_of(
        damaged_text(layouts.VOC.format(name="a", objects=layouts.OBJECT.format("ace", 4, 2, 24, 12))),
        damaged_text(CVAT),
    )
)
def test_any_xml_is_imported_or_rejected(tmp_path, text):
    write(tmp_path / "a.xml", text)
    with contextlib.suppress(FinesightError):
        read_annotations(tmp_path / "a.xml")


def test_folder_without_json_or_xml_says_what_to_export(tmp_path):
    (tmp_path / "yolo").mkdir()
    written(tmp_path / "yolo", "0 0.5 0.5 0.1 0.1", "a.txt")
    with pytest.raises(DataError, match=r"holds no JSON or XML; export COCO.*not CSV, TSV, YOLO"):
        read_annotations(tmp_path / "yolo")
