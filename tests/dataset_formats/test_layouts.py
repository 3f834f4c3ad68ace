"""Layouts: detection, the listing of each reader, and errors that name a missing file."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from dataset_formats.layouts import find_layout, read_listing
from edge.errors import DataError
from tests.dataset_formats import samples as layouts
from tests.dataset_formats.samples import picture
from tests.trainer.toy import write_crops, write_scenes
from trainer.data.dataset import read_samples, read_scenes
from trainer.data.pictures import load_pictures
from trainer.recipe import Split


def splits(samples) -> dict[str, int]:
    return dict(Counter(sample.split for sample in samples))


def test_one_level_of_folders_is_one_category(tmp_path):
    samples = read_samples(layouts.folders(tmp_path, ["plum", "pear"]))
    assert {("object", "plum"), ("object", "pear")} == {(s.category, s.item) for s in samples}
    assert splits(samples) == {"train": 8, "val": 2}


def test_folders_of_splits_are_not_classes(tmp_path):
    layouts.folders(tmp_path / "set/set", ["train/jar/plum", "valid/jar/plum", "test/jar/plum"], per_item=2)
    assert splits(read_samples(tmp_path / "set")) == {"train": 2, "val": 2, "test": 2}
    assert {("jar", "plum")} == {(s.category, s.item) for s in read_samples(tmp_path / "set")}


def test_class_beside_splits_is_rejected(tmp_path):
    layouts.folders(tmp_path, ["train/plum", "val/plum", "pear"], per_item=1)
    with pytest.raises(DataError, match="pear: lies beside a folder of training pictures"):
        read_samples(tmp_path)


def test_mixed_folder_levels_are_rejected(tmp_path):
    layouts.folders(tmp_path, ["plum", "jar/pear"], per_item=1)
    with pytest.raises(DataError, match="plum holds pictures and jar holds folders; use one level"):
        read_samples(tmp_path)


def test_unsupported_picture_formats_are_noted(tmp_path):
    layouts.folders(tmp_path, ["plum"], per_item=1)
    (tmp_path / "plum/phone.HEIC").write_bytes(b"x")
    assert [n[len(str(tmp_path)) + 1 :][:28] for n in read_listing(tmp_path).left_out] == [
        "plum: left out 1 files .heic"
    ]


def test_index_may_use_semicolons_and_names_a_short_row(tmp_path):
    (tmp_path / "index.csv").write_text("path;split;coarse;fine\na.png;train;jar;plum\n")
    assert [s.item for s in read_samples(tmp_path)] == ["plum"]
    (tmp_path / "index.csv").write_text("path,split,coarse,fine\na.png,train,jar,plum\nb.png,train,jar\n")
    with pytest.raises(DataError, match="row 2: fine is empty"):
        read_samples(tmp_path)


def test_index_paths_may_start_one_folder_up(tmp_path):
    picture(tmp_path / "set/a.png")
    (tmp_path / "set/index.csv").write_text("path,split,coarse,fine\nset/a.png,train,jar,plum\n")
    assert read_samples(tmp_path / "set")[0].path.is_file()


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
    assert "left out 1 boxes of crowds" in " ".join(read_listing(tmp_path).left_out)


def test_coco_annotation_with_an_unknown_reference_is_named(tmp_path):
    path = write_scenes(tmp_path, 2)
    tree = json.loads(path.read_text())
    for key, text in (("category_id", "category 9"), ("image_id", "image 9")):
        broken = tree | {"annotations": [tree["annotations"][0] | {key: 9}]}
        path.write_text(json.dumps(broken))
        with pytest.raises(DataError, match=text):
            read_scenes(path)


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


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7 .5 .5 .5 .5", "found class 7, expected 0 to 1"),
        ("0 .5 .5 .5", "found 4 numbers, expected 5: class x y width height"),
        ("0 a b c d", ".0 a b c d. is not a line of numbers"),
    ],
)
def test_broken_yolo_line_is_named(tmp_path, line, message):
    yolo_set(tmp_path, f"0 .5 .5 .5 .5\n{line}\n")
    (tmp_path / "classes.txt").write_text("apple\npear\n")
    with pytest.raises(DataError, match=rf"a\.txt: line 2: {message}"):
        read_scenes(tmp_path)


def test_yolo_without_class_names_names_the_missing_file(tmp_path):
    yolo_set(tmp_path)
    with pytest.raises(DataError, match=r"classes\.txt: not found; add it, obj\.names or data\.yaml"):
        read_scenes(tmp_path)


def test_tagged_regions_are_fractions(tmp_path):
    picture(tmp_path / "a.jpg")
    tag = {"tag": "apple", "left": 0.25, "top": 0.25, "width": 0.5, "height": 0.5}
    (tmp_path / "boxes.json").write_text(json.dumps({"files": [{"filename": "a.jpg", "tags": [tag]}]}))
    assert read_scenes(tmp_path)[0][0].boxes_px.tolist() == [[12, 8, 36, 24]]


def test_cub_splits_by_table_or_by_the_first_100_classes(tmp_path):
    layouts.cub(tmp_path / "CUB_200_2011")
    own = read_samples(tmp_path, cut_to_box=True)
    assert splits(own) == {"train": 51, "test": 51}
    assert (
        own[0].category,
        own[0].item,
        own[0].label,
        own[0].box_px,
    ) == ("bird", "001.Bird_1", "Bird 1", (4, 2, 24, 12))
    assert read_samples(tmp_path)[0].box_px is None
    published = read_samples(tmp_path, split=Split(how="published", val=0.0))
    assert splits(published) == {"train": 100, "test": 2}
    assert {"101.Bird_101", "102.Bird_102"} == {s.item for s in published if s.split == "test"}
    assert len(read_scenes(tmp_path)[0]) == 102


@pytest.mark.parametrize("name", ["images.txt", "classes.txt", "train_test_split.txt"])
def test_cub_names_the_missing_table(tmp_path, name):
    (layouts.cub(tmp_path, 3) / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: not found"):
        read_samples(tmp_path)


def test_published_cars_split_uses_the_merged_pictures(tmp_path):
    layouts.cars_merged(tmp_path)
    published = read_samples(tmp_path, split=Split(how="published", val=0.0), cut_to_box=True)
    assert splits(published) == {"train": 98, "test": 2}
    assert published[0].box_px == (1, 2, 20, 30)
    assert (published[0].category, published[0].item) == ("car", "Make Model 1")
    assert splits(read_samples(tmp_path)) == {"train": 50, "test": 50}


def test_cars_devkit_folders_may_be_nested(tmp_path):
    samples = read_samples(layouts.cars_devkit(tmp_path), cut_to_box=True)
    assert splits(samples) == {"train": 3, "test": 3}
    assert {(30, 20, 3)} == {image.shape for image in load_pictures(samples, None).images}
    with pytest.raises(DataError, match=r"cars_annos\.mat: not found"):
        read_samples(tmp_path, split=Split(how="published"))
    (tmp_path / "devkit/cars_test_annos_withlabels.mat").unlink()
    assert "cars_test_annos_withlabels.mat: not found" in read_listing(tmp_path).left_out[0]
    (tmp_path / "devkit/cars_meta.mat").unlink()
    with pytest.raises(DataError, match=r"cars_meta\.mat: not found"):
        read_samples(tmp_path)


def test_cars_may_be_folders_of_classes(tmp_path):
    layouts.folders(tmp_path / "car_data/car_data", ["train/Audi A 2012", "test/Audi A 2012"], 1)
    samples = read_samples(tmp_path / "car_data", layout="cars")
    assert [(s.category, s.item, s.split) for s in samples] == [
        ("car", "Audi A 2012", "test"),
        ("car", "Audi A 2012", "train"),
    ]


def test_file_that_is_not_matlab_is_named(tmp_path):
    layouts.cars_devkit(tmp_path)
    whole = (tmp_path / "devkit/cars_meta.mat").read_bytes()
    for broken in (b"not a file of MATLAB" * 20, b"", whole[:100], whole[:200]):
        (tmp_path / "devkit/cars_meta.mat").write_bytes(broken)
        with pytest.raises(DataError, match=r"cars_meta\.mat: (not a MATLAB file|cannot read)"):
            read_samples(tmp_path)


def test_online_products_use_super_classes_as_categories(tmp_path):
    head = "image_id class_id super_class_id path\n"
    (tmp_path / "Ebay_train.txt").write_text(head + "1 1 1 bicycle_final/a.JPG\n")
    (tmp_path / "Ebay_test.txt").write_text(head + "2 9 2 coffee_maker_final/b.JPG\n")
    samples = read_samples(tmp_path, split=Split(how="published", val=0.0))
    assert [(s.split, s.category, s.item) for s in samples] == [
        ("train", "bicycle", "1"),
        ("test", "coffee_maker", "9"),
    ]
    (tmp_path / "Ebay_test.txt").unlink()
    with pytest.raises(DataError, match=r"Ebay_test\.txt: not found"):
        read_samples(tmp_path)


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
    boxes = [(4, 2, 24, 12), (40, 20, 90, 90), (60, 2, 70, 12), (20, 20, 10, 10)]
    layouts.voc(tmp_path / "x.xml", *(("ace", *box) for box in boxes))
    pictures = load_pictures(read_scenes(tmp_path)[0], None)
    assert pictures.samples[0].boxes_px.tolist() == [[4, 2, 24, 12], [40, 20, 48, 32]]
    assert len(pictures.samples[0].labels) == 2
    assert "clipped 1 boxes outside" in caplog.text
    assert "left out 2 boxes outside" in caplog.text
    crops = load_pictures(read_samples(tmp_path), None)
    assert [image.shape for image in crops.images] == [(10, 20, 3), (12, 8, 3)]
    assert (len(crops.skipped), len(crops.clipped)) == (2, 1)
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
    with pytest.raises(DataError, match=r"no image of the splits \['val'\]"):
        read_scenes(tmp_path, splits=["val"])
    how = Split(how="stratified", val=0.3)
    train, val = ({s.path for s in read_scenes(tmp_path, splits=[split], split=how)[0]} for split in ("train", "val"))
    assert (len(train), len(val), len(train & val)) == (7, 3, 0)
