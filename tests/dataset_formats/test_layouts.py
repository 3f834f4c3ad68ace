"""Layouts: detection, the listing of each reader, and errors that name a missing file."""

from __future__ import annotations

import json
import os
from collections import Counter

import numpy as np
import pytest

from dataset_formats.layouts import find_layout, read_listing
from edge.errors import DataError, TrainError
from tests.dataset_formats import samples as layouts
from tests.dataset_formats.samples import picture
from tests.trainer.toy import write_crops, write_scenes
from trainer.data.dataset import read_samples, read_scenes
from trainer.data.pictures import load_pictures
from trainer.recipe_parts import Split


def splits(samples) -> dict[str, int]:
    return dict(Counter(sample.split for sample in samples))


def coco_set(root, roboflow: bool = False):
    """Two splits of one picture; the second has two objects and a crowd."""
    names = {3: ("cola", "can"), 5: ("milk", None)}
    for number, split in enumerate(("train", "val")):
        image = [{"id": 1, "file_name": "a.jpg", "width": 48, "height": 32, "level": "hard"}]
        boxes = [{"image_id": 1, "category_id": 5, "bbox": [4, 2, 20, 10]}]
        if number:
            boxes.append({"image_id": 1, "category_id": 3, "bbox": [30, 2, 10, 10]})
            boxes.append({"image_id": 1, "category_id": 3, "bbox": [0, 0, 48, 32], "iscrowd": 1})
        folder = root / split if roboflow else root / f"{split}2017"
        picture(folder / "a.jpg", number)
        file = folder / "_annotations.coco.json" if roboflow else root / f"annotations/instances_{split}2017.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(layouts.coco(image, boxes, names))
    return root


@pytest.mark.parametrize("roboflow", [False, True])
def test_coco_gives_scenes_and_crops(tmp_path, roboflow):
    coco_set(tmp_path, roboflow)
    assert find_layout(tmp_path) == "coco"
    scenes, names = read_scenes(tmp_path, splits=["val"], class_agnostic=False)
    assert names == ["cola", "milk"]
    assert [scene.labels.tolist() for scene in scenes] == [[1, 0]]
    assert scenes[0].level == "hard"
    samples = read_samples(tmp_path)
    assert [(s.split, s.category, s.item) for s in samples] == [
        ("train", "object", "milk"),
        ("val", "object", "milk"),
        ("val", "can", "cola"),
    ]
    assert [image.shape for image in load_pictures(samples, None).images] == [(10, 20, 3), (10, 20, 3), (10, 10, 3)]
    assert "boxes of crowds: 1, which are no single objects" in " ".join(read_listing(tmp_path).left_out)


def test_coco_annotation_with_an_unknown_reference_is_named(tmp_path):
    path = write_scenes(tmp_path, 2)
    tree = json.loads(path.read_text())
    for key, text in (("category_id", "category_id 9"), ("image_id", "image_id 9")):
        first, *others = tree["annotations"]
        path.write_text(json.dumps(tree | {"annotations": [first | {key: 9}, *others]}))
        assert text in read_listing(path).left_out[0]


def test_rpc_has_meta_categories_and_clutter_levels(tmp_path):
    names = {1: ("1_puffed_food", "puffed_food"), 2: ("2_drink", "drink")}
    for split in ("train", "val"):
        picture(tmp_path / f"{split}2019/a.jpg")
        image = [{"id": 1, "file_name": "a.jpg"} | ({"level": "easy"} if split == "val" else {})]
        boxes = [{"image_id": 1, "category_id": 2, "bbox": [4, 2, 20, 10]}]
        (tmp_path / f"instances_{split}2019.json").write_text(layouts.coco(image, boxes, names))
    assert [(s.split, s.category, s.item) for s in read_samples(tmp_path)] == [
        ("train", "drink", "2_drink"),
        ("val", "drink", "2_drink"),
    ]
    assert [scene.level for scene in read_scenes(tmp_path, splits=["val"])[0]] == ["easy"]
    assert "instances_test2019.json: not found" in read_listing(tmp_path).left_out[0]
    (tmp_path / "val2019/a.jpg").unlink()
    (tmp_path / "val2019").rmdir()
    with pytest.raises(DataError, match="val2019: not found"):
        read_listing(tmp_path)


def test_voc_of_folders_and_of_image_sets(tmp_path):
    for split in ("train", "test"):
        picture(tmp_path / "a" / split / "x.jpg")
        layouts.voc(tmp_path / "a" / split / "x.xml", ("ace", 4, 2, 24, 12), ("king", 30, 2, 40, 12))
    scenes, names = read_scenes(tmp_path / "a", splits=["test"], class_agnostic=False)
    assert (names, [scene.labels.tolist() for scene in scenes]) == (["ace", "king"], [[0, 1]])
    for stem in ("x", "y"):
        picture(tmp_path / f"b/JPEGImages/{stem}.JPG")
        layouts.voc(tmp_path / f"b/Annotations/{stem}.xml", ("ace", 4, 2, 24, 12))
    (tmp_path / "b/ImageSets/Main").mkdir(parents=True)
    (tmp_path / "b/ImageSets/Main/train.txt").write_text("x\n")
    (tmp_path / "b/ImageSets/Main/val.txt").write_text("y\n")
    assert splits(read_samples(tmp_path / "b")) == {"train": 1, "val": 1}


def test_voc_names_a_missing_picture_and_one_without_xml(tmp_path):
    picture(tmp_path / "y.jpg")
    picture(tmp_path / "z.jpg")
    layouts.voc(tmp_path / "z.xml", ("ace", 4, 2, 24, 12))
    assert "y.jpg: has no XML" in read_listing(tmp_path).left_out[0]
    layouts.voc(tmp_path / "x.xml", ("ace", 4, 2, 24, 12))
    assert "x.jpg: not found; x.xml needs its picture" in read_listing(tmp_path).left_out[0]
    (tmp_path / "z.jpg").unlink()
    with pytest.raises(DataError, match=r"x\.jpg: not found; x\.xml needs its picture"):
        read_listing(tmp_path)


def yolo_set(root, label: str = "1 0.5 0.5 0.5 0.25\n"):
    picture(root / "images/train/a.jpg")
    picture(root / "images/val/b.jpg")
    (root / "labels/train").mkdir(parents=True)
    (root / "labels/train/a.txt").write_text(label)
    return root


def test_yolo_with_data_yaml_and_a_picture_without_objects(tmp_path):
    yolo_set(tmp_path)
    (tmp_path / "data.yaml").write_text("names: {0: apple, 1: pear}\ntrain: ../images/train\nval: images/val\n")
    scenes, names = read_scenes(tmp_path, class_agnostic=False)
    assert names == ["apple", "pear"]
    assert [scene.boxes_px.tolist() for scene in scenes] == [[[12, 12, 36, 20]], []]
    assert [scene.split for scene in scenes] == ["train", "val"]
    assert scenes[0].labels.tolist() == [1]


def test_yolo_with_classes_txt_and_outlines(tmp_path):
    yolo_set(tmp_path, "0 0.25 0.25 0.5 0.25 0.5 0.75\n")
    (tmp_path / "classes.txt").write_text("apple\npear\n")
    assert read_scenes(tmp_path, splits=["train"])[0][0].boxes_px.tolist() == [[12, 8, 24, 24]]


def test_yolo_without_class_names_names_the_missing_file(tmp_path):
    yolo_set(tmp_path)
    with pytest.raises(DataError, match=r"classes\.txt: not found; add it, obj\.names or data\.yaml"):
        read_scenes(tmp_path)


def test_tagged_regions_are_fractions(tmp_path):
    picture(tmp_path / "a.jpg")
    tag = {"tag": "apple", "left": 0.25, "top": 0.25, "width": 0.5, "height": 0.5}
    (tmp_path / "boxes.json").write_text(json.dumps({"files": [{"filename": "a.jpg", "tags": [tag]}]}))
    assert read_scenes(tmp_path)[0][0].boxes_px.tolist() == [[12, 8, 36, 24]]


JSON = {
    "coco": {"images": [], "annotations": [{"bbox": [1, 2, 3, 4]}], "categories": []},
    "tags": {"files": [{"filename": "images, annotations and bbox.jpg", "tags": []}]},
    "label_studio": [{"id": 1, "data": {"image": "a.jpg"}, "annotations": []}],
}


@pytest.mark.parametrize("layout", JSON)
def test_json_is_detected_by_its_structure(tmp_path, layout):
    (tmp_path / "a.JSON").write_text(json.dumps(JSON[layout]))
    assert find_layout(tmp_path / "a.JSON") == layout


@pytest.mark.parametrize(
    ("name", "text", "layout"),
    [
        ("a.xml", "<annotations><version>1.1</version></annotations>", "cvat"),
        ("a.xml", "<annotation><!-- annotations --></annotation>", "voc"),
        ("a.csv", "path", "index"),
        ("a.TSV", "path", "index"),
        ("data.yml", "names: [a]", "yolo"),
        ("obj.data", "names = obj.names", "yolo"),
        ("cars_annos.mat", "", "cars"),
    ],
)
def test_single_file_is_detected(tmp_path, name, text, layout):
    (tmp_path / name).write_text(text)
    assert find_layout(tmp_path / name) == layout


@pytest.mark.parametrize(("name", "text"), [("a.xml", "<svg/>"), ("a.xml", "no XML"), ("a.txt", "path"), ("a", "")])
def test_file_of_no_known_layout_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="has no known layout; known are index, folders, coco"):
        find_layout(tmp_path / name)


def test_folder_of_tasks_or_cvat_xml_is_detected(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/project-1.json").write_text(json.dumps(JSON["label_studio"]))
    (tmp_path / "b").mkdir()
    (tmp_path / "b/annotations.xml").write_text("<annotations><version>1.1</version></annotations>")
    assert (find_layout(tmp_path / "a"), find_layout(tmp_path / "b")) == ("label_studio", "cvat")


def test_folder_of_two_layouts_says_which_one_was_read(tmp_path):
    picture(tmp_path / "a.jpg")
    layouts.voc(tmp_path / "a.xml", ("ace", 4, 2, 24, 12))
    (tmp_path / "classes.txt").write_text("ace\n")
    assert (
        f"{tmp_path}: was read as voc; yolo fits, too; give its own file, or state the layout"
        in read_listing(tmp_path).noticed
    )
    assert "fits, too" not in " ".join(read_listing(tmp_path, layout="voc").noticed)


def test_classes_of_cub_are_not_taken_for_yolo(tmp_path):
    assert read_listing(layouts.cub(tmp_path, 2)).noticed == []


def test_box_that_is_listed_twice_is_read_once(tmp_path):
    picture(tmp_path / "a.jpg")
    layouts.voc(tmp_path / "a.xml", ("ace", 4, 2, 24, 12), ("ace", 4, 2, 24, 12), ("king", 4, 2, 24, 12))
    listing = read_listing(tmp_path)
    assert [box.item for box in listing.scenes[0].boxes] == ["ace", "king"]
    assert "list one box twice" in " ".join(listing.noticed)


def test_root_is_refused_where_it_has_no_meaning(tmp_path):
    layouts.folders(tmp_path, ["jar/plum"], 1)
    with pytest.raises(DataError, match="layout folders takes no root; only index, coco, label_studio, cvat take one"):
        read_listing(tmp_path, tmp_path)


def test_published_split_is_refused_where_there_is_none(tmp_path):
    layouts.folders(tmp_path, ["jar/plum"], 1)
    with pytest.raises(DataError, match="layout folders has no published split; only cub, cars, sop, dogs"):
        read_listing(tmp_path, published=True)


def test_xml_of_one_picture_asks_for_its_folder(tmp_path):
    layouts.voc(tmp_path / "a.xml", ("ace", 4, 2, 24, 12))
    with pytest.raises(DataError, match="is Pascal VOC of one picture; give the folder"):
        read_listing(tmp_path / "a.xml")


def test_matlab_file_stands_for_its_data_set(tmp_path):
    layouts.cars_devkit(tmp_path)
    assert len(read_listing(tmp_path / "devkit/cars_train_annos.mat").samples) == 6


def test_lines_of_a_listing_can_be_printed(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    layouts.folders(folder, ["jar/plum"], 1)
    (folder / "jar/pear").mkdir()
    (line,) = read_listing(folder).left_out
    assert "caf\\udce9/jar/pear: holds no picture" in line


def test_given_layout_names_what_it_misses(tmp_path):
    index = write_crops(tmp_path)
    assert "index" == find_layout(index.parent) == find_layout(index)
    with pytest.raises(DataError, match=r"images: not found; add the folder of CUB's pictures"):
        read_samples(tmp_path, layout="cub")
    with pytest.raises(DataError, match="no layout with boxes; known are coco, voc"):
        read_scenes(tmp_path)
    with pytest.raises(DataError, match="absent: not found"):
        read_samples(tmp_path / "absent")


def test_index_beside_scenes_is_ignored_for_boxes(tmp_path):
    write_crops(tmp_path)
    write_scenes(tmp_path, 2)
    assert find_layout(tmp_path) == "index"
    assert len(read_scenes(tmp_path)[0]) == 2


def test_boxes_outside_a_picture_are_clipped_or_left_out(tmp_path, caplog):
    picture(tmp_path / "x.jpg")
    boxes = [(4, 2, 24, 12), (40, 20, 90, 90), (60, 2, 70, 12)]
    layouts.voc(tmp_path / "x.xml", *(("ace", *box) for box in boxes))
    pictures = load_pictures(read_scenes(tmp_path)[0], None)
    assert pictures.samples[0].boxes_px.tolist() == [[4, 2, 24, 12], [40, 20, 48, 32]]
    assert len(pictures.samples[0].labels) == 2
    assert "clipped 1 boxes outside" in caplog.text
    assert "left out 1 boxes outside" in caplog.text
    crops = load_pictures(read_samples(tmp_path), None)
    assert [image.shape for image in crops.images] == [(10, 20, 3), (12, 8, 3)]
    assert (len(crops.skipped), len(crops.clipped)) == (1, 1)
    assert "x.jpg: box (60.0" in crops.skipped[0]


def test_crops_of_one_scene_are_cut_with_the_given_margin(tmp_path):
    picture(tmp_path / "x.jpg")
    layouts.voc(tmp_path / "x.xml", ("ace", 10, 10, 30, 20))
    image = load_pictures(read_samples(tmp_path), None, margin=0.1).images[0]
    assert image.shape == (12, 24, 3)
    assert image.flags["C_CONTIGUOUS"]
    assert image.dtype == np.uint8


def test_xml_of_other_programs_is_not_voc(tmp_path):
    layouts.folders(tmp_path, ["jar/plum"], 1)
    (tmp_path / ".idea").mkdir()
    (tmp_path / ".idea/misc.xml").write_text("<project/>")
    (tmp_path / "jar/notes.xml").write_text("<project/>")
    assert find_layout(tmp_path) == "folders"


def test_scenes_can_be_split_again(tmp_path):
    for number in range(10):
        picture(tmp_path / f"train/{number}.jpg", number)
        layouts.voc(tmp_path / f"train/{number}.xml", ("ace", 4, 2, 24, 12))
    with pytest.raises(TrainError, match=r"no image of the splits \['val'\]"):
        read_scenes(tmp_path, splits=["val"])
    how = Split(how="stratified", val=0.3)
    train, val = ({s.path for s in read_scenes(tmp_path, splits=[split], split=how)[0]} for split in ("train", "val"))
    assert (len(train), len(val), len(train & val)) == (7, 3, 0)


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "index.XLSX"])
def test_archive_or_workbook_says_what_to_do(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\3\4")
    with pytest.raises(DataError, match="is an archive or a workbook; unpack it, or save it as CSV"):
        read_listing(tmp_path / name)


def test_class_names_of_both_unicode_forms_are_one_class(tmp_path):
    layouts.folders(tmp_path, ["train/\u00d6l", "train/tea", "val/O\u0308l"], 1)
    listing = read_listing(tmp_path)
    assert Counter(sample.item for sample in listing.samples) == {"\u00d6l": 2, "tea": 1}
    assert [line[-6:] for line in listing.noticed] == [" (O\u0308l)"]


def test_boxes_of_both_unicode_forms_are_one_class(tmp_path):
    picture(tmp_path / "a.png")
    box = {"image_id": 1, "bbox": [4, 2, 20, 10]}
    boxes = [box | {"id": 1, "category_id": 1}, box | {"id": 2, "category_id": 2, "bbox": [1, 1, 9, 9]}]
    text = layouts.coco([{"id": 1, "file_name": "a.png"}], boxes, {1: ("\u00d6l", None), 2: ("O\u0308l", None)})
    (tmp_path / "c.json").write_text(text)
    listing = read_listing(tmp_path / "c.json")
    assert (listing.names, [box.item for box in listing.scenes[0].boxes]) == (["\u00d6l"], ["\u00d6l"] * 2)


def test_data_set_in_a_folder_is_not_read_as_classes(tmp_path):
    picture(tmp_path / "set/images/a.png")
    (tmp_path / "set/annotations").mkdir()
    text = layouts.coco([{"id": 1, "file_name": "a.png"}], [], {1: ("tea", None)})
    (tmp_path / "set/annotations/instances_default.json").write_text(text)
    with pytest.raises(DataError, match=r"has no layout, but \S+/set in it has; give that folder"):
        read_listing(tmp_path)
    assert [sample.item for sample in read_listing(tmp_path, layout="folders").samples] == ["images"]
