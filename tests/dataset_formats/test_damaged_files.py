"""Readers of data sets give a listing or one of our errors for any input."""

from __future__ import annotations

import contextlib
import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_formats.decode import decode_picture, upright_size
from dataset_formats.layouts import find_layout
from edge.errors import FinesightError
from edge.imaging.image import encode_image, read_image
from tests.dataset_formats import samples as layouts
from tests.dataset_formats.samples import picture
from tests.trainer.damaged import damaged_bytes, damaged_json, damaged_text, few_examples, write
from trainer.data.dataset import read_samples, read_scenes
from trainer.data.masks import load_masked, read_masked

COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 48, "height": 32, "split": "val", "level": "easy"}],
    "annotations": [{"image_id": 1, "category_id": 3, "bbox": [4, 2, 20, 10], "iscrowd": 0, "visible_fraction": 0.9}],
    "categories": [{"id": 3, "name": "cola", "supercategory": "can"}, {"id": 5, "name": "milk"}],
}
TAGS = {
    "files": [{"filename": "a.png", "tags": [{"tag": "ace", "left": 0.2, "top": 0.1, "width": 0.5, "height": 0.4}]}]
}
VOC = layouts.VOC.format(name="a", objects=layouts.OBJECT.format("ace", 4, 2, 24, 12) * 2)
INDEX = "path,split,category,item,label\na.png,train,jar,plum,Plum\nb.png,val,jar,pear,Pear\n"
YAML = "names: {0: apple, 1: pear}\npath: .\ntrain: ../images\nval: [images, list.txt]\n"
SOP = "image_id class_id super_class_id path\n1 1 1 bicycle_final/a.JPG\n2 1 1 bicycle_final/b.JPG\n"


def read(path, layout=None) -> None:
    """Read a data set every way that training reads it."""
    for how in (find_layout, lambda p: read_samples(p, layout=layout), lambda p: read_scenes(p, layout=layout)):
        with contextlib.suppress(FinesightError):
            how(path)


@few_examples
@given(text=damaged_json(COCO))
def test_any_coco_json_is_read_or_rejected(tmp_path, text):
    path = tmp_path / "scenes.json"
    path.write_text(text)
    read(path)
    read(tmp_path)


@few_examples
@given(text=damaged_json(TAGS))
def test_any_tagged_regions_are_read_or_rejected(tmp_path, text):
    picture(tmp_path / "a.png")
    (tmp_path / "boxes.json").write_text(text)
    read(tmp_path, "tags")


@few_examples
@given(text=damaged_text(json.dumps(COCO)), depth=st.sampled_from([0, 100_000]))
def test_any_json_text_is_read_or_rejected(tmp_path, text, depth):
    for name in ("a.json", "boxes.json"):
        write(tmp_path / name, "[" * depth + text)
        read(tmp_path / name)


@few_examples
@given(text=damaged_text(VOC), lists=damaged_text("a\nb 1\n"))
def test_any_voc_xml_is_read_or_rejected(tmp_path, text, lists):
    picture(tmp_path / "JPEGImages/a.jpg")
    for folder in ("Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    write(tmp_path / "Annotations/a.xml", text)
    write(tmp_path / "ImageSets/Main/train.txt", lists)
    read(tmp_path)


@few_examples
@given(label=damaged_text("0 0.5 0.5 0.5 0.25\n1 0.25 0.25 0.5 0.25 0.5 0.75\n"), names=damaged_text("apple\npear\n"))
def test_any_yolo_labels_are_read_or_rejected(tmp_path, label, names):
    picture(tmp_path / "images/a.jpg")
    (tmp_path / "labels").mkdir(exist_ok=True)
    write(tmp_path / "labels/a.txt", label)
    write(tmp_path / "classes.txt", names)
    read(tmp_path)


@few_examples
@given(table=damaged_text(YAML), listed=damaged_text("images/a.jpg\n/b.jpg\n"))
def test_any_yolo_yaml_is_read_or_rejected(tmp_path, table, listed):
    picture(tmp_path / "images/a.jpg")
    write(tmp_path / "data.yaml", table)
    write(tmp_path / "list.txt", listed)
    read(tmp_path)
    read(tmp_path / "data.yaml")


@few_examples
@given(text=damaged_text(INDEX))
def test_any_csv_index_is_read_or_rejected(tmp_path, text):
    for number, name in enumerate(("a.png", "b.png")):
        picture(tmp_path / name, number)
    write(tmp_path / "index.csv", text)
    read(tmp_path)
    write(tmp_path / "masks.csv", text.replace("category", "mask"))
    with contextlib.suppress(FinesightError):
        load_masked(read_masked(tmp_path / "masks.csv"))


@few_examples
@given(
    data=st.data(),
    name=st.sampled_from(["images", "image_class_labels", "classes", "train_test_split", "bounding_boxes"]),
)
def test_any_cub_table_is_read_or_rejected(tmp_path, data, name):
    shutil.rmtree(tmp_path / "cub", ignore_errors=True)
    file = layouts.cub(tmp_path / "cub", 2) / f"{name}.txt"
    write(file, data.draw(damaged_text(file.read_text())))
    read(tmp_path / "cub")


@few_examples
@given(text=damaged_text(SOP))
def test_any_sop_table_is_read_or_rejected(tmp_path, text):
    layouts.sop(tmp_path, SOP.splitlines()[1:], [])
    write(tmp_path / "Ebay_train.txt", text)
    read(tmp_path)


@settings(few_examples, max_examples=6)  # each takes half a second: another process reads the file
@given(data=st.data())
def test_any_matlab_file_is_read_or_rejected(tmp_path, data):
    shutil.rmtree(tmp_path / "cars", ignore_errors=True)
    file = layouts.cars_merged(tmp_path / "cars", 3) / "cars_annos.mat"
    file.write_bytes(data.draw(damaged_bytes(file.read_bytes())))
    with contextlib.suppress(FinesightError):
        read_samples(tmp_path / "cars")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@few_examples
@given(data=st.data())
def test_any_picture_is_decoded_or_rejected(tmp_path, suffix, data):
    whole = encode_image(read_image(picture(tmp_path / "whole.png")), suffix)
    damaged = data.draw(damaged_bytes(whole))
    (tmp_path / "a").write_bytes(damaged)
    with contextlib.suppress(FinesightError):
        decode_picture(damaged, "a")
    with contextlib.suppress(FinesightError):
        upright_size(tmp_path / "a")
